"""Which plugins are installed, and importing them one by one.

`importlib.metadata` says what exists, stevedore loads it. Three habits of stevedore are worked around
here and tested: it caches discovery on disk with coarse times (so it is handed the entry points), it
re-raises `AssertionError` and lets `SystemExit` out (so loading is guarded below it), and it cannot see
duplicates that are not neighbours (so `find` keeps the distribution of each).

Rejected: ``pluggy.load_setuptools_entrypoints``, which stops at the first broken plugin, and
``importlib.metadata.entry_points``, which one unreadable distribution takes down for all.
Not imported before a node starts, because both libraries cost 15 ms.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stevedore.extension import ExtensionManager

from warpgate_core.errors import PluginError
from warpgate_core.plugins.record import describe

__all__ = ["GROUP", "Candidate", "LoadResult", "canonical", "find", "load"]

GROUP = "warpgate.plugins"
log = logging.getLogger("warpgate.plugins")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry point, not imported yet.

    Args:
        name: the entry point's name.
        target: ``package.module:Name``.
        distribution: the distribution's name as it spells it.
        version: the distribution's version.
    """

    name: str
    target: str
    distribution: str
    version: str

    @property
    def source(self) -> str:
        """The distribution and version, for people."""
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What importing one candidate gave: an object, or the error.

    Args:
        candidate: which one.
        plugin: the object, if `error` is None.
        error: what went wrong.
        seconds: what it took.
    """

    candidate: Candidate
    plugin: Any
    error: PluginError | None
    seconds: float


def canonical(distribution: str) -> str:
    """A distribution's name as installers compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def find(distributions: Iterable[importlib.metadata.Distribution] | None = None) -> list[Candidate]:
    """List all entry points of the group, duplicates included, in the order of ``sys.path``.

    Args:
        distributions: where to look; None: everything installed.
    """
    found: dict[tuple[str, str, str], Candidate] = {}
    seen: set[str] = set()
    for dist in importlib.metadata.distributions() if distributions is None else distributions:
        try:
            name, version = dist.metadata["Name"], dist.version
            if not name or canonical(name) in seen:
                continue  # nameless leftovers; a copy further back on the path is never imported either
            seen.add(canonical(name))
            for entry in dist.entry_points:
                if entry.group == GROUP:
                    candidate = Candidate(entry.name, entry.value, name, version or "")
                    found.setdefault((canonical(name), entry.name, entry.value), candidate)
        except Exception as error:  # noqa: BLE001 - one unreadable distribution must not hide the others
            log.warning("skipped an installed distribution (%s): %s", dist, describe(error))
    return list(found.values())


def load(candidates: Sequence[Candidate]) -> Iterator[LoadResult]:
    """Import every candidate; names must be unique. What goes wrong with one is its own result.

    Raises:
        KeyboardInterrupt: somebody pressed Ctrl-C; nothing else gets out.
    """
    manager = _Loader(candidates)
    loaded = {extension.name: extension.plugin for extension in manager.extensions}
    for candidate in candidates:
        yield LoadResult(
            candidate,
            loaded.get(candidate.name),
            manager.failures.get(candidate.name),
            manager.seconds.get(candidate.name, 0.0),
        )


class _Guarded(importlib.metadata.EntryPoint):
    """An entry point whose failure to load is always a `PluginError`."""

    def load(self) -> Any:
        if self.pattern.match(self.value) is None:
            raise PluginError(f"its entry point {self.value!r} is not of the form package.module:Name")
        try:
            return super().load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and stranger ones must not end the program
            raise PluginError(f"cannot be imported: {describe(error)}") from error


class _Loader(ExtensionManager[Any]):
    """Stevedore's manager, fed from metadata instead of its disk cache."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._entries = [_Guarded(c.name, c.target, GROUP) for c in candidates]
        self.failures: dict[str, PluginError] = {}
        self.seconds: dict[str, float] = {}
        super().__init__(GROUP, on_load_failure_callback=_Loader._keep)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return list(self._entries)

    def _load_one_plugin(self, ep: importlib.metadata.EntryPoint, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return super()._load_one_plugin(ep, *args)
        finally:
            self.seconds[ep.name] = time.perf_counter() - start

    @staticmethod
    def _keep(manager: Any, ep: importlib.metadata.EntryPoint, error: BaseException) -> None:
        assert isinstance(error, PluginError)
        manager.failures[ep.name] = error
        log.debug("plugin %r cannot be loaded", ep.name, exc_info=error)
