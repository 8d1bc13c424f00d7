"""The in-memory counterpart of the real network edge.

What a node learns there through STUN and NAT discovery, this one asks of the network; the mapping in the
NAT is the same, kept alive as a node's keepalive would. Everything else goes packet by packet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.nat import Filtering, Mapping, NatProfile
from warpgate_core.net.edge import DatagramSocket, Edge, LentSocket, LocalInterface, TcpMapping
from warpgate_core.net.stream import StreamLink
from warpgate_core.testing.host import Card, Host
from warpgate_core.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from warpgate_core.testing.nat import MemoryNat
    from warpgate_core.testing.network import MemoryNetwork

__all__ = ["LentMemorySocket", "MemoryEdge", "MemorySocket"]


class MemorySocket(DatagramSocket):
    """A UDP socket in the in-memory network. Made by `MemoryEdge`."""

    def __init__(self, host: Host, name: str, local: Endpoint) -> None:
        self.local = local
        self.name = name
        self.receiver: Callable[[bytes, Endpoint, DatagramSocket], None] | None = None
        self._host = host
        self._attached: dict[Endpoint, Callable[[bytes], None]] = {}
        self._is_open = True
        host.bind(local, self._received)
        if isinstance(host.network.loop, VirtualLoop):
            host.network.loop.track(self)

    def __repr__(self) -> str:
        return f"<MemorySocket {self._host.name} {self.local}, {len(self._attached)} attached>"

    def send(self, data: bytes, remote: Endpoint) -> None:
        """Send one datagram; a closed socket loses it."""
        if self._is_open:
            self._host.send(data, self.local, remote)

    def send_near(self, data: bytes, remote: Endpoint, hops: int) -> None:
        """See `DatagramSocket.send_near`."""
        if self._is_open:
            self._host.send(data, self.local, remote, hops)

    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        """See `DatagramSocket.attach`."""
        if remote in self._attached:
            raise ValueError(f"somebody is attached to {remote} on {self.local} already")
        self._attached[remote] = receiver

    def detach(self, remote: Endpoint) -> None:
        """See `DatagramSocket.detach`."""
        self._attached.pop(remote, None)

    def close(self) -> None:
        """Give the port back; harmless twice."""
        self._is_open = False
        self._attached.clear()
        self._host.unbind(self.local)
        if isinstance(self._host.network.loop, VirtualLoop):
            self._host.network.loop.untrack(self)

    def _received(self, data: bytes, source: Endpoint) -> None:
        attached = self._attached.get(source)
        if attached is not None:
            attached(data)
        elif self.receiver is not None:
            self.receiver(data, source, self)


class LentMemorySocket(MemorySocket, LentSocket):
    """See `LentSocket`. Made by `MemoryEdge.open_socket`."""

    _is_held = True

    def detach(self, remote: Endpoint) -> None:
        """See `DatagramSocket.detach`."""
        super().detach(remote)
        self._close_if_unused()

    def let_go(self) -> None:
        """See `LentSocket`."""
        self._is_held = False
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._is_held and not self._attached:
            self.close()


class MemoryEdge(Edge):
    """The edge of one node in the in-memory network. Made by `MemoryNetwork.edge`.

    Args:
        network: the network.
        host: the machine.
        port: of all its sockets and listeners; 0: a free one.
    """

    def __init__(self, network: MemoryNetwork, host: Host, port: int = 0) -> None:
        self.host = host
        self._network = network
        self._port = port
        self._sockets: list[MemorySocket] = []
        self._cards: list[Card] = []
        self._tcp_seen: dict[Endpoint, Endpoint] = {}
        self._is_open = False

    def __repr__(self) -> str:
        return f"<MemoryEdge {self.host.name} port {self._port}>"

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """See `Edge.interfaces`. Mapped endpoints are asked anew each time, so a NAT's reboot shows."""
        return tuple(self._describe(card) for card in self._cards)

    @property
    def sockets(self) -> tuple[DatagramSocket, ...]:
        """See `Edge.sockets`."""
        return tuple(self._sockets)

    async def start(self) -> None:
        """See `Edge.start`."""
        if not self.host.cards:
            raise NetworkError(f"{self.host!r} has no network card; plug one in")
        self._is_open = True
        self._port = self._port or self.host.free_port()
        try:
            self._open()
        except OSError as error:
            await self.close()
            raise NetworkError(f"port {self._port} of {self.host!r} is taken: {error}") from error

    async def close(self) -> None:
        """See `Edge.close`. Links that somebody holds stay as they are."""
        self._is_open = False
        for card in self._cards:
            local = Endpoint(card.address, self._port)
            self._network.forget(card, local)
            self.host.unlisten(local)
        self._cards.clear()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def refresh(self) -> None:
        """Take note of cards that were plugged in or out, and tell `on_change`."""
        for card in [card for card in self._cards if card not in self.host.cards]:
            self._close_card(card)
        self._open()
        if self.on_change is not None:
            self.on_change()

    async def dial(self, remote: Endpoint, *, local: Endpoint | None = None) -> StreamLink:
        """See `Edge.dial`."""
        self._check_open()
        try:
            _, link = await self.host.connect(remote, StreamLink, local)
        except OSError as error:
            raise NetworkError(f"cannot connect to {remote}: {error}") from error
        assert isinstance(link, StreamLink)
        try:
            self._check_open()
        except NetworkError:
            link.abort()
            raise
        return link

    @asynccontextmanager
    async def tcp_mapping(self, local: Endpoint) -> AsyncIterator[TcpMapping]:
        """See `Edge.tcp_mapping`. Takes the time of two round trips to the middle of the internet."""
        self._check_open()
        card = next((card for card in self._cards if card.address == local.host), None)
        if card is None or local.port not in (0, self._port):
            raise NetworkError(f"{local} is none of the interfaces of {self.host!r}")
        own = local if local.port else Endpoint(local.host, self.host.free_port())
        lines = [card.line, *(nat.line for nat in self._network.gateways(card))]
        await asyncio.sleep(4 * sum(line.delay for line in lines))
        external = self._network.observe(card, own, "tcp")
        if external is None:
            raise NetworkError("no STUN server answered over TCP")
        if local.port:
            self._tcp_seen[local] = external
        try:
            yield TcpMapping(own, external)
        finally:
            self._network.forget(card, own, "tcp")

    async def open_socket(self, local: Endpoint) -> LentSocket:
        """See `Edge.open_socket`."""
        self._check_open()
        card = self._card_at(local)
        own = Endpoint(local.host, self.host.free_port())
        sock = LentMemorySocket(self.host, card.name, own)
        sock.receiver = self._received
        return sock

    async def mapped(self, sock: LentSocket) -> Endpoint:
        """See `Edge.mapped`. Takes the time of a round trip to the middle of the internet."""
        self._check_open()
        card = self._card_at(sock.local)
        lines = [card.line, *(nat.line for nat in self._network.gateways(card))]
        asked: asyncio.Future[Endpoint | None] = self._network.loop.create_future()

        def pass_nat() -> None:  # behind what was sent before, and before what is sent next
            if not asked.done():
                asked.set_result(self._network.observe(card, sock.local, pin=False))

        self._network.later(card.line.delay, pass_nat)
        external = await asked
        await asyncio.sleep(2 * sum(line.delay for line in lines) - card.line.delay)
        if external is None:
            raise NetworkError(f"no STUN server says how {sock.local} is mapped")
        return external

    def _card_at(self, local: Endpoint) -> Card:
        card = next((card for card in self._cards if card.address == local.host), None)
        if card is None:
            raise NetworkError(f"{local} is none of the interfaces of {self.host!r}")
        return card

    def _check_open(self) -> None:
        if not self._is_open:
            raise NetworkError(f"{self!r} is not open; call start() first, and not after close()")

    def _open(self) -> None:
        """Open sockets and listeners on cards that have none."""
        for card in self.host.cards:
            if card in self._cards:
                continue
            local = Endpoint(card.address, self._port)
            self.host.listen(local, self._accept)
            try:
                sock = MemorySocket(self.host, card.name, local)
            except OSError:
                self.host.unlisten(local)
                raise
            self._cards.append(card)
            sock.receiver = self._received
            self._sockets.append(sock)
            self._network.observe(card, local)

    def _close_card(self, card: Card) -> None:
        local = Endpoint(card.address, self._port)
        self._cards.remove(card)
        self.host.unlisten(local)
        for sock in [sock for sock in self._sockets if sock.local == local]:
            self._sockets.remove(sock)
            sock.close()

    def _accept(self) -> StreamLink:
        return StreamLink(self._accepted)

    def _accepted(self, link: StreamLink) -> None:
        if self.on_stream is None or not self._is_open:
            link.abort()
        else:
            self.on_stream(link)

    def _received(self, data: bytes, remote: Endpoint, sock: DatagramSocket) -> None:
        if self.on_datagram is not None:
            self.on_datagram(data, remote, sock)

    def _describe(self, card: Card) -> LocalInterface:
        internal = Endpoint(card.address, self._port)
        nats = self._network.gateways(card)
        return LocalInterface(
            nic=card.nic,
            name=card.name,
            internal=internal,
            external=self._network.observe(card, internal),
            nat=_profile(nats),
            tcp_external=_tcp_external(nats, internal),
            prefix=card.prefix,
            tcp_seen=self._tcp_seen.get(internal),
        )


def _profile(nats: list[MemoryNat]) -> NatProfile:
    """What discovery would find: of NATs in series, the strictest behaviour."""
    if not nats:
        return NatProfile(Mapping.NONE, Filtering.EIF)
    strictest = max(nats, key=lambda nat: nat.rules.mapping).rules.profile
    filtering = max(nat.rules.filtering for nat in nats)
    return NatProfile(strictest.mapping, filtering, strictest.allocation, strictest.step, strictest.chunk)


def _tcp_external(nats: list[MemoryNat], internal: Endpoint) -> Endpoint | None:
    """Where the listener is reached from the internet: no NAT, or a static port mapping in each."""
    reached: Endpoint | None = internal
    for nat in nats:
        reached = nat.forwarded("tcp", reached) if reached is not None else None
    return reached
