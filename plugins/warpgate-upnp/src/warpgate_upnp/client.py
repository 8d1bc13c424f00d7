"""A router that was found, and how to ask it for mappings: one class per protocol, one contract for all.

Finding (`PcpClient.find` and its likes) changes nothing at the router, so that all protocols can be tried at
once and the losers be dropped. Only `lease` makes a mapping. Rejected: racing the mappings themselves, which
saves one LAN round trip and leaves two of three to be deleted again, or forgotten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from warpgate_upnp.announcements import RouterClock
from warpgate_upnp.mapping import Lease, Wish
from warpgate_upnp.reach import Site
from warpgate_upnp.timing import Timing

__all__ = ["Asker", "Client"]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and for what; the same for all protocols.

    Args:
        site: own address and the router in front of it.
        clock: what is known of the router's restarts.
        lease: seconds to ask for.
        description: what the router's owner sees beside a mapping.
        nonce: gives a wish's PCP nonce; the same after a restart of ours, so that the mapping is still ours.
        pick: gives a random number below its argument.
        seen: gives the address that STUN sees of us now, "" if there is none.
        timing: how long to wait.
    """

    site: Site
    clock: RouterClock
    lease: int
    description: str
    nonce: Callable[[Wish], bytes]
    pick: Callable[[int], int]
    seen: Callable[[], str]
    timing: Timing = field(default_factory=Timing)


class Client(ABC):
    """A router that answered."""

    protocol: ClassVar[str]

    @abstractmethod
    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        """Make a mapping, or renew the one that is held.

        Raises:
            RefusalError: the router said no.
            NetworkError: it said nothing.
            ProtocolError: it said rubbish.
        """

    @abstractmethod
    async def release(self, wish: Wish, held: Lease) -> None:
        """Take a mapping back. Raises as `lease`."""

    @abstractmethod
    async def close(self) -> None:
        """Close sockets. Mappings stay."""
