"""Connection reversal (RFC 5128 section 3.2): the peer dials us."""

from __future__ import annotations

from warpgate_core.address import NodeAddress
from warpgate_core.race.plan import order_targets
from warpgate_core.strategies.dialling import plausible_transports, try_targets
from warpgate_core.strategies.faces import faces_of
from warpgate_core.strategy import Attempt, Role, Strategy, register

__all__ = ["Reverse"]


@register("reverse", rank=20)
class Reverse(Strategy):
    """Let the peer dial this node's endpoints, once it has the offer.

    Works where this side can be reached and the other cannot.
    """

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """See `Strategy`."""
        return plausible_transports(faces_of(peer), local)

    async def run(self, attempt: Attempt) -> None:
        """See `Strategy`: the responder dials; the initiator's listener does the rest."""
        if attempt.role is Role.INITIATOR:
            await attempt.settled()
            return
        await try_targets(attempt, order_targets(attempt.interfaces, attempt.peer))
