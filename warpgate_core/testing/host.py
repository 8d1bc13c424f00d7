"""A machine in the in-memory network: its cards, its ports, its kernel's part of UDP and TCP."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.testing.line import Line
from warpgate_core.testing.packet import TTL, Packet
from warpgate_core.testing.tcp import Connection, Segment
from warpgate_core.testing.transport import MemoryTransport

if TYPE_CHECKING:
    from warpgate_core.testing.network import MemoryNetwork
    from warpgate_core.testing.zone import Zone

__all__ = ["Card", "Host"]

EPHEMERAL: Final = (32_768, 60_999)  # Linux's ip_local_port_range
ProtocolFactory = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Card:
    """One address of one network card.

    Args:
        nic: number of the card.
        name: its name.
        zone: where it is plugged in.
        address: IP address.
        prefix: bits of the on-link prefix.
        line: its access line.
    """

    nic: int
    name: str
    zone: Zone = field(repr=False)
    address: str
    prefix: int
    line: Line

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Endpoint(self.address, 0).family

    def is_on_link(self, remote: Endpoint) -> bool:
        """Whether `remote` is in the same prefix."""
        if remote.family is not self.family:
            return False
        network = ipaddress.ip_network(f"{self.address}/{self.prefix}", strict=False)
        return remote.ip in network


class Host:
    """One machine. Made by `MemoryNetwork.host`.

    Attributes:
        cards: its addresses, in order of preference.
        connections: its TCP connections by (local, remote) endpoint.
    """

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.cards: list[Card] = []
        self.connections: dict[tuple[Endpoint, Endpoint], Connection] = {}
        self._listeners: dict[Endpoint, ProtocolFactory] = {}
        self._receivers: dict[Endpoint, Callable[[bytes, Endpoint], None]] = {}
        self._is_partitioned = False
        self._last_port = network.rng.randrange(*EPHEMERAL)

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    # -- cards and faults --------------------------------------------------------------------

    def plug(
        self,
        address: str,
        zone: Zone | None = None,
        line: Line | None = None,
        *,
        nic: int = 0,
        name: str = "",
    ) -> Card:
        """Add an address, for instance of another card.

        Args:
            address: "192.168.1.2/24".
            zone: where; None: the internet.
            line: its access line.
            nic: number of the card.
            name: its name; "eth0" and so on by default.

        Raises:
            ValueError: the address is malformed, or taken.
        """
        face = ipaddress.ip_interface(address)
        zone = zone or self.network.internet
        card = Card(nic, name or f"eth{nic}", zone, str(face.ip), face.network.prefixlen, line or Line())
        zone.plug(card.address, self.receive, card.line)
        self.cards.append(card)
        return card

    def unplug(self, card: Card) -> None:
        """Take an address away, as when a cable is pulled."""
        self.cards.remove(card)
        card.zone.unplug(card.address)

    def partition(self) -> None:
        """From now on nothing leaves this host and nothing reaches it, and nobody is told."""
        self._is_partitioned = True

    def heal(self) -> None:
        """End what `partition` began."""
        self._is_partitioned = False

    def card_for(self, remote: Endpoint, local: str = "") -> Card | None:
        """The card to reach `remote` from: with address `local`, on the same link, or the first."""
        usable = [card for card in self.cards if card.family is remote.family and local in ("", card.address)]
        return next((card for card in usable if card.is_on_link(remote)), usable[0] if usable else None)

    # -- packets -----------------------------------------------------------------------------

    def emit(self, packet: Packet) -> None:
        """Send a packet from the card that has its source address."""
        network = self.network
        network.note(packet, "sent", self)
        card = next((card for card in self.cards if card.address == packet.source.host), None)
        if self._is_partitioned:
            network.drop(packet, "partition")
        elif any(other.address == packet.destination.host for other in self.cards):
            network.later(0.0, self.receive, packet)  # stays inside the machine
        elif card is None:
            network.drop(packet, "no route")
        else:
            card.zone.forward(packet, card.line)

    def receive(self, packet: Packet) -> None:
        """A packet came."""
        network = self.network
        if self._is_partitioned or network.is_cut(packet.origin, self):
            network.drop(packet, "partition" if self._is_partitioned else "cut")
        elif isinstance(packet.payload, Segment):
            self._receive_segment(packet, packet.payload)
        else:
            receiver = self._receivers.get(packet.destination)
            network.note(packet, "delivered" if receiver is not None else "nobody", self)
            if receiver is not None:
                receiver(packet.payload, packet.source)

    def _receive_segment(self, packet: Packet, segment: Segment) -> None:
        where = (packet.destination, packet.source)
        connection = self.connections.get(where)
        factory = self._listeners.get(packet.destination)
        if connection is not None and not (segment.opens and connection.is_over):
            self.network.note(packet, "delivered", self)
            connection.receive(segment, packet.origin)
        elif segment.opens and factory is not None:
            self.network.note(packet, "delivered", self)
            connection = self.connections[where] = Connection(self, *where, segment)
            MemoryTransport(connection, factory)
            connection.start(packet.origin)
        else:
            self.network.note(packet, "nobody", self)
            refusal = segment.refusal()
            if refusal is not None:
                self.emit(Packet("tcp", packet.destination, packet.source, refusal, self))

    # -- sockets -----------------------------------------------------------------------------

    def free_port(self) -> int:
        """A port that nothing on this host uses."""
        first, last = EPHEMERAL
        used = {endpoint.port for endpoint in (*self._receivers, *self._listeners)}
        used |= {local.port for local, _ in self.connections}
        for _ in range(first, last + 1):
            self._last_port = first + (self._last_port - first + 1) % (last - first + 1)
            if self._last_port not in used:
                return self._last_port
        raise _os_error(errno.EADDRNOTAVAIL)

    def bind(self, local: Endpoint, receiver: Callable[[bytes, Endpoint], None]) -> None:
        """Give every datagram for `local` to ``receiver(data, source)``. `send` sends from there.

        Raises:
            OSError: the endpoint is taken.
        """
        if local in self._receivers:
            raise _os_error(errno.EADDRINUSE)
        self._receivers[local] = receiver

    def unbind(self, local: Endpoint) -> None:
        """End what `bind` began; harmless twice."""
        self._receivers.pop(local, None)

    def send(self, data: bytes, local: Endpoint, remote: Endpoint, ttl: int = TTL) -> None:
        """Send one datagram, which `ttl` routers pass on."""
        self.emit(Packet("udp", local, remote, bytes(data), self, ttl))

    def listen(self, local: Endpoint, factory: ProtocolFactory) -> None:
        """Accept TCP connections; each gets a protocol from `factory`.

        Raises:
            OSError: the endpoint is taken.
        """
        if local in self._listeners:
            raise _os_error(errno.EADDRINUSE)
        self._listeners[local] = factory

    def unlisten(self, local: Endpoint) -> None:
        """End what `listen` began; connections stay. Harmless twice."""
        self._listeners.pop(local, None)

    async def connect(
        self, remote: Endpoint, factory: ProtocolFactory, local: Endpoint | None = None
    ) -> tuple[MemoryTransport, asyncio.Protocol]:
        """Open a TCP connection: one round trip, a refusal, or two minutes of silence.

        Args:
            remote: where to. If the other side dials exactly this way at the same time from there, both get
                the same connection (simultaneous open).
            factory: makes the protocol.
            local: own end; port 0: a free one; None: the system chooses both.

        Raises:
            OSError: refused, no route, timed out, or the very same connection exists.
        """
        card = self.card_for(remote, local.host if local is not None else "")
        if card is None:
            raise _os_error(errno.ENETUNREACH)
        own = Endpoint(card.address, (local.port if local is not None else 0) or self.free_port())
        before = self.connections.get((own, remote))
        if before is not None and not before.is_over:
            raise _os_error(errno.EADDRNOTAVAIL)
        connection = self.connections[own, remote] = Connection(self, own, remote)
        transport = MemoryTransport(connection, factory)
        connection.start()
        try:
            protocol = await transport.connected()
        except BaseException:
            transport.abort()
            raise
        return transport, protocol


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
