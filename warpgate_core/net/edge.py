"""The edge of the network as the rest of the library sees it: interfaces, sockets, dialling.

An abstract class, because there are two: `SystemEdge` on the operating system and `MemoryEdge` in
`warpgate_core.testing`, where packets are delayed, dropped and duplicated on a virtual clock. Nothing
above this file knows which it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import NetworkError
from warpgate_core.nat import NatProfile
from warpgate_core.net.stream import StreamLink

__all__ = ["UNKNOWN_NAT", "DatagramSocket", "Edge", "LentSocket", "LocalInterface", "TcpMapping"]

UNKNOWN_NAT = NatProfile()


@dataclass(frozen=True, slots=True)
class LocalInterface:
    """One address of one network card, and what is known of the way out from there.

    Args:
        nic: number of the card, from 0; its IPv4 and IPv6 share it.
        name: the card's name at the operating system ("eth0").
        internal: own address and the port that UDP socket and TCP listener share.
        external: mapped endpoint that STUN saw for the UDP socket; None while unknown.
        nat: behaviour of the NAT in front, as far as known.
        tcp_external: TCP endpoint reachable from outside; None if there is none or it is unknown.
        prefix: length of the on-link prefix in bits, which tells who is on the same LAN.
        tcp_seen: how a STUN server last saw a connection from the listener's port; None if none was asked.
    """

    nic: int
    name: str
    internal: Endpoint
    external: Endpoint | None = None
    nat: NatProfile = UNKNOWN_NAT
    tcp_external: Endpoint | None = None
    prefix: int = 0
    tcp_seen: Endpoint | None = None

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.internal.family


@dataclass(frozen=True, slots=True)
class TcpMapping:
    """How the NAT maps TCP from one of our ports, while a connection holds the mapping.

    Args:
        local: own address and port; connections from there share the mapping, if it is endpoint-independent.
        external: as a STUN server saw it.
    """

    local: Endpoint
    external: Endpoint


class DatagramSocket(ABC):
    """One UDP socket: the node's own, or one that a strategy made.

    Attributes:
        local: own end; of a relayed socket, the endpoint at the relay.
        name: of the network card, or of whatever it goes by.
        is_relay: whether somebody else's machine passes on what goes through it.
    """

    local: Endpoint
    name: str
    is_relay: bool = False

    @abstractmethod
    def send(self, data: bytes, remote: Endpoint) -> None:
        """Send one datagram; never blocks. A datagram the system will not take is a lost datagram."""

    def send_near(self, data: bytes, remote: Endpoint, hops: int) -> None:
        """The same for a datagram that only `hops` routers pass on: it opens our own NAT, not the peer's.

        Where that cannot be had it goes all the way.

        Args:
            hops: TTL (IPv4) or hop limit (IPv6), 1 to 255.
        """
        self.send(data, remote)

    @abstractmethod
    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        """From now on hand every datagram from `remote` to `receiver` and to nobody else.

        Raises:
            ValueError: somebody is attached to that remote endpoint already.
        """

    @abstractmethod
    def detach(self, remote: Endpoint) -> None:
        """End what `attach` began; harmless if nothing is attached.

        A strategy's own socket closes with the last one that detaches, if the strategy has let go of it.
        """

    def on_released(self, callback: Callable[[], None]) -> None:
        """Call back once what the last `detach` set off is done; a pipe is over only then.

        At once here: the node's own sockets stay open. A relay has a server to tell, within a bound.
        """
        callback()

    def on_lost(self, callback: Callable[[NetworkError], None]) -> None:  # noqa: B027 - most never break
        """Call back, perhaps soon, if the socket breaks for good.

        Never here: the node's own sockets outlive what breaks, and silence is a matter of consent.
        """


class LentSocket(DatagramSocket):
    """A further UDP socket that `Edge.open_socket` made for a strategy.

    What comes in goes where the datagrams of the node's own sockets go.
    """

    @abstractmethod
    def let_go(self) -> None:
        """The strategy has no more use for it: it closes now, or when the last one has detached."""


class Edge(ABC):
    """Everything a node needs from the network. Callbacks are set before `start`."""

    on_stream: Callable[[StreamLink], None] | None = None
    on_datagram: Callable[[bytes, Endpoint, DatagramSocket], None] | None = None
    on_change: Callable[[], None] | None = None

    @property
    @abstractmethod
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """What there is now, in the system's order of preference."""

    @property
    @abstractmethod
    def sockets(self) -> tuple[DatagramSocket, ...]:
        """The long-lived UDP sockets, one per interface and family."""

    @abstractmethod
    async def start(self) -> None:
        """Open sockets and listeners and learn the mapped endpoints.

        Raises:
            NetworkError: not one usable interface, or the wanted port is taken.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all of it and wait until it is closed. May be called twice."""

    @abstractmethod
    async def dial(self, remote: Endpoint, *, local: Endpoint | None = None) -> StreamLink:
        """Open one TCP connection.

        Args:
            remote: where to.
            local: bind there first, sharing the port with the listener (port 0: any); None: as the
                system likes.

        Raises:
            NetworkError: refused, unreachable, timed out by the system; the cause is chained.
        """

    @abstractmethod
    def tcp_mapping(self, local: Endpoint) -> AbstractAsyncContextManager[TcpMapping]:
        """Learn how the NAT maps TCP from a port of ours, and hold that mapping meanwhile.

        Takes two round trips to a STUN server; bound it with `asyncio.timeout`. Several may hold the mapping
        of one port at a time.

        Args:
            local: `internal` of one of `interfaces`, or with port 0 for a fresh port on that address.

        Raises:
            NetworkError: no such interface, or (on entering) no server answered over TCP.
        """

    @abstractmethod
    async def open_socket(self, local: Endpoint) -> LentSocket:
        """Open one more UDP socket, on a port of its own.

        Args:
            local: `internal` of one of `interfaces`; its port does not matter.

        Raises:
            NetworkError: no such interface, or too many open files; chained to the system's own error.
        """

    @abstractmethod
    async def mapped(self, sock: LentSocket) -> Endpoint:
        """Ask a STUN server how it sees such a socket.

        Servers are asked one after the other, so that no more mappings are made than need be.

        Raises:
            NetworkError: none answered.
        """

    def socket_for(self, remote: Endpoint) -> DatagramSocket | None:
        """The socket to reach `remote` with: same family, same LAN first, else the first there is."""
        usable = [s for s in self.sockets if s.local.family is remote.family]
        for face in self.interfaces:
            if face.prefix and face.family is remote.family and _on_link(face, remote):
                for sock in usable:
                    if sock.local.host == face.internal.host:
                        return sock
        return usable[0] if usable else None


def _on_link(face: LocalInterface, remote: Endpoint) -> bool:
    bits = 32 if face.family is Family.IP4 else 128
    shift = bits - face.prefix
    return int(face.internal.ip) >> shift == int(remote.ip) >> shift
