"""Direct connection: dial every plausible endpoint of the peer, now."""

from __future__ import annotations

from warpgate_core.address import NodeAddress
from warpgate_core.errors import StrategyError
from warpgate_core.race.plan import order_targets
from warpgate_core.strategies.dialling import plausible_transports, try_targets
from warpgate_core.strategies.faces import faces_of
from warpgate_core.strategy import Attempt, Role, Strategy, register

__all__ = ["Direct"]


@register("direct", rank=10)
class Direct(Strategy):
    """Dial the peer's endpoints over TCP and UDP, IPv6 first, LAN before all.

    Needs no signalling when the address is right: the sealed offer is the first frame on every path.
    """

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """See `Strategy`."""
        return plausible_transports(faces_of(local), peer)

    async def run(self, attempt: Attempt) -> None:
        """See `Strategy`: the initiator dials; the responder's listener does the rest."""
        if attempt.role is Role.RESPONDER:
            await attempt.settled()
            return
        dialled = order_targets(attempt.interfaces, attempt.peer)
        error: StrategyError | None = None
        try:
            await try_targets(attempt, dialled)
        except StrategyError as failure:
            error = failure
        if error is None:
            return
        # The address the caller had may be old: the answer brings the one of today.
        try:
            await attempt.peer_answered()
        except StrategyError:
            raise error from None
        known = {target.remote for target in dialled}
        new = [t for t in order_targets(attempt.interfaces, attempt.peer) if t.remote not in known]
        if not new:
            raise error
        await try_targets(attempt, new)
