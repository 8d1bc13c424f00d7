"""`punch-udp`: both ends check towards every mapped endpoint of the other, at once, from the node's sockets.

The checks are the core's: the initiator's first one is the sealed offer, the responder's the answer, and
small probes in between show the initiator's nonce every 20 ms, so that a path is proven half a round trip
after the responder has heard of the session. What comes from a port that nobody knew (behind a NAT that
maps per destination) makes a path of its own. This strategy adds the pairs: all interfaces, all families,
and what the answer says anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from warpgate_core import (
    Attempt,
    DatagramSocket,
    NodeAddress,
    Role,
    Strategy,
    StrategyError,
    WarpgateError,
    register,
)
from warpgate_punch.faces import is_fixed, is_likely, is_near, outside
from warpgate_punch.pairs import Pair, udp_pairs

__all__ = ["PunchUdp", "PunchUdpOptions"]


@dataclass(frozen=True)
class PunchUdpOptions:
    """Options of `PunchUdp`.

    Args:
        hops: let the first checks pass this many routers only: they open our own NAT and do not reach the
            peer's, for NATs that take an unexpected packet amiss. It costs half a round trip. 2 is right
            behind one router, 3 to 5 below a carrier's NAT; 0: all the way.
    """

    hops: int = 0


@register("punch-udp", rank=30, transports={"udp"}, options=PunchUdpOptions)
class PunchUdp(Strategy):
    """Punches UDP holes: both ends send to each other's mapped endpoints, from every interface."""

    options: PunchUdpOptions | None

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """UDP, if there are two interfaces between which no port must be guessed. See `Strategy`."""
        for mine in local.interfaces:
            for theirs in peer.interfaces:
                mapped = outside(mine) is not None and outside(theirs) is not None
                if is_near(mine, theirs) or (mapped and is_likely(mine, theirs)):
                    return frozenset(("udp",))
        return frozenset()

    async def run(self, attempt: Attempt) -> None:
        """Check towards what the address says, and as initiator towards what the answer says anew."""
        checks = _Checks(attempt, self.options.hops if self.options is not None else 0)
        async with asyncio.TaskGroup() as group:
            checks.start(group)
            if attempt.role is Role.INITIATOR and await checks.heard():
                checks.start(group)
        if not checks.proven:
            raise StrategyError(attempt.name, "", checks.explain())


class _Checks:
    """All checks of one attempt.

    Args:
        attempt: whose.
        hops: see `PunchUdpOptions`.

    Attributes:
        proven: how many paths came of them.
    """

    def __init__(self, attempt: Attempt, hops: int) -> None:
        self.proven = 0
        self._attempt = attempt
        self._hops = hops
        self._begun: set[Pair] = set()
        self._failures: list[str] = []

    async def heard(self) -> bool:
        """Wait for the answer; false if there will be none, or the peer does not punch."""
        try:
            await self._attempt.peer_section()
        except StrategyError as error:
            self._failures.append(error.detail)
            return False
        return True

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin with every pair that is new."""
        for pair in udp_pairs(self._attempt.interfaces, self._attempt.peer):
            sock = self._socket(pair)
            if pair not in self._begun and sock is not None:
                self._begun.add(pair)
                group.create_task(self._check(pair, sock))

    def _socket(self, pair: Pair) -> DatagramSocket | None:
        return next((sock for sock in self._attempt.sockets if sock.local == pair.local), None)

    async def _check(self, pair: Pair, sock: DatagramSocket) -> None:
        try:
            await self._attempt.check(pair.remote, sock=sock, kind=pair.kind, hops=self._hops)
            self.proven += 1
        except WarpgateError as error:
            text = error.detail if isinstance(error, StrategyError) else str(error)
            if text not in self._failures:
                self._failures.append(text)

    def explain(self) -> str:
        """Why nothing came of it, in one sentence."""
        if not self._begun:
            return "the peer's address names no UDP endpoint of a family that this node has"
        told = "; ".join(self._failures[:6])
        faces = [
            (mine, theirs)
            for mine in self._attempt.local.interfaces
            for theirs in self._attempt.peer.interfaces
            if mine.internal.family is theirs.internal.family
        ]
        if any(is_likely(mine, theirs) for mine, theirs in faces):
            return f"no hole between {len(self._begun)} pairs of endpoints: {told}"
        if all(is_fixed(mine) or is_fixed(theirs) for mine, theirs in faces):
            why = "one NAT maps per destination and the other lets in only known ports"
        else:
            why = "both NATs map per destination"
        return f"{why}, so that only a search of ports or a relay can help ({told})"
