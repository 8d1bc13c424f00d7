"""Sockets that leave from one own address, and multicast on one card only.

The operating system's socket module wants IPv6 scopes apart from the host; here they come together again.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

from warpgate_core import Endpoint, Family, NetworkError

__all__ = ["listen_to_group", "open_stream", "open_udp", "scope_of", "sockaddr"]

_CANNOT_BIND_GROUPS = sys.platform == "win32"
MULTICAST_HOPS = 2  # UDA 1.1 section 1.3.2; IPv6 searches go to the link-local scope


def sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """As the socket module wants it."""
    if endpoint.family is Family.IP4:
        return (endpoint.host, endpoint.port)
    host, _, scope = endpoint.host.partition("%")
    return (host, endpoint.port, 0, int(scope) if scope.isdigit() else 0)


def scope_of(card: str) -> int:
    """The system's number of a card.

    Raises:
        NetworkError: there is no such card.
    """
    try:
        return socket.if_nametoindex(card)
    except OSError as error:
        raise NetworkError(f"the network card {card} is gone") from error


def open_udp(local: Endpoint, *, remote: Endpoint | None = None, card: str = "") -> socket.socket:
    """A non-blocking UDP socket.

    Args:
        local: where to bind; port 0 is any.
        remote: the only one that it shall speak with, if there is one.
        card: send multicast by this card.

    Raises:
        NetworkError: the address is not ours any more, or there is no way.
    """
    sock = socket.socket(local.family.socket_family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if local.family is Family.IP6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr(local))
        if card and local.family is Family.IP4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(local.host))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, MULTICAST_HOPS)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        elif card:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, scope_of(card))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, MULTICAST_HOPS)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        if remote is not None:
            sock.connect(sockaddr(remote))
    except OSError as error:
        sock.close()
        raise NetworkError(f"no UDP socket at {local.host}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def open_stream(local_host: str, family: Family) -> socket.socket:
    """A non-blocking TCP socket that leaves from this address.

    Raises:
        NetworkError: the address is not ours any more.
    """
    sock = socket.socket(family.socket_family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(sockaddr(Endpoint(local_host, 0)))
    except OSError as error:
        sock.close()
        raise NetworkError(f"no TCP socket at {local_host}: {error}") from error
    return sock


def listen_to_group(group: Endpoint, local: Endpoint, card: str) -> socket.socket:
    """A non-blocking socket that receives what is sent to a multicast group, by one card.

    It is bound to the group's own address where the system can do that: bound to any address, it would
    take unicast datagrams away from a media server on this machine that uses the same port.

    Args:
        group: address and port.
        local: own address on the card.
        card: its name.

    Raises:
        NetworkError: the port is taken by a program that does not share it, or there is no multicast.
    """
    sock = socket.socket(local.family.socket_family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            with contextlib.suppress(OSError):  # known to the module, but not to this system
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if local.family is Family.IP4:
            sock.bind(("" if _CANNOT_BIND_GROUPS else group.host, group.port))
            membership = socket.inet_aton(group.host) + socket.inet_aton(local.host)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            scope = scope_of(card)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if _CANNOT_BIND_GROUPS else group.host, group.port, 0, scope))
            joined = socket.inet_pton(socket.AF_INET6, group.host) + struct.pack("@I", scope)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
    except OSError as error:
        sock.close()
        raise NetworkError(f"announcements to {group} on {card} cannot be heard: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock
