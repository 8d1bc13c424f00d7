"""Which addresses need a port mapping at all, and whether what a router says of the outside can be true.

Pure functions of what the node knows. A router only knows the address on its own outside. Behind a
carrier's NAT, or a second router, that is not where peers reach us, and an endpoint published from it would
send them to a stranger. What STUN saw decides; where there is no STUN, an address that cannot be public is
not published.

Rejected: `ipaddress.is_global`, which also denies documentation and benchmark ranges (laboratories use
them, and a router that has one is not lying), and which has changed between Python releases.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from warpgate_core import IP4, IP6, Endpoint, Filtering, Gateway, LocalInterface
from warpgate_core import Mapping as NatMapping

__all__ = ["Site", "doubt", "is_needless", "sites"]

_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # RFC 6890 and the RFCs it lists, without documentation and benchmark ranges
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "224.0.0.0/3",
    )
]
_GLOBAL6 = ipaddress.ip_network("2000::/3")  # RFC 4291 section 2.4; the rest is local, or multicast


@dataclass(frozen=True, slots=True)
class Site:
    """One own address and the router in front of it.

    Args:
        internal: own address, and the port that UDP socket and TCP listener share.
        gateway: the router's address, with its scope if it is link-local.
        card: name of the network card.
        prefix: length of the on-link prefix in bits.
    """

    internal: Endpoint
    gateway: str
    card: str
    prefix: int

    def is_on_link(self, host: str) -> bool:
        """Whether that address is on the same link as our own, without a router between."""
        there = ipaddress.ip_address(host)
        if there.version == 6 and there.is_link_local:
            return "%" in host and host.partition("%")[2] == self.gateway.partition("%")[2]
        network = ipaddress.ip_network(f"{self.internal.host}/{self.prefix}", strict=False)
        return there.version == network.version and there in network


def sites(faces: Iterable[LocalInterface], gateways: Iterable[Gateway]) -> list[Site]:
    """The own addresses behind a router that could map ports for them."""
    known = tuple(gateways)
    found = []
    for face in faces:
        if not _is_mappable(face.internal):
            continue
        for gateway in known:
            if gateway.interface == face.name and gateway.family is face.family and gateway.host:
                found.append(Site(face.internal, gateway.host, face.name, face.prefix))
                break
    return found


def is_needless(face: LocalInterface) -> bool:
    """Whether anybody can reach this address already, so that no router need be asked."""
    return face.nat.mapping is NatMapping.NONE and face.nat.filtering is Filtering.EIF


def doubt(external: str, face: LocalInterface) -> str:
    """Why an external address that a router gave must not be published; "" if it may.

    Args:
        external: the address.
        face: the interface that the mapping leads to, with what STUN saw.
    """
    if not external or ipaddress.ip_address(external).is_unspecified:
        return "the router has no external address at present"
    if face.external is not None:
        seen = face.external.host
        if external == seen:
            return ""
        if _is_private(external):
            return (
                f"the router's own external address {external} is no public one: it is itself behind a NAT "
                f"(a carrier's, or a second router), whose address is {seen}"
            )
        return (
            f"the router calls {external} its external address, but from outside this node is seen as "
            f"{seen}: something between translates once more, or the router is wrong"
        )
    if _is_private(external):
        return (
            f"the router's own external address {external} is no public one: it is itself behind a NAT "
            "(a carrier's, or a second router)"
        )
    return ""


def _is_mappable(internal: Endpoint) -> bool:
    ip = internal.ip
    if internal.family is IP6:
        return ip in _GLOBAL6
    assert internal.family is IP4
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def _is_private(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    if ip.version == 6:
        return ip not in _GLOBAL6
    return any(ip in network for network in _PRIVATE)
