"""One winner: the initiator alone decides, and decides once.

Pure: paths are named by keys, time is an argument. The responder follows whatever NOMINATE reaches it, so
the two ends cannot choose differently; what can happen is that the nomination never arrives, and then
neither end keeps the path (the initiator's pipe breaks for want of a CONFIRM or of consent). Rejected:
both ends choosing by a shared rule (they see different sets of proven paths), and a third handshake before
the caller gets its pipe (one more round trip on every connection, and still no certainty: two generals).

A proven path of a worse class waits a little while a better one may still come; see `Hold`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from warpgate_core.strategy import Tier

__all__ = ["Agreement", "Candidate", "Decision", "Hold"]

# A UDP path waits for a TCP one of the same tier: TCP needs one more round trip than UDP, so twice the
# measured one covers it and a retransmitted check; 30 ms is RFC 8305's LAN connection attempt delay.
UDP_HOLD_ROUND_TRIPS = 2.0
UDP_HOLD_MIN = 0.030
UDP_HOLD_MAX = 0.250  # RFC 8305 section 5: recommended connection attempt delay


@dataclass(frozen=True, slots=True)
class Hold:
    """How long a worse path is held back.

    Args:
        patience: seconds from the start of the race for which a relay waits at most.
    """

    patience: float = 2.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proven path.

    Args:
        key: names it; any hashable.
        strategy: who made it.
        transport: "tcp" or "udp".
        tier: see `Tier`.
        rank: the strategy's rank.
        round_trip: measured on this path, seconds.
    """

    key: Hashable
    strategy: str
    transport: str
    tier: Tier
    rank: int
    round_trip: float

    @property
    def cost(self) -> tuple[int, int]:
        """Class of the path: lower is better. Streams before datagrams, since they lose nothing."""
        return (int(self.tier), 0 if self.transport == "tcp" else 1)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Args:
        choice: nominate this path; None: not yet.
        wake_at: ask again at this time at the latest; None: nothing to wait for but new paths.
    """

    choice: Hashable | None
    wake_at: float | None


class Agreement:
    """The initiator's choice.

    Args:
        started: when the race began, monotonic seconds.
        hold: see `Hold`.
        runners: per strategy that takes part, the transports it may still bring and its tier.
    """

    def __init__(self, started: float, hold: Hold, runners: dict[str, tuple[frozenset[str], Tier]]) -> None:
        self._started = started
        self._hold = hold
        self._pending = {
            name: {(int(tier), 0 if transport == "tcp" else 1) for transport in transports}
            for name, (transports, tier) in runners.items()
        }
        self._proven: dict[Hashable, tuple[float, Candidate]] = {}
        self._choice: Hashable | None = None

    @property
    def choice(self) -> Hashable | None:
        """The path nominated, once it is."""
        return self._choice

    def proven(self, candidate: Candidate, now: float) -> None:
        """A path has proven itself. What is known of a key already is not changed."""
        self._proven.setdefault(candidate.key, (now, candidate))

    def lost(self, key: Hashable) -> None:
        """A proven path broke before it was chosen."""
        self._proven.pop(key, None)

    def retire(self, strategy: str, transport: str | None = None) -> None:
        """Nothing more can come from this strategy (by this transport; None: by any)."""
        if transport is None:
            self._pending.pop(strategy, None)
        elif strategy in self._pending:
            kind = 0 if transport == "tcp" else 1
            self._pending[strategy] = {cost for cost in self._pending[strategy] if cost[1] != kind}

    def decide(self, now: float) -> Decision:
        """Choose, or say when to ask again. Once chosen, the answer never changes.

        The latest moment of a decision is fixed by the first path of the best class that is proven: for a
        relay the end of the patience, for a UDP path at most `UDP_HOLD_MAX` after its proof.
        """
        if self._choice is not None:
            return Decision(self._choice, None)
        if not self._proven:
            return Decision(None, None)
        _, best = min(self._proven.values(), key=lambda item: (item[1].cost, item[1].rank, item[0]))
        # The first of its class sets the wait: another path of the same class must not prolong it.
        until = min(self._held_until(*item) for item in self._proven.values() if item[1].cost == best.cost)
        if now >= until:
            self._choice = best.key
            return Decision(best.key, None)
        return Decision(None, until)

    def _held_until(self, since: float, best: Candidate) -> float:
        better = [cost for costs in self._pending.values() for cost in costs if cost < best.cost]
        if not better:
            return since
        if any(cost[0] < best.tier for cost in better):
            return max(since, self._started + self._hold.patience)
        hold = max(UDP_HOLD_MIN, UDP_HOLD_ROUND_TRIPS * best.round_trip)
        return since + min(hold, UDP_HOLD_MAX)
