"""Which endpoints a peer may make us send to.

An accepted peer names endpoints in its address and sections. Without a check it could point us at our own
loopback services, at a multicast group, or at the brokers. Not filtered on: `ipaddress.is_global` and
`is_private` (private networks are the point, and documentation addresses are what labs use).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import VettingError
from warpgate_core.net.edge import LocalInterface

__all__ = ["MAX_HOSTS", "MAX_PORTS", "Vetter"]

MAX_HOSTS = 32  # distinct hosts per session: 16 interfaces with a private and an external address each
MAX_PORTS = 2_048  # of one host: what a port search may try (1,200 probes, DESIGN section 7), and room


@dataclass(frozen=True, slots=True)
class Vetter:
    """The check, for one session.

    Args:
        faces: this node's interfaces.
        infrastructure: endpoints of our own brokers, STUN and TURN servers, in canonical form.
    """

    faces: tuple[LocalInterface, ...]
    infrastructure: frozenset[Endpoint]

    def check(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint if we may send there.

        Raises:
            VettingError: says why not.
        """
        try:
            ip = ipaddress.ip_address(endpoint.host)
        except ValueError as error:
            raise VettingError(f"{endpoint.host!r} is not a numeric address") from error
        reason = self._objection(Endpoint(str(ip), endpoint.port), ip)
        if reason:
            raise VettingError(f"{endpoint} was named by the peer and is not sent to: {reason}")
        return endpoint

    def _objection(self, endpoint: Endpoint, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        if not 0 < endpoint.port <= 65_535:
            return "no usable port"
        if isinstance(ip, ipaddress.IPv6Address) and _holds_ip4(ip):
            return "an IPv4 address in IPv6 clothes"
        if ip.is_multicast:
            return "multicast"
        if ip.is_unspecified or (ip.version == 4 and int(ip) >> 24 in (0, *range(240, 256))):
            return "not an address of one machine"
        if ip.is_loopback and not any(face.internal.ip.is_loopback for face in self.faces):
            return "loopback, and this node does not listen there"
        if endpoint in self.infrastructure:
            return "one of this node's own servers"
        if any(_is_broadcast(face, ip) for face in self.faces):
            return "a broadcast address of this network"
        return ""


def _holds_ip4(ip: ipaddress.IPv6Address) -> bool:
    """IPv4-mapped or IPv4-compatible (RFC 4291 section 2.5.5): a way round the other checks."""
    return ip.ipv4_mapped is not None or 1 < int(ip) < 1 << 32


def _is_broadcast(face: LocalInterface, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if ip.version != 4 or face.family is not Family.IP4 or not 0 < face.prefix < 31:
        return False
    host_bits = (1 << (32 - face.prefix)) - 1
    own = int(face.internal.ip)
    return int(ip) in (own | host_bits, own & ~host_bits)
