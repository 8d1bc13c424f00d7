"""``warpgate plugins``: what is installed, what works, and what is wrong with the rest."""

from __future__ import annotations

from argparse import Namespace

from warpgate_core.cli.settings import node_config
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import Line, clean, line, mask, table, wrapped
from warpgate_core.registry import PluginRecord, PluginState, Registry
from warpgate_core.strategies import BUILT_IN

__all__ = ["installed", "run"]

_STYLE = {PluginState.LOADED: "green", PluginState.DISABLED: "dim"}


def run(args: Namespace, terminal: Terminal) -> int:
    """List the plugins, in whatever state they are."""
    terminal.mute("warpgate.plugins")  # the list says it
    registry = installed(node_config(args).disable)
    if terminal.json:
        terminal.result_json([record.as_dict() for record in registry.records])
        return 0
    terminal.result_rows(_rows(registry.records, terminal.out_width))
    return 0


def installed(disable: object) -> Registry:
    """The registry that a node with this setting would have."""
    registry = Registry(disable=disable if isinstance(disable, tuple) else ())
    for strategy in BUILT_IN:
        registry.add(strategy, distribution="warpgate-core")
    registry.load()
    return registry


def _hooks(record: PluginRecord) -> str:
    """What a plugin takes part in, e.g. "node service, node status"."""
    return ", ".join(name.removeprefix("warpgate_").replace("_", " ") for name in record.hooks)


def _rows(records: tuple[PluginRecord, ...], width: int | None) -> list[Line]:
    header = ("name", "kind", "state", "from", "what it does")
    cells = [
        (
            (record.name, "bold"),
            record.kind.value,
            (record.state.value, _STYLE.get(record.state, "red")),
            record.source,
            clean(record.spec.summary if record.spec else _hooks(record)),
        )
        for record in records
    ]
    found = table(cells, width, header)
    for record in records:
        if record.error:
            text = f"{record.name}: {mask(clean(record.error))}"
            found += [line(), *wrapped(text, width, "  ", "red")]
    return found
