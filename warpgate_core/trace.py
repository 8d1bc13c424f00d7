"""What happened on the way to a connection, step by step, from both ends.

A trace is data, not a log: `warpgate connect -v`, `--json`, `ConnectError` and the tests read the
same events. It is bounded, and holds no secret: endpoints, names and reasons only.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["MAX_EVENTS", "MAX_NOTES", "Phase", "Trace", "TraceEvent"]

_LOG = logging.getLogger("warpgate")

MAX_EVENTS = 2_000  # a hostile peer must not grow it; a probe race of 256 sockets fits (measured: 700)
MAX_NOTES = 1_500  # events; later notes are dropped, so that notes alone never crowd out the steps


class Phase(enum.StrEnum):
    """Where a step stands."""

    STARTED = "started"
    COMPLETE = "complete"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One step.

    Args:
        at: seconds since the trace began.
        strategy: name of the strategy, or "" for the session itself.
        step: short stable phrase, e.g. "offer", "dial", "prove", "nominate".
        phase: see `Phase`.
        detail: for people.
        remote: the peer told us, in its own words and on its own clock.
    """

    at: float
    strategy: str
    step: str
    phase: Phase
    detail: str = ""
    remote: bool = False


class Trace:
    """An append-only, bounded list of events with live watchers.

    What is dropped because the trace is full is counted in `dropped`.

    Args:
        now: monotonic seconds.
        session: what names the session at both ends, so that two people can compare their traces.
    """

    def __init__(self, now: Callable[[], float], session: str = "") -> None:
        self._now = now
        self.session = session
        self._start = now()
        self._events: list[TraceEvent] = []
        self._watchers: list[Callable[[TraceEvent], None]] = []
        self.dropped = 0

    def __iter__(self) -> Iterator[TraceEvent]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    @property
    def elapsed(self) -> float:
        """Seconds since the trace began."""
        return self._now() - self._start

    def watch(self, watcher: Callable[[TraceEvent], None]) -> Callable[[], None]:
        """Call `watcher` with each event from now on; returns what ends it.

        A watcher that raises is logged and called no more: it looks on, and decides nothing.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def add(
        self, step: str, phase: Phase, detail: str = "", *, strategy: str = "", remote: bool = False
    ) -> None:
        """Record one event now."""
        if len(self._events) >= (MAX_NOTES if phase is Phase.NOTE else MAX_EVENTS):
            self.dropped += 1
            return
        event = TraceEvent(self.elapsed, strategy, step, phase, detail, remote)
        self._events.append(event)
        for watcher in tuple(self._watchers):
            try:
                watcher(event)
            except Exception:  # noqa: BLE001 - a broken display must not break a connection
                _LOG.exception("a watcher of a trace failed and is not called again")
                self._watchers = [known for known in self._watchers if known is not watcher]
