"""The addresses this machine has, one value each, with all that choosing among them needs.

Asked in this order, the first source that answers wins: netlink (Linux), ifaddr (everywhere else; only
addresses and prefixes), the `netifaces` extra (systems where ifaddr gives none). ifaddr is not asked
first on Linux: it knows no flags, and its import starts a process to look for the C library (25 ms,
measured). Which addresses are *used* is decided in `selection`, a pure function of what is found here.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from warpgate_core.endpoint import Family
from warpgate_core.net import netlink
from warpgate_core.net.gateway import default_gateways, index_of, scoped

__all__ = ["LocalAddress", "enumerate_addresses"]

_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40  # linux/if.h; RUNNING means up and with carrier
_TEMPORARY, _DADFAILED, _DEPRECATED, _TENTATIVE, _OPTIMISTIC = 0x1, 0x8, 0x20, 0x40, 0x4  # linux/if_addr.h


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of one network card.

    Args:
        name: the card's name at the operating system.
        index: its number there; 0 if unknown.
        host: numeric; an IPv6 link-local one carries ``%index``.
        prefix: length of the on-link prefix in bits.
        is_up: the card is up and has carrier.
        is_loopback: the card is the loopback.
        kind: "" for hardware, else "bridge", "veth", "tun", "wireguard"...
        is_valid: may be bound: duplicate address detection has passed (RFC 4862 section 5.4).
        is_deprecated: not for new connections (RFC 4862 section 5.5.4).
        is_temporary: a privacy address (RFC 8981), or a further IPv4 address on the same subnet.
        gateway: the router for everything else by this card, None if there is none or it has no address.
        metric: of this card's default route, the lower one is preferred; None if it has no such route.
    """

    name: str
    index: int
    host: str
    prefix: int
    is_up: bool = True
    is_loopback: bool = False
    kind: str = ""
    is_valid: bool = True
    is_deprecated: bool = False
    is_temporary: bool = False
    gateway: str | None = None
    metric: int | None = None

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.IP6 if ":" in self.host else Family.IP4

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The host as an `ipaddress` object."""
        return ipaddress.ip_address(self.host)


def enumerate_addresses() -> tuple[LocalAddress, ...]:
    """Every address of every card, usable or not, in the system's order.

    Returns:
        Empty only if the system tells nothing at all.
    """
    try:
        return tuple(_from_netlink(netlink.snapshot()))
    except OSError:
        return tuple(_from_ifaddr()) or tuple(_from_netifaces())


def _from_netlink(now: netlink.Snapshot) -> Iterator[LocalAddress]:
    links = {link.index: link for link in now.links}
    routes: dict[tuple[int, int], netlink.DefaultRoute] = {}
    for route in sorted(now.routes, key=lambda route: route.metric, reverse=True):
        routes[route.index, route.version] = route  # the lowest metric is written last
    for address in now.addresses:
        link = links.get(address.index)
        if link is None:  # it went between two of our questions
            continue
        way = routes.get((link.index, 6 if ":" in address.host else 4))
        yield LocalAddress(
            name=link.name,
            index=link.index,
            host=scoped(address.host, link.index) or address.host,
            prefix=address.prefix,
            is_up=bool(link.flags & _IFF_UP and link.flags & (_IFF_RUNNING | _IFF_LOOPBACK)),
            is_loopback=bool(link.flags & _IFF_LOOPBACK),
            kind=link.kind,
            is_valid=not address.flags & _DADFAILED
            and (not address.flags & _TENTATIVE or bool(address.flags & _OPTIMISTIC)),
            is_deprecated=bool(address.flags & _DEPRECATED),
            is_temporary=bool(address.flags & _TEMPORARY),
            gateway=scoped(way.gateway, link.index) if way else None,
            metric=way.metric if way else None,
        )


def _from_ifaddr() -> Iterator[LocalAddress]:
    ifaddr = importlib.import_module("ifaddr")
    found = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            host = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            name = adapter.nice_name if not isinstance(adapter.name, str) else adapter.name
            found.append((name, adapter.index or 0, host, entry.network_prefix))
    return _with_routes(found)


def _from_netifaces() -> Iterator[LocalAddress]:
    if importlib.util.find_spec("netifaces") is None:
        return iter(())
    netifaces = importlib.import_module("netifaces")
    found = []
    for name in netifaces.interfaces():
        by_family = netifaces.ifaddresses(name)
        index = index_of(name)
        for number, full in ((netifaces.AF_INET, "0.0.0.0/"), (netifaces.AF_INET6, "")):
            for entry in by_family.get(number, ()):
                mask = str(entry.get("netmask", "")).rpartition("/")
                bits = mask[2] if mask[0] else str(_mask_bits(mask[2], full))
                found.append((name, index, str(entry["addr"]).partition("%")[0], int(bits)))
    return _with_routes(found)


def _mask_bits(mask: str, full: str) -> int:
    if not mask:
        return 0
    if full:
        return ipaddress.IPv4Network(f"{full}{mask}").prefixlen
    return int(ipaddress.IPv6Address(mask)).bit_count()


def _with_routes(found: list[tuple[str, int, str, int]]) -> Iterator[LocalAddress]:
    ways = {(gateway.interface, gateway.family): gateway for gateway in reversed(default_gateways())}
    for name, index, host, prefix in found:
        ip = ipaddress.ip_address(host)
        way = ways.get((name, Family(ip.version)))
        yield LocalAddress(
            name=name,
            index=index,
            host=scoped(str(ip), index) or str(ip),
            prefix=prefix,
            is_loopback=ip.is_loopback,
            gateway=way.host if way else None,
            metric=way.metric if way else None,
        )
