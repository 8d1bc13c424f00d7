"""What to ask a UPnP router for next when it has refused: other port, other lease, other action. Pure.

IGD has no negotiation of its own, so a client must guess what would be acceptable from an error code, and
many routers send the wrong one. The guesses are few and bounded. Rejected: asking for the whole table of
mappings first to find a free port (tens of requests on a router with many, and it may change meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warpgate_upnp.igd import Fault

__all__ = ["MAX_OFFERS", "Bargain", "Offer"]

MAX_OFFERS = 8  # requests for one mapping; with ten of 50,000 ports taken, two are too many already
RANDOM_PORTS = range(1_024, 65_536)  # IGD v2 gives no lower ones to whom it does not know (section 2.5.16)
_ABSENT = (Fault.INVALID_ACTION, Fault.OPTIONAL_ACTION)
_VAGUE = (Fault.INVALID_ARGS, Fault.ACTION_FAILED)  # what routers send for whatever they dislike
_TAKEN = (Fault.CONFLICT, Fault.CONFLICT_WITH_OTHER)


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing to ask for.

    Args:
        any_port: by AddAnyPortMapping, where the router chooses if the port is taken.
        port: external port.
        lease: seconds, 0 for ever.
    """

    any_port: bool
    port: int
    lease: int


class Bargain:
    """The asking for one mapping.

    Args:
        internal_port: own.
        external_port: the one that is held already, or the own.
        lease: seconds.
        has_any: whether the service has AddAnyPortMapping.
        pick: gives a number below its argument.

    Attributes:
        offer: what to ask for now.
    """

    def __init__(
        self, internal_port: int, external_port: int, lease: int, has_any: bool, pick: Callable[[int], int]
    ) -> None:
        self.offer = Offer(has_any, external_port, lease)
        self._internal = internal_port
        self._pick = pick
        self._left = MAX_OFFERS - 1
        self._same_port = False

    def refused(self, code: int) -> bool:
        """The router refused the offer with this error code; whether there is another one, now in `offer`."""
        better = self._next(code)
        if better is None or self._left == 0:
            return False
        self._left -= 1
        self.offer = better
        return True

    def _next(self, code: int) -> Offer | None:
        now = self.offer
        if now.any_port and code in (*_ABSENT, *_VAGUE, *_TAKEN, Fault.NO_ROOM):
            # miniupnpd says "no room" where it allows none of the ports; the plain action tells why
            return Offer(any_port=False, port=now.port, lease=now.lease)
        if code == Fault.ONLY_PERMANENT and now.lease:
            return Offer(now.any_port, now.port, lease=0)
        if code == Fault.SAME_PORTS_REQUIRED and not self._same_port:
            self._same_port = True
            return Offer(any_port=False, port=self._internal, lease=now.lease)
        if code in _VAGUE and now.lease:
            return Offer(now.any_port, now.port, lease=0)
        if code in (*_TAKEN, *_VAGUE) and not self._same_port:
            port = RANDOM_PORTS[self._pick(len(RANDOM_PORTS))]
            return Offer(now.any_port, port, now.lease)
        return None
