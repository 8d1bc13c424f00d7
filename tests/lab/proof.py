"""Measuring what a NAT really does, with plain sockets and from both sides.

This is the lab's own judge: it shares nothing with the library's NAT discovery, and it sees the servers'
side of each packet. That a packet does *not* come through is never concluded from silence after a while,
but from order: a fence, sent after it on the same way and let through for certain, has come three times
and it has not.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab.home import Client
from tests.lab.host import Host
from tests.lab.internet import Internet
from warpgate_core.nat import Allocation, Filtering, Mapping

__all__ = [
    "Measured",
    "Prober",
    "TcpPair",
    "gets_out",
    "measure_tcp",
    "measure_udp",
    "reach_by_outer_endpoint",
    "simultaneous_open",
]

PORTS = (4000, 4001)  # the prober's, on each of its two addresses
FENCES = 3  # round trips after which an earlier packet cannot be on its way any more
SAMPLES = 12  # sockets from which the allocation is judged
CHUNK = 1024  # ports: the largest block called a chunk (issue: port-chunked NAT)
ETH_P_IP = 0x0800  # linux/if_ether.h
SYN, ACK = 0x02, 0x10  # TCP flags (RFC 9293 section 3.1)
ESTABLISHED_WITHIN = 10.0  # seconds for a simultaneous open: several SYN retransmissions

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen.

    Args:
        mapping: RFC 4787 section 4.1.
        filtering: RFC 4787 section 5.
        allocation: how external ports relate to internal ones and to each other.
        ports: (internal, external) of each sample, in order.
    """

    mapping: Mapping
    filtering: Filtering
    allocation: Allocation
    ports: tuple[tuple[int, int], ...]


class Prober:
    """A server with two IPv4 addresses and two ports on each, and a socket on every one."""

    def __init__(self, host: Host, kind: socket.SocketKind, stack: ExitStack) -> None:
        self.host = host
        self.sockets: dict[tuple[int, int], socket.socket] = {}
        four = [address for address in host.addresses if ":" not in address]
        for a, address in enumerate(four[:2]):
            for p, port in enumerate(PORTS):
                made = stack.enter_context(host.socket(kind, host=address, port=port))
                if kind == socket.SOCK_STREAM:
                    made.listen()
                self.sockets[a, p] = made

    def address(self, a: int, p: int) -> Address:
        """The endpoint with this address and port number (0 or 1 each)."""
        host, port = self.sockets[a, p].getsockname()[:2]
        return host, port


def measure_udp(client: Client, prober: Host) -> Measured:
    """Measure UDP over IPv4 between `client` and a server with two addresses."""
    with ExitStack() as stack:
        server = Prober(prober, socket.SOCK_DGRAM, stack)
        inner = stack.enter_context(client.socket(host=client.ip4))
        seen = [_udp_source(inner, server, a, p) for a, p in ((0, 0), (0, 1), (1, 0))]
        mapping = _mapping(inner.getsockname(), seen)
        filtering = _udp_filtering(stack.enter_context(client.socket(host=client.ip4)), server)
        ports = []
        for _ in range(SAMPLES):
            sample = stack.enter_context(client.socket(host=client.ip4))
            ports.append((sample.getsockname()[1], _udp_source(sample, server, 0, 0)[1]))
        return Measured(mapping, filtering, _allocation(ports), tuple(ports))


def measure_tcp(client: Client, prober: Host) -> Measured:
    """Measure TCP over IPv4 between `client` and a server with two addresses."""
    with ExitStack() as stack:
        server = Prober(prober, socket.SOCK_STREAM, stack)
        first = stack.enter_context(TcpPair.open(client, server, 0, 0))
        port = first.inner.getsockname()[1]
        others = [stack.enter_context(TcpPair.open(client, server, a, p, port)) for a, p in ((0, 1), (1, 0))]
        mapping = _mapping(first.inner.getsockname(), [first.source, *(pair.source for pair in others)])
        filtering = _tcp_filtering(client, server, stack)
        ports = []
        for _ in range(SAMPLES):
            pair = stack.enter_context(TcpPair.open(client, server, 0, 0))
            ports.append((pair.inner.getsockname()[1], pair.source[1]))
        return Measured(mapping, filtering, _allocation(ports), tuple(ports))


@dataclass(frozen=True, slots=True)
class TcpPair:
    """A TCP connection from a client to a prober, both ends and the source that the prober saw."""

    inner: socket.socket
    outer: socket.socket
    source: Address

    @classmethod
    @contextmanager
    def open(cls, client: Client, server: Prober, a: int, p: int, port: int = 0) -> Iterator[TcpPair]:
        """Connect from local `port` (0: any) to one of the prober's endpoints."""
        with client.socket(socket.SOCK_STREAM, host=client.ip4, port=port) as inner:
            inner.connect(server.address(a, p))
            outer, source = server.sockets[a, p].accept()
            with outer:
                outer.settimeout(ESTABLISHED_WITHIN)
                yield cls(inner, outer, (source[0], source[1]))


def gets_out(client: Client, server: Host, kind: socket.SocketKind, port: int, allowed: int) -> bool:
    """Whether a datagram, or a SYN, from a client to `port` of a server arrives there.

    Args:
        client: who sends.
        server: who is sent to.
        kind: SOCK_DGRAM or SOCK_STREAM.
        port: destination port.
        allowed: TCP port that gets through for certain; the fence goes there.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(server.socket(socket.SOCK_STREAM, host=server.ip4, port=allowed))
        listener.listen()
        fence = stack.enter_context(client.socket(socket.SOCK_STREAM, host=client.ip4))
        fence.connect((server.ip4, allowed))
        answer = stack.enter_context(listener.accept()[0])
        answer.settimeout(ESTABLISHED_WITHIN)
        wire = stack.enter_context(_wire(server))
        sender = stack.enter_context(client.socket(kind, host=client.ip4))
        sender.setblocking(False)
        sender.connect_ex((server.ip4, port))
        if kind == socket.SOCK_DGRAM:
            sender.send(b"x")
        wanted = socket.IPPROTO_UDP if kind == socket.SOCK_DGRAM else socket.IPPROTO_TCP
        came = False
        for _ in range(FENCES):
            fence.sendall(b"fence")
            while _segment(packet := wire.recv(2000))[2] != b"fence":
                came |= packet[9] == wanted and _destination_port(packet) == port
            answer.recv(100)
            answer.sendall(b"next")
            fence.recv(100)
        return came


def reach_by_outer_endpoint(one: Client, two: Client, server: Host) -> Address | None:
    """Whether a datagram from one machine gets to another of the same home by the other's outer endpoint.

    Returns:
        The source that the other saw, or None if nothing came.
    """
    with (
        one.socket(host=one.ip4) as sender,
        two.socket(host=two.ip4) as receiver,
        server.socket(host=server.ip4) as outer,
    ):
        receiver.sendto(b"x", outer.getsockname())
        mapped = outer.recvfrom(10)[1]
        sender.sendto(b"x", outer.getsockname())
        outer.recvfrom(10)
        sender.sendto(b"around the corner", mapped)
        found = None
        for _ in range(FENCES):
            outer.sendto(b"fence", mapped)
            while (packet := receiver.recvfrom(100))[0] != b"fence":
                found = packet[1]
            receiver.sendto(b"x", outer.getsockname())
            outer.recvfrom(10)
        return found


def simultaneous_open(net: Internet, one: Client, two: Client) -> bool:
    """Whether a TCP simultaneous open (RFC 9293 section 3.5) between two clients succeeds.

    Each learns its mapped endpoint from a server, over TCP and from the port it will use, and both dial
    the other's.
    """
    prober = net.server("simultaneous", addresses=2)
    with ExitStack() as stack:
        server = Prober(prober, socket.SOCK_STREAM, stack)
        pairs = [stack.enter_context(TcpPair.open(client, server, 0, 0)) for client in (one, two)]
        dialling = []
        for client, pair in zip((one, two), pairs, strict=True):
            port = pair.inner.getsockname()[1]
            made = stack.enter_context(client.socket(socket.SOCK_STREAM, host=client.ip4, port=port))
            made.setblocking(False)
            dialling.append(made)
        for made, pair in zip(dialling, reversed(pairs), strict=True):
            made.connect_ex(pair.source)
        return _all_connected(dialling)


def _all_connected(dialling: Sequence[socket.socket]) -> bool:
    with selectors.DefaultSelector() as selector:
        for made in dialling:
            selector.register(made, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(ESTABLISHED_WITHIN)
            if not ready:
                return False
            for key, _ in ready:
                dialled = key.fileobj
                if not isinstance(dialled, socket.socket):
                    raise TypeError("only sockets were registered")
                if dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return False
                selector.unregister(dialled)
    return True


def _udp_source(inner: socket.socket, server: Prober, a: int, p: int) -> Address:
    inner.sendto(b"who am I", server.address(a, p))
    _, source = server.sockets[a, p].recvfrom(100)
    return source[0], source[1]


def _udp_filtering(inner: socket.socket, server: Prober) -> Filtering:
    """Only (0, 0) was ever sent to; see who else gets in before (0, 0) has, three times over."""
    target = _udp_source(inner, server, 0, 0)
    server.sockets[1, 0].sendto(b"other address", target)
    server.sockets[0, 1].sendto(b"other port", target)
    came = set()
    for _ in range(FENCES):
        server.sockets[0, 0].sendto(b"fence", target)
        while (packet := inner.recv(100)) != b"fence":
            came.add(packet)
        _udp_source(inner, server, 0, 0)
    return _filtering(b"other address" in came, b"other port" in came)


def _tcp_filtering(client: Client, server: Prober, stack: ExitStack) -> Filtering:
    """The same with SYN packets, seen on the client's own network card, and data as the fence."""
    pair = stack.enter_context(TcpPair.open(client, server, 0, 0))
    wire = stack.enter_context(_wire(client))
    for a, p in ((1, 0), (0, 1)):
        host, port = server.address(a, p)
        dialler = stack.enter_context(server.host.socket(socket.SOCK_STREAM, host=host, port=port))
        dialler.setblocking(False)
        dialler.connect_ex(pair.source)
    callers: set[Address] = set()
    for _ in range(FENCES):
        pair.outer.sendall(b"fence")
        while (segment := _segment(wire.recv(2000)))[2] != b"fence":
            if segment[1] & (SYN | ACK) == SYN:
                callers.add(segment[0])
        pair.inner.recv(100)
        pair.inner.sendall(b"next")
        pair.outer.recv(100)
    return _filtering(server.address(1, 0) in callers, server.address(0, 1) in callers)


def _wire(host: Host) -> socket.socket:
    """All IPv4 packets on a machine's network card, as they pass."""
    with host.namespace.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    wire.bind(("eth0", ETH_P_IP))
    wire.settimeout(ESTABLISHED_WITHIN)
    return wire


def _destination_port(packet: bytes) -> int:
    """Of TCP or UDP in an IPv4 packet."""
    port: int = struct.unpack_from("!H", packet, (packet[0] & 15) * 4 + 2)[0]
    return port


def _segment(packet: bytes) -> tuple[Address, int, bytes]:
    """Source, flags and payload of a TCP segment in an IPv4 packet (RFC 791 3.1, RFC 9293 3.1)."""
    header = (packet[0] & 15) * 4
    total = struct.unpack_from("!H", packet, 2)[0]
    if packet[9] != socket.IPPROTO_TCP:
        return ("", 0), 0, b""
    port = struct.unpack_from("!H", packet, header)[0]
    offset = (packet[header + 12] >> 4) * 4
    return (
        (socket.inet_ntoa(packet[12:16]), port),
        packet[header + 13],
        packet[header + offset : total],
    )


def _mapping(inner: Address, seen: Sequence[Address]) -> Mapping:
    base, other_port, other_address = seen
    if base == other_port == other_address:
        return Mapping.NONE if base == inner else Mapping.EIM
    return Mapping.ADM if base == other_port else Mapping.APDM


def _filtering(other_address: bool, other_port: bool) -> Filtering:
    if other_address:
        return Filtering.EIF
    return Filtering.ADF if other_port else Filtering.APDF


def _allocation(ports: Sequence[tuple[int, int]]) -> Allocation:
    outer = [port for _, port in ports]
    if all(inside == outside for inside, outside in ports):
        return Allocation.PRESERVED
    if len({after - before for before, after in itertools.pairwise(outer)}) == 1:
        return Allocation.SEQUENTIAL
    return Allocation.CHUNKED if max(outer) - min(outer) < CHUNK else Allocation.RANDOM
