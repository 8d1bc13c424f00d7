"""A small STUN server for tests: RFC 5780 with two addresses and two ports, and a NAT's tricks on request.

It sits on loopback sockets and speaks real STUN. What a NAT would do to us is done by the server: which
mapped endpoint it claims to see (`mapped`), and which of its answers from elsewhere get lost
(`filtering`). So every NAT can be had without a namespace; the real ones are in `test_lab_nat`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aioice import stun

from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Filtering

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
NOWHERE = Endpoint("", 0)


@dataclass
class StunFixture:
    """What the server does; change it while it runs.

    Args:
        rfc5780: name the other address, and obey CHANGE-REQUEST.
        mapped: (source, where it was sent) to the endpoint that the server claims to see.
        filtering: of the NAT in front of the asker.
        silent: drop so many further requests.
        raw: answer these bytes instead (given the request).
    """

    rfc5780: bool = True
    mapped: Callable[[Endpoint, Endpoint], Endpoint] = lambda source, _: source
    filtering: Filtering = Filtering.EIF
    silent: int = 0
    raw: Callable[[bytes], bytes] | None = None
    endpoint: Endpoint = NOWHERE
    other: Endpoint = NOWHERE
    requests: list[tuple[Endpoint, Endpoint, int]] = field(default_factory=list)
    sockets: dict[Endpoint, asyncio.DatagramTransport] = field(default_factory=dict)
    connections: int = 0
    conversations: set[asyncio.Task[None]] = field(default_factory=set)
    arrival: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """As it is configured."""
        return str(self.endpoint)

    async def until_asked(self, times: int) -> None:
        """Wait for so many further requests."""
        wanted = len(self.requests) + times
        async with asyncio.timeout(20):
            while len(self.requests) < wanted:
                self.arrival.clear()
                await self.arrival.wait()

    async def all_hung_up(self) -> None:
        """Wait until every TCP connection has ended and its socket is closed."""
        await asyncio.gather(*self.conversations)
        await asyncio.sleep(0)  # the transport closes its socket in the turn after

    def answer(self, data: bytes, source: Endpoint, at: Endpoint) -> tuple[bytes, Endpoint] | None:
        """(answer, from where), or None if it gets lost."""
        request = stun.parse_message(data)
        change = request.attributes.get("CHANGE-REQUEST", 0)
        self.requests.append((source, at, change))
        self.arrival.set()
        if self.silent:
            self.silent -= 1
            return None
        if self.raw is not None:
            return self.raw(data), at
        origin = at
        if change and self.rfc5780:
            hosts, ports = {self.endpoint.host, self.other.host}, {self.endpoint.port, self.other.port}
            origin = Endpoint(
                (hosts - {at.host}).pop() if change & 4 else at.host,
                (ports - {at.port}).pop() if change & 2 else at.port,
            )
        if self._is_filtered(at, origin):
            return None
        reply = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        reply.attributes["XOR-MAPPED-ADDRESS"] = tuple(self.mapped(source, at))
        if self.rfc5780:
            reply.attributes["OTHER-ADDRESS"] = tuple(self.other)
        return bytes(reply), origin

    def _is_filtered(self, at: Endpoint, origin: Endpoint) -> bool:
        if self.filtering is Filtering.APDF:
            return at != origin
        return self.filtering is Filtering.ADF and at.host != origin.host


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: StunFixture, at: Endpoint) -> None:
        self.server, self.at = server, at

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.server.answer(data, Endpoint.of(addr), self.at)
        if answer is not None:
            self.server.sockets[answer[1]].sendto(answer[0], addr)


@asynccontextmanager
async def stun_server(
    hosts: tuple[str, str] = (FIRST, SECOND), **settings: object
) -> AsyncIterator[StunFixture]:
    """A running server on two addresses with two ports each, UDP and (at `endpoint`) TCP."""
    server = StunFixture(**settings)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    transports: list[asyncio.DatagramTransport] = []
    listener: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        server.conversations.add(task)
        writers.add(writer)
        try:
            while True:
                header = await reader.readexactly(20)
                data = header + await reader.readexactly(struct.unpack_from("!H", header, 2)[0])
                source = Endpoint.of(writer.get_extra_info("peername"))
                answer = server.answer(data, source, server.endpoint)
                if answer is not None:
                    writer.write(answer[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the asker hung up
        finally:
            writer.transport.abort()
            server.conversations.discard(task)
            writers.discard(writer)

    try:
        *square, tcp = _bind_square(hosts)
        listener = await asyncio.start_server(converse, sock=tcp)
        for sock in square:
            at = Endpoint.of(sock.getsockname())
            transport, _ = await loop.create_datagram_endpoint(lambda at=at: _Protocol(server, at), sock=sock)  # type: ignore[misc]
            transports.append(transport)
            server.sockets[at] = transport
        ports = list(dict.fromkeys(at.port for at in server.sockets))
        server.endpoint, server.other = Endpoint(hosts[0], ports[0]), Endpoint(hosts[1], ports[1])
        yield server
    finally:
        if listener is not None:
            listener.close()
        for transport in transports:
            transport.abort()
        for writer in tuple(writers):
            writer.transport.abort()
        await server.all_hung_up()


def _bind_square(hosts: tuple[str, str]) -> list[socket.socket]:
    """Four UDP sockets, both addresses with the same two ports; and a TCP one like the first."""
    family = socket.AF_INET6 if ":" in hosts[0] else socket.AF_INET
    for _ in range(50):
        with ExitStack() as stack:
            found: list[socket.socket] = []
            try:
                for column in range(2):
                    for row, host in enumerate(hosts):
                        sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                        sock.setblocking(False)
                        sock.bind((host, 0 if row == 0 else found[2 * column].getsockname()[1]))
                        found.append(sock)
                tcp = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                tcp.bind((hosts[0], found[0].getsockname()[1]))
                found.append(tcp)
            except OSError:
                continue
            stack.pop_all()
            return found
    raise RuntimeError("no two ports were free on both addresses")
