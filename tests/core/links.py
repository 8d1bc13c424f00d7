"""Pairs of connected stream links, over real loopback sockets or in memory: what tests of pipes share."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from warpgate_core.endpoint import Endpoint
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import Path, Preamble, StreamPipe
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.trace import Trace

PEER = b"\2" + bytes(31) + b"\7"
LOOPBACK = "127.0.0.1"


class FakeTransport(asyncio.Transport):
    """Counts what a link asks of it."""

    def __init__(self, peer: tuple[str, int] | None = ("192.0.2.1", 1)) -> None:
        super().__init__({"sockname": ("192.0.2.2", 2), "peername": peer})
        self.reading = True
        self.aborted = False

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


@asynccontextmanager
async def loopback_links() -> AsyncIterator[tuple[StreamLink, StreamLink]]:
    """Both ends of a real TCP connection; whatever is left of it is aborted."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[StreamLink] = loop.create_future()
    server = await loop.create_server(lambda: StreamLink(accepted.set_result), LOOPBACK, 0)
    address = server.sockets[0].getsockname()
    _, dialled = await loop.create_connection(StreamLink, *address)
    server.close()
    pair = (dialled, await accepted)
    try:
        async with asyncio.timeout(30):
            yield pair
    finally:
        for link in pair:
            link.transport.abort()
            link.transport.close()


async def memory_links(
    network: MemoryNetwork, line: Line | None = None
) -> tuple[StreamLink, StreamLink, Host, Host]:
    """Both ends of a connection in the in-memory network, and their hosts."""
    one = network.host("one", "198.51.100.1/24", line=line)
    other = network.host("other", "198.51.100.2/24", line=line)
    local = Endpoint("198.51.100.2", 7)
    accepted: asyncio.Future[StreamLink] = asyncio.get_running_loop().create_future()
    other.listen(local, lambda: StreamLink(accepted.set_result))
    _, dialled = await one.connect(local, StreamLink)
    other.unlisten(local) if accepted.done() else accepted.add_done_callback(lambda _: other.unlisten(local))
    assert isinstance(dialled, StreamLink)
    return dialled, await accepted, one, other


def pipe_of(link: StreamLink, preamble: Preamble | None = None) -> StreamPipe:
    """A pipe over a link, as the engine makes it."""
    return StreamPipe(
        link,
        peer=PEER,
        path=Path("tcp", link.local, link.remote),
        strategy="direct",
        trace=Trace(time.monotonic),
        preamble=preamble,
    )


def reset(link: StreamLink) -> None:
    """Close so that the other end gets a reset (SO_LINGER of zero)."""
    sock = link.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.abort()
