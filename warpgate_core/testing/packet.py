"""A packet on its way through the in-memory network, and what became of it.

Mutable, as in a real network: each NAT rewrites one end of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from warpgate_core.endpoint import Endpoint

if TYPE_CHECKING:
    from warpgate_core.testing.host import Host
    from warpgate_core.testing.tcp import Segment

__all__ = ["TTL", "Packet", "PacketEvent", "Protocol"]

Protocol = Literal["udp", "tcp"]
TTL: Final = 16  # routers; two carrier-grade NATs in series are four, and a packet that goes round must end


@dataclass(slots=True)
class Packet:
    """One packet.

    Args:
        protocol: "udp" or "tcp".
        source: rewritten by a NAT on the way out.
        destination: rewritten by a NAT on the way in.
        payload: a datagram's bytes, or a TCP segment.
        origin: the host that sent it; None for what a NAT answers by itself.
        ttl: so many routers may still pass it on.
    """

    protocol: Protocol
    source: Endpoint
    destination: Endpoint
    payload: bytes | Segment
    origin: Host | None
    ttl: int = TTL

    def copy(self) -> Packet:
        """For when the network doubles it: each copy is rewritten on its own."""
        return Packet(self.protocol, self.source, self.destination, self.payload, self.origin, self.ttl)


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """What a watcher of the network sees.

    Args:
        at: the loop's time in seconds.
        fate: "sent", "delivered", or why it was dropped: "lost", "no route", "filtered", "blocked",
            "no hairpin", "cut", "partition", "nobody", "ttl".
        host: the host that sent or received it; "" inside the network.
        protocol: "udp" or "tcp".
        source: as it was at that place.
        destination: as it was at that place.
        payload: a datagram's bytes, or a TCP segment.
    """

    at: float
    fate: str
    host: str
    protocol: Protocol
    source: Endpoint
    destination: Endpoint
    payload: bytes | Segment
