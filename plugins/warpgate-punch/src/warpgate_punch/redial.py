"""When to dial the same way again, so that two SYNs cross. Pure: time is an argument.

A NAT lets a SYN in from where it has let one out, for as long as that one is unanswered. So each end
keeps one SYN under way all the time, and whichever comes second gets in:

* **Silence** is what a well-behaved NAT answers to a SYN that comes too early (RFC 5382 REQ-4). The next one
  is sent long before the system's own retransmission, which takes a second (RFC 6298 section 2).
* **A refusal** comes from a NAT that answers an early SYN with RST, after one round trip, and closes
  our own NAT's door as well. The next SYN goes out at once: the door is then shut for no longer than the
  refusal takes from our NAT to here and back, whatever the round trip. After a burst, which is to last until
  the other end dials too, at a pace that no host takes for a flood.
* **Busy** means that this pair of endpoints is connected already: by the peer's SYN that came first and
  was accepted, which is what we want; or by another session.

Rejected: agreeing on a moment through the broker (one more trip there, and its delay is known to a few
milliseconds at best), and one long connect (a lost SYN costs a second, a refusal ends it).
"""

from __future__ import annotations

import enum
import random

__all__ = ["PACE", "PATIENCE", "WINDOW", "Outcome", "Redial"]

WINDOW = 6.0  # s from when both ends can be dialling; DESIGN section 4 gives a port search as long
PATIENCE = 0.4  # s for a connection at first: two round trips of 200 ms
PATIENCE_MAX = 1.5  # s; the most common satellite's round trip, twice
EARLY_PATIENCE = 1.0  # s while the peer has not heard of us: the system retransmits after that (RFC 6298)
GROWTH = 1.4
BURST = 32  # refused connections in a row at once; bridges signalling of 64 ms on a path of 2 ms
PACE = 0.040  # s between refused connections after that, 25 a second
BUSY_PAUSE = 0.050  # s; a proof takes one round trip
BUSY_PAUSE_MAX = 0.5
HOPELESS = 3  # errors of other kinds (no route, forbidden) until it is believed
DIALS = 200  # of one pair, whatever happens


class Outcome(enum.Enum):
    """How a connection attempt ended."""

    SILENT = enum.auto()
    REFUSED = enum.auto()
    BUSY = enum.auto()
    BROKEN = enum.auto()  # connected, and then no proof came about
    FAILED = enum.auto()
    FORBIDDEN = enum.auto()  # by our own rules about endpoints that a peer names


class Redial:
    """The schedule of one pair of endpoints.

    Args:
        now: monotonic seconds.
        rng: shakes two ends apart that would hinder each other in step.
        heard: the peer is known to have heard of us.
    """

    def __init__(self, now: float, rng: random.Random, *, heard: bool) -> None:
        self._rng = rng
        self._deadline = now + WINDOW if heard else None
        self._patience = PATIENCE
        self._busy_pause = BUSY_PAUSE
        self._refused = 0
        self._failed = 0
        self.dials = 0

    def heard(self, now: float) -> None:
        """The peer has answered, so both ends can be dialling from now on."""
        if self._deadline is None:
            self._deadline = now + WINDOW

    @property
    def patience(self) -> float:
        """Seconds that the next connection attempt may take."""
        return EARLY_PATIENCE if self._deadline is None else self._patience

    def again(self, outcome: Outcome, now: float) -> float | None:
        """When to dial again after `outcome`, in monotonic seconds; None: no more."""
        self.dials += 1
        if self.dials >= DIALS or (self._deadline is not None and now >= self._deadline):
            return None
        match outcome:
            case Outcome.SILENT:
                self._patience = min(self._patience * GROWTH, PATIENCE_MAX)
                return now
            case Outcome.REFUSED:
                self._refused += 1
                return now if self._refused <= BURST else now + PACE * self._rng.uniform(0.5, 1.5)
            case Outcome.BUSY:
                pause, self._busy_pause = self._busy_pause, min(self._busy_pause * GROWTH, BUSY_PAUSE_MAX)
                return now + pause
            case Outcome.BROKEN:
                return now + BUSY_PAUSE * self._rng.uniform(0.0, 2.0)
            case Outcome.FAILED:
                self._failed += 1
                return None if self._failed >= HOPELESS else now + BUSY_PAUSE_MAX
            case Outcome.FORBIDDEN:
                return None
