"""What the Linux kernel says of its network cards, addresses and default routes (rtnetlink, RFC 3549).

Netlink gives in one conversation what no portable library does: whether an address is deprecated,
temporary or still being checked, whether a card has carrier, what kind of card it is, and by which one
the default route leaves. Rejected: pyroute2 (a distribution for three questions), reading `/proc/net`
(belongs to the process's first thread, so it shows the wrong network namespace to others), and running
`ip -j` (a process per question). A whole snapshot takes 0.2 ms; the kernel answers inside `recv`, so
nothing here waits for the network.

Only this file knows the byte layout. `snapshot` and `open_event_socket` raise OSError where netlink is
not to be had (other systems, some containers, Android); callers then fall back.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "DefaultRoute",
    "Link",
    "LinkAddress",
    "Snapshot",
    "open_event_socket",
    "parse_address",
    "parse_default_route",
    "parse_link",
    "snapshot",
    "split_messages",
]

# linux/netlink.h and linux/rtnetlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_REQUEST_DUMP = 0x001 | 0x300
_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400  # RTMGRP_LINK, IPV4/IPV6_IFADDR, IPV4/IPV6_ROUTE
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")
_ATTRIBUTE = struct.Struct("=HH")
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_VIA = 4, 5, 6, 9, 18
_RTN_UNICAST = 1
_RTM_F_CLONED = 0x200
_RTNH_DEAD = 0x1 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN

_RECEIVE_BYTES = 65_536  # the kernel fills at most 32 KiB per dump message
_MAX_BYTES = 4 << 20  # a router with a full table: the default route comes first, the rest is not read
_TIMEOUT = 1.0  # seconds; the kernel answers within recv, this only bounds a broken sandbox


@dataclass(frozen=True, slots=True)
class Link:
    """One network card.

    Args:
        index: the kernel's number of it.
        name: "eth0".
        flags: IFF_ bits (linux/if.h).
        kind: "" for hardware, else "bridge", "veth", "tun", "wireguard"...
    """

    index: int
    name: str
    flags: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """One address of a card.

    Args:
        index: of the card.
        host: numeric, without scope.
        prefix: length of the on-link prefix in bits.
        flags: IFA_F_ bits (linux/if_addr.h).
    """

    index: int
    host: str
    prefix: int
    flags: int


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """One way out to everywhere.

    Args:
        index: of the card.
        gateway: the router's address, None on a point-to-point link.
        metric: the lower one is taken.
        version: 4 or 6.
    """

    index: int
    gateway: str | None
    metric: int
    version: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it at one moment."""

    links: tuple[Link, ...]
    addresses: tuple[LinkAddress, ...]
    routes: tuple[DefaultRoute, ...]


def snapshot() -> Snapshot:
    """Ask the kernel for links, addresses and default routes.

    Raises:
        OSError: no netlink on this system, or it is forbidden.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("netlink exists on Linux only")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_TIMEOUT)
        sock.bind((0, 0))
        links = list(_dump(sock, _GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
        addresses = list(_dump(sock, _GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)))
        routes = list(_dump(sock, _GETROUTE, _ROUTE.pack(*[0] * 9)))
    return Snapshot(
        tuple(link for _, body in links if (link := parse_link(body))),
        tuple(address for _, body in addresses if (address := parse_address(body))),
        tuple(route for _, body in routes for route in parse_default_route(body)),
    )


def open_event_socket() -> socket.socket:
    """A non-blocking socket that becomes readable when a link, an address or a route changes.

    Raises:
        OSError: no netlink on this system, or it is forbidden.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("netlink exists on Linux only")
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        sock.bind((0, _GROUPS))
    except BaseException:
        sock.close()
        raise
    return sock


def split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message; a truncated rest ends it."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def parse_link(body: bytes) -> Link | None:
    """Body of an RTM_NEWLINK; None if it is not one."""
    if len(body) < _LINK.size:
        return None
    _family, _type, index, flags, _change = _LINK.unpack_from(body)
    attributes = _attributes(body, _LINK.size)
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""), 0)
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    return Link(index, name, flags, kind) if name else None


def parse_address(body: bytes) -> LinkAddress | None:
    """Body of an RTM_NEWADDR; None if it is not an IP address."""
    if len(body) < _ADDRESS.size:
        return None
    _family, prefix, flags, _scope, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body, _ADDRESS.size)
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL, where present, is always ours.
    host = _host(attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b"")
    if host is None:
        return None
    return LinkAddress(index, host, prefix, _number(attributes.get(_IFA_FLAGS)) or flags)


def parse_default_route(body: bytes) -> Iterator[DefaultRoute]:
    """Body of an RTM_NEWROUTE: each next hop if it is a live default route, else nothing."""
    if len(body) < _ROUTE.size:
        return
    family, dst_len, _src, _tos, _table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    if dst_len or kind != _RTN_UNICAST or flags & (_RTM_F_CLONED | _RTNH_DEAD):
        return
    version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family)
    if version is None:
        return
    attributes = _attributes(body, _ROUTE.size)
    metric = _number(attributes.get(_RTA_PRIORITY))
    if _RTA_OIF in attributes:
        yield DefaultRoute(_number(attributes[_RTA_OIF]), _gateway(attributes), metric, version)
    for index, hop in _next_hops(attributes.get(_RTA_MULTIPATH, b"")):
        yield DefaultRoute(index, _gateway(hop), metric, version)


def _dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, kind, 0) + body)
    wanted, total = kind - 2, 0  # RTM_GETx answers with RTM_NEWx, two below
    while total < _MAX_BYTES:
        data = sock.recv(_RECEIVE_BYTES)
        total += len(data)
        for answer, content in split_messages(data):
            if answer == _NLMSG_DONE:
                return
            if answer == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", content)[0] if len(content) >= 4 else 0
                raise OSError(number, "netlink refused to list")
            if answer == wanted:
                yield answer, content


def _attributes(data: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            break
        found[kind & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]  # without the nested bits
        offset += (length + 3) & ~3
    return found


def _next_hops(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    offset = 0
    while offset + _NEXTHOP.size <= len(data):
        length, flags, _weight, index = _NEXTHOP.unpack_from(data, offset)
        if length < _NEXTHOP.size or offset + length > len(data):
            return
        if not flags & _RTNH_DEAD:
            yield index, _attributes(data[offset : offset + length], _NEXTHOP.size)
        offset += (length + 3) & ~3


def _gateway(attributes: dict[int, bytes]) -> str | None:
    via = attributes.get(_RTA_VIA, b"")  # an IPv4 route by an IPv6 router: two bytes of family first
    return _host(attributes.get(_RTA_GATEWAY) or via[2:])


def _host(packed: bytes) -> str | None:
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if len(packed) == 16:
        return socket.inet_ntop(socket.AF_INET6, packed)
    return None


def _number(packed: bytes | None) -> int:
    return int(struct.unpack("=I", packed)[0]) if packed and len(packed) == 4 else 0
