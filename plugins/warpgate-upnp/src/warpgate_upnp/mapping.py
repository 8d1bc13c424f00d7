"""One wanted port mapping, and when to ask for it: a state machine without sockets; `now` is an argument.

======== ============================= ===================================================
state    meaning                       what leads out of it
======== ============================= ===================================================
WANTED   not mapped                    granted: HELD; failed: WANTED, later each time
HELD     mapped; renewed at half-life  granted: HELD anew; failed: HELD, asked again in half of
                                       what is left; over: WANTED; lost: DOUBTED
DOUBTED  mapped, but the router has    granted: HELD; failed: WANTED, since then nobody says
         restarted or said goodbye     that it is still there
======== ============================= ===================================================

Rejected: renewing shortly before the end (one lost packet would end the mapping), and withdrawing a mapping
when a single renewal fails (the router keeps it until it ends, whether it answers us or not).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

from warpgate_core import Endpoint

__all__ = ["Lease", "Mapping", "State", "Wish"]

MIN_WAIT = 4.0  # s between two requests for one mapping (RFC 6887 section 11.2.1)
LOST_WAIT = 2.0  # s at least from one request to the next when the router seems to have restarted
# s after a failure, doubling: a router takes a minute to start, and where there is none two searches an hour
# harm nobody; a changed network or an announcement is acted on at once anyway
FIRST_RETRY, MAX_RETRY = 30.0, 1_800.0
# s after which a mapping without end is asked for again; no sooner, as some routers write it to flash memory
PERMANENT_CHECK = 1_800.0


class State(enum.Enum):
    """See the table above."""

    WANTED = "wanted"
    HELD = "held"
    DOUBTED = "doubted"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be reachable from outside.

    Args:
        internal: own endpoint.
        transport: "udp" or "tcp".
    """

    internal: Endpoint
    transport: str


@dataclass(frozen=True, slots=True)
class Lease:
    """What a router gave.

    Args:
        protocol: by which it was asked, for people: "PCP", "NAT-PMP" or "UPnP".
        external: what leads to the internal endpoint.
        life: seconds from now; infinite if the router has no leases that end.
        number: of a UPnP pinhole.
    """

    protocol: str
    external: Endpoint
    life: float
    number: int = 0


class Mapping:
    """The state of one wish.

    Args:
        wish: what is wanted.
        now: seconds; it is to be asked for at once.
        jitter: gives a number from 0 to 1, so that many nodes do not renew in step.

    Attributes:
        state: see `State`.
        lease: what is held; None while WANTED.
        due: when to ask next, in seconds.
        problem: why there is no mapping, or why it could not be renewed; "" if all is well.
    """

    def __init__(self, wish: Wish, now: float, jitter: Callable[[], float]) -> None:
        self.wish = wish
        self.state = State.WANTED
        self.lease: Lease | None = None
        self.due = now
        self.problem = ""
        self._jitter = jitter
        self._expires = math.inf
        self._asked = -math.inf
        self._failures = 0
        self._is_final = False  # it was a decision, not silence: asking again soon would change nothing
        self._again = False  # the router showed itself while a request was under way
        self._doubts = False  # it restarted while a request was under way

    @property
    def wakeup(self) -> float:
        """When there is something to do next, in seconds: to ask, or to see that the lease is over."""
        return min(self.due, self._expires)

    @property
    def is_settled(self) -> bool:
        """Whether the first request has had its answer, or nobody answers."""
        return self.lease is not None or bool(self.problem)

    def remaining(self, now: float) -> float:
        """Seconds that the lease still has; 0 without one."""
        return max(0.0, self._expires - now) if self.lease is not None else 0.0

    def tick(self, now: float) -> None:
        """Let time pass: a lease that is over is over."""
        if self.lease is not None and now >= self._expires:
            self._drop("the mapping ran out before the router answered again")
            self.due = min(self.due, now)

    def asked(self, now: float) -> None:
        """A request is under way; nothing is due until `granted` or `failed`."""
        self._asked = now
        self.due = math.inf
        self._again = self._doubts = False

    def granted(self, lease: Lease, now: float) -> None:
        """The router has made or renewed the mapping.

        Renewal is due after 1/2 to 5/8 of its life (RFC 6887 section 11.2.1).
        """
        self.state, self.lease, self.problem = State.HELD, lease, ""
        self._failures = 0
        self._is_final = False
        self._expires = now + lease.life
        if math.isinf(lease.life):
            self.due = now + PERMANENT_CHECK
        else:
            self.due = now + max(MIN_WAIT, lease.life * (1 / 2 + self._jitter() / 8))
        if self._doubts:  # before or after it made the mapping?
            self.lost(now)

    def failed(
        self, problem: str, now: float, *, refused: bool = False, retry_after: float | None = None
    ) -> None:
        """The router did not answer, or it refused.

        Args:
            problem: one sentence.
            now: seconds.
            refused: it said no.
            retry_after: seconds for which it is likely to stay so, if the router said.
        """
        self._is_final = refused
        if self.state is not State.HELD:
            self._drop(problem)
            wait = min(MAX_RETRY, FIRST_RETRY * 2**self._failures)
            self._failures = min(self._failures + 1, 16)  # 2**16 is beyond MAX_RETRY by far
            if retry_after is not None:
                wait = min(MAX_RETRY, max(wait, retry_after))
            self.due = now + wait
        else:
            self.problem = problem
            left = MAX_RETRY if math.isinf(self._expires) else self._expires - now
            self.due = now + max(MIN_WAIT, left / 2)
        if self._again:
            self._hurry(now)

    def lost(self, now: float) -> None:
        """The router has restarted, or the network has changed: ask anew, but not in a frenzy."""
        if self.state is State.HELD:
            self.state = State.DOUBTED
        self._failures = 0
        self._doubts = True
        self._hurry(now)

    def noticed(self, now: float) -> None:
        """The router has shown that it is there: if it was silent before, ask it."""
        if self.lease is None and not self._is_final:
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        if math.isinf(self.due):  # a request is under way
            self._again = True
        else:
            self.due = min(self.due, max(now, self._asked + LOST_WAIT))

    def given_up(self, problem: str, now: float) -> None:
        """The mapping was given back, since it is of no use; ask again much later."""
        self._drop(problem)
        self._is_final = True
        self.due = now + MAX_RETRY

    def _drop(self, problem: str) -> None:
        self.state, self.lease, self.problem = State.WANTED, None, problem
        self._expires = math.inf
