"""What is known of one plugin, sound or not: a value for the registry, the terminal and error texts.

A plugin that cannot be used is a record with a sentence, never an exception that stops the others.
Rejected: keeping the exception itself (its traceback keeps the plugin's frames alive for the life of
the node; it goes to the log instead).
"""

from __future__ import annotations

import enum
import os
import traceback
from dataclasses import dataclass
from typing import Any

from warpgate_core.strategy import StrategySpec

__all__ = ["MAX_ERROR", "PluginKind", "PluginRecord", "PluginState", "describe"]

MAX_ERROR = 400  # characters of a plugin's own error text that are kept: a few lines on a terminal


class PluginState(enum.StrEnum):
    """What became of a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"  # by WARPGATE_DISABLE or NodeConfig.disable; it was not imported
    FAILED = "failed"  # could not be imported, or breaks the contract
    CONFLICT = "conflict"  # two distributions claim the name; none of them was imported
    INCOMPATIBLE = "incompatible"  # written for another version of the contract


class PluginKind(enum.StrEnum):
    """What a plugin is; a strategy may implement hooks besides."""

    STRATEGY = "strategy"
    HOOKS = "hooks"
    UNKNOWN = "unknown"  # it was not imported, or is neither


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin of one node.

    Args:
        name: the entry point's name, which is also the strategy's.
        state: see `PluginState`.
        kind: see `PluginKind`.
        distribution: name of the installed distribution; "" for a plugin added by the program itself.
        version: that distribution's version; "" if unknown.
        target: where the object is, as ``package.module:Name``.
        error: one sentence: what is wrong and what to do; "" if nothing is.
        spec: the strategy's spec, if it is a strategy that was loaded.
        hooks: names of the hooks that it implements.
        seconds: what importing it took.
        failures: how often one of its hooks (or the strategy itself) has failed since.
        last_failure: what the last of these was.
    """

    name: str
    state: PluginState
    kind: PluginKind = PluginKind.UNKNOWN
    distribution: str = ""
    version: str = ""
    target: str = ""
    error: str = ""
    spec: StrategySpec | None = None
    hooks: tuple[str, ...] = ()
    seconds: float = 0.0
    failures: int = 0
    last_failure: str = ""

    @property
    def source(self) -> str:
        """The distribution and version, for people."""
        if not self.distribution:
            return f"{self.target} (added by this program)"
        return f"{self.distribution} {self.version}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spec = self.spec
        return {
            "name": self.name,
            "state": self.state.value,
            "kind": self.kind.value,
            "distribution": self.distribution or None,
            "version": self.version or None,
            "target": self.target or None,
            "error": self.error or None,
            "rank": spec.rank if spec else None,
            "tier": spec.tier.name.lower() if spec else None,
            "transports": sorted(spec.transports) if spec else None,
            "api_version": spec.api_version if spec else None,
            "summary": spec.summary if spec else None,
            "hooks": list(self.hooks),
            "seconds": round(self.seconds, 6),
            "failures": self.failures,
            "last_failure": self.last_failure or None,
        }


def describe(error: BaseException) -> str:
    """One line about a foreign exception: its type, its text, and where it was raised.

    Args:
        error: anything, also one whose own ``__str__`` raises.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a plugin's exception may be as broken as the plugin
        text = "(its text cannot be shown)"
    if isinstance(error, SystemExit):
        line = f"it called sys.exit({error.code!r})"
    else:
        line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(line) > MAX_ERROR:
        line = line[: MAX_ERROR - 3] + "..."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_foreign(f.filename)]
    if frames:
        line += f" ({os.path.basename(frames[-1].filename)} line {frames[-1].lineno})"
    return line


_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep + "plugins" + os.sep


def _is_foreign(filename: str) -> bool:
    """Whether a frame belongs to the plugin: neither ours nor the import machinery's."""
    return not (
        filename.startswith(("<frozen", _OWN)) or f"importlib{os.sep}" in filename or "stevedore" in filename
    )
