"""Binding: one port number for UDP and TCP, the same one on every address if it can be had.

The UDP socket is bound without any sharing, so it is also the lock: two nodes on one address never
get the same number, although TCP sockets on it are shared. They must be: simultaneous open, and STUN
over TCP, dial from the very port that the listener is on, and Linux allows that only where every socket
set SO_REUSEADDR and SO_REUSEPORT before it was bound. Rejected: the wildcard address (a packet would leave
by another card than the one whose mapping was learnt) and SO_BINDTODEVICE for long-lived sockets (the kernel
loops packets to own addresses through `lo`, so such a socket never hears from this machine's programs).
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import NetworkError

__all__ = [
    "PortPair",
    "bind_pair",
    "bind_pairs",
    "bind_tcp",
    "bind_udp",
    "leave_by",
    "leave_by_device",
    "share_port",
    "sockaddr",
]

RECEIVE_BUFFER = 1 << 20  # bytes; holds 910 datagrams of 1,200 bytes, Linux's default 92 (measured)
TRIES = 16  # ports taken for TCP alone are rare: with half of them taken, 2**-16 would fail
_IP_UNICAST_IF, _IPV6_UNICAST_IF = 50, 76  # linux/in.h, linux/in6.h: leave by this card


@dataclass(frozen=True, slots=True)
class PortPair:
    """A bound UDP socket and a bound TCP socket of the same number, both non-blocking."""

    endpoint: Endpoint
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """The endpoint as the socket module takes it, without any name lookup; a scope becomes a number.

    Raises:
        NetworkError: the scope names a card that does not exist.
    """
    host, _, scope = endpoint.host.partition("%")
    if not scope:
        return (host, endpoint.port)
    try:
        number = int(scope) if scope.isascii() and scope.isdigit() else socket.if_nametoindex(scope)
    except OSError as error:
        raise NetworkError(f"{endpoint}: there is no network card {scope!r} on this machine") from error
    return (host, endpoint.port, 0, number)


def share_port(sock: socket.socket) -> None:
    """Let this TCP socket share its port with the listener; before binding."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def leave_by(sock: socket.socket, family: Family, index: int) -> None:
    """Let a UDP socket send by the card `index` (Linux only); 0: as the routing table prefers.

    For a machine with two ways out: the table's choice looks at the destination alone, and a packet
    with the second card's address that leaves by the first is dropped by the provider.
    """
    if sys.platform == "linux":
        level = socket.IPPROTO_IP if family is Family.IP4 else socket.IPPROTO_IPV6
        option = _IP_UNICAST_IF if family is Family.IP4 else _IPV6_UNICAST_IF
        sock.setsockopt(level, option, socket.htonl(index))  # both want network byte order


def leave_by_device(sock: socket.socket, name: str) -> None:
    """The same for one outgoing TCP connection, where Linux ignores what `leave_by` sets.

    Not for destinations on this machine: a socket tied to a card hears nothing that comes through `lo`.
    Before Linux 5.7 this needed root; then the routing table decides.
    """
    if sys.platform == "linux":
        with suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")


def bind_udp(host: str, port: int = 0) -> socket.socket:
    """A non-blocking UDP socket on exactly this address.

    Raises:
        OSError: the port is taken, or the address is not ours.
    """
    sock = _open(host, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(sockaddr(Endpoint(host, port)))
    except BaseException:
        sock.close()
        raise
    return sock


def bind_tcp(host: str, port: int) -> socket.socket:
    """A non-blocking TCP socket on exactly this address that shares its port; not yet listening.

    Raises:
        OSError: the port is taken, or the address is not ours.
    """
    sock = _open(host, socket.SOCK_STREAM)
    try:
        share_port(sock)
        sock.bind(sockaddr(Endpoint(host, port)))
    except BaseException:
        sock.close()
        raise
    return sock


def bind_pair(host: str, port: int = 0) -> PortPair:
    """UDP and TCP on the same number.

    Args:
        host: an own address.
        port: the number, or 0 for any that is free for both.

    Raises:
        NetworkError: it is taken, no number was free for both, or the address is not ours.
    """
    for _ in range(1 if port else TRIES):
        try:
            return _bind_once(host, port)
        except OSError as error:
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
    raise _bind_error(host, port, problem) from problem


def bind_pairs(hosts: Sequence[str], port: int = 0) -> tuple[PortPair, ...]:
    """A pair for each address, all on the same number if possible.

    Args:
        hosts: own addresses, one or more.
        port: the number, or 0 for any. If no number is free everywhere each address gets its own.

    Raises:
        NetworkError: the wanted number is taken, or an address is not ours.
    """
    for _ in range(1 if port else TRIES):
        with ExitStack() as bound:
            pairs: list[PortPair] = []
            try:
                for host in hosts:
                    pairs.append(bind_pair(host, pairs[0].endpoint.port if pairs else port))
                    bound.callback(pairs[-1].close)
            except NetworkError as error:
                if port or not _is_taken(error):
                    raise
                continue
            bound.pop_all()
            return tuple(pairs)
    with ExitStack() as bound:
        pairs = []
        for host in hosts:
            pairs.append(bind_pair(host))
            bound.callback(pairs[-1].close)
        bound.pop_all()
        return tuple(pairs)


def _bind_once(host: str, port: int) -> PortPair:
    udp = bind_udp(host, port)
    try:
        endpoint = Endpoint(host, udp.getsockname()[1])
        return PortPair(endpoint, udp, bind_tcp(host, endpoint.port))
    except BaseException:
        udp.close()
        raise


def _open(host: str, kind: socket.SocketKind) -> socket.socket:
    family = Endpoint(host, 0).family
    # asyncio sets TCP_NODELAY only on sockets that name their protocol, and accepted ones inherit it
    protocol = socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
    sock = socket.socket(family.socket_family, kind, protocol)
    try:
        sock.setblocking(False)
        if family is Family.IP6:  # an IPv4 packet must never arrive under an IPv6 name
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_taken(error: NetworkError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _bind_error(host: str, port: int, problem: OSError) -> NetworkError:
    if problem.errno == errno.EADDRNOTAVAIL:
        return NetworkError(f"{host} is not an address of this machine (any more)")
    if problem.errno == errno.EADDRINUSE and port:
        return NetworkError(
            f"port {port} on {host} is taken by another program (UDP or TCP); choose another, or 0 for any"
        )
    if problem.errno == errno.EADDRINUSE:
        return NetworkError(f"no port on {host} is free for both UDP and TCP")
    if problem.errno == errno.EACCES:
        return NetworkError(f"this user may not use port {port} on {host}; choose one above 1023")
    return NetworkError(f"cannot bind port {port} on {host}: {problem}")
