"""``warpgate doctor``: what the network allows, and what that means for connecting."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from warpgate_core.cli.checkup import Checkup, examine
from warpgate_core.cli.commands.plugins import installed
from warpgate_core.cli.exits import Exit
from warpgate_core.cli.settings import home, node_config, open_identity
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import Line, Span, clean, joined, line, mask, milliseconds, table, wrapped
from warpgate_core.cli.verdict import Advice, Level, verdict
from warpgate_core.net.threads import in_thread
from warpgate_core.registry import PluginState

__all__ = ["run"]

_STYLE = {Level.GOOD: "green", Level.HINT: "yellow", Level.BAD: "bold red"}
_MARK = {Level.GOOD: "ok", Level.HINT: "note", Level.BAD: "BAD"}


async def run(args: Namespace, terminal: Terminal) -> int:
    """Examine and report."""
    config = node_config(args, accept=())
    directory = home(args)
    identity, _ = await in_thread("identity", lambda: open_identity(directory))
    terminal.mute("warpgate.plugins")  # what is wrong with plugins is part of the report
    registry = await in_thread("plugins", lambda: installed(config.disable))
    terminal.say("looking at the network, for a few seconds...", "dim")
    found = await examine(config, identity, registry)
    advice = verdict(found)
    if terminal.json:
        terminal.result_json(_fields(found, advice))
    else:
        terminal.result_rows(_report(found, advice, terminal.out_width))
    return Exit.NETWORK if any(one.level is Level.BAD for one in advice) else Exit.OK


def _report(found: Checkup, advice: list[Advice], width: int | None) -> Iterator[Line]:
    rows = [*_node(found), *_faces(found), *_servers(found), *_plugins(found)]
    yield from table([((title, "bold"), text) for title, text in rows], width)
    yield line()
    yield line(("what this means", "bold"))
    for one in advice:
        mark = f"  {_MARK[one.level]:<6}"
        first, *rest = wrapped(mark + clean(mask(one.text)), width, " " * len(mark))
        yield ((mark, _STYLE[one.level]), (first[0][0][len(mark) :], ""))
        yield from rest


def _node(found: Checkup) -> Iterator[tuple[str, str | Span]]:
    yield "node", found.node_id
    used = {face.internal.host for face in found.faces}
    for number, address in enumerate(found.addresses):
        words = [f"{address.name} {address.host}/{address.prefix}"]
        if address.gateway:
            words.append(f"gateway {address.gateway}")
        words.append("in use" if address.host in used else "not used" if address.is_up else "down")
        style = "" if address.host in used else "dim"
        yield "" if number else "network", (", ".join(words), style)
    if not found.addresses:
        yield "network", ("no network card has an address", "red")


def _faces(found: Checkup) -> Iterator[tuple[str, str | Span]]:
    for number, face in enumerate(found.faces):
        seen = "not known from outside" if face.external is None else f"seen as {face.external}"
        text = f"IPv{int(face.family)} {face.internal}, {seen}, NAT: {face.nat.label}"
        yield "" if number else "outside", text
    mapped = [
        f"{kind} {endpoint} to {face.internal}" for face in found.faces for kind, endpoint in face.mapped
    ]
    if not found.faces:
        return
    if mapped:
        yield "mapping", joined(mapped)
    elif found.mappers:
        yield "mapping", f"none; {joined(found.mappers)} found no router that gives one"
    else:
        yield "mapping", ("no plugin asks the router for one (warpgate-upnp would)", "dim")


def _servers(found: Checkup) -> Iterator[tuple[str, str | Span]]:
    if not found.stun:
        yield "STUN", ("no server configured", "dim")
    for number, row in enumerate(found.stun):
        head = "" if number else "STUN"
        where = f"{row.server} over IPv{int(row.family)}"
        if row.rtt is None:
            yield head, (f"{where}: {clean(row.error)}", "red")
        else:
            yield head, f"{where}: {milliseconds(row.rtt)}, sees {row.mapped}"
    if not found.brokers:
        yield "brokers", ("none configured", "dim")
    for number, broker in enumerate(found.brokers):
        head = "" if number else "brokers"
        if broker.is_up:
            took = "" if broker.latency is None else f", {milliseconds(broker.latency)}"
            yield head, f"{broker.url}: up{took}"
        else:
            yield head, (f"{broker.url}: {clean(mask(broker.error))}", "red")
    yield "TURN", joined(found.turn) or ("no server configured", "dim")
    skew = "" if found.skew is None else f"{found.skew:+.3f} s; "
    yield "clock", f"{skew}{clean(found.clock)}"


def _plugins(found: Checkup) -> Iterator[tuple[str, str | Span]]:
    usable = [record.name for record in found.plugins if record.state is PluginState.LOADED]
    others = [f"{record.name} ({record.state})" for record in found.plugins if record.name not in usable]
    yield "plugins", joined([*usable, *others]) or ("none", "red")
    for name, sentence in found.status:
        yield "", f"{name}: {mask(sentence)}"


def _fields(found: Checkup, advice: list[Advice]) -> dict[str, Any]:
    return {
        "node_id": found.node_id,
        "network_error": found.network_error or None,
        "addresses": [
            {
                "card": address.name,
                "host": address.host,
                "prefix": address.prefix,
                "is_up": address.is_up,
                "gateway": address.gateway,
                "in_use": address.host in {face.internal.host for face in found.faces},
            }
            for address in found.addresses
        ],
        "gateways": [
            {"family": int(g.family), "host": g.host, "card": g.interface, "metric": g.metric}
            for g in found.gateways
        ],
        "interfaces": [
            {
                "card": face.name,
                "family": int(face.family),
                "internal": str(face.internal),
                "external": None if face.external is None else str(face.external),
                "nat": face.nat.label,
                "mapping": face.nat.mapping.name.lower(),
                "filtering": face.nat.filtering.name.lower(),
                "allocation": face.nat.allocation.name.lower(),
                "port_mappings": {kind: str(endpoint) for kind, endpoint in face.mapped},
                "notes": list(face.notes),
            }
            for face in found.faces
        ],
        "stun": [
            {
                "server": row.server,
                "family": int(row.family),
                "mapped": None if row.mapped is None else str(row.mapped),
                "seconds": row.rtt,
                "error": row.error or None,
            }
            for row in found.stun
        ],
        "brokers": [dataclasses.asdict(row) for row in found.brokers],
        "turn": list(found.turn),
        "clock": {"skew": found.skew, "source": found.clock},
        "status": [{"plugin": name, "text": mask(text)} for name, text in found.status],
        "plugins": {record.name: record.state.value for record in found.plugins},
        "advice": [{"level": one.level.value, "text": one.text} for one in advice],
    }
