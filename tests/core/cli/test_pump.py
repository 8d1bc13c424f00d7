"""Joining a pipe to a source and a sink: what ends what."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from warpgate_core.cli.pump import MESSAGE, Silence, Totals, echo, join, messages
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, PeerLostError
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import Path, StreamPipe
from warpgate_core.trace import Trace

BIG = bytes(range(256)) * 20_000  # 5 MB


class Words:
    """A source of given chunks, then of what `more` brings, then the end."""

    ends_pipe = False

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        for chunk in chunks:
            self.more(chunk)
        if ends:
            self.more(b"")

    def more(self, chunk: bytes) -> None:
        self._queue.put_nowait(chunk)

    async def read(self) -> bytes:
        data = await self._queue.get()
        if not data:
            self.more(b"")
        return data


class Memory:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.data += data

    async def flush(self) -> None:
        """Nothing is ever under way."""

    async def end(self) -> None:
        self.ended.set()


def _pipe(link: StreamLink) -> StreamPipe:
    loop = asyncio.get_running_loop()
    path = Path("tcp", link.local, link.remote)
    return StreamPipe(link, peer=bytes(33), path=path, strategy="direct", trace=Trace(loop.time))


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[StreamPipe, StreamPipe]]:
    """Two ends of one TCP connection."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[StreamLink] = loop.create_future()
    server = await loop.create_server(lambda: StreamLink(accepted.set_result), "127.0.0.1", 0)
    port = Endpoint.of(server.sockets[0].getsockname()).port
    _, link = await loop.create_connection(StreamLink, "127.0.0.1", port)
    server.close()
    one, other = _pipe(link), _pipe(await accepted)
    try:
        yield one, other
    finally:
        await asyncio.gather(one.close(), other.close())


async def test_both_directions_to_their_ends() -> None:
    async with pair() as (one, other), asyncio.timeout(10):
        here, there, totals = Memory(), Memory(), Totals()
        await asyncio.gather(
            join(one, Words(BIG, b"tail"), here, linger=1, totals=totals),
            join(other, Words(b"short"), there, linger=1, totals=Totals()),
        )
        assert (bytes(here.data), bytes(there.data)) == (b"short", BIG + b"tail")
        assert (totals.sent, totals.received) == (len(BIG) + 4, 5)
        assert here.ended.is_set()


async def test_the_peers_end_leaves_our_direction_open() -> None:
    async with pair() as (one, other), asyncio.timeout(10):
        source, here, there = Words(ends=False), Memory(), Memory()
        joined = asyncio.create_task(join(one, source, here, linger=1, totals=Totals()))
        far = asyncio.create_task(join(other, Words(), there, linger=1, totals=Totals()))
        await here.ended.wait()
        assert not joined.done()
        source.more(BIG)
        source.more(b"")
        await asyncio.gather(joined, far)
        assert bytes(there.data) == BIG


async def test_at_a_terminal_the_peers_end_is_the_end() -> None:
    async with pair() as (one, other), asyncio.timeout(10):
        here = Memory()
        joined = asyncio.create_task(
            join(one, Words(ends=False), here, linger=1, totals=Totals(), patience=0.0)
        )
        other.send_eof()
        await joined
        assert here.ended.is_set()


async def test_patience_is_for_silence_and_not_for_work() -> None:
    """Input that keeps coming is sent to its end, however long that takes."""
    async with pair() as (one, other), asyncio.timeout(20):
        source, there = Words(ends=False), Memory()
        joined = asyncio.create_task(
            join(one, source, Memory(), linger=1, totals=Totals(), patience=0.3, last=False)
        )
        far = asyncio.create_task(join(other, Words(), there, linger=1, totals=Totals()))
        loop = asyncio.get_running_loop()
        for number in range(8):  # one piece each 50 ms: longer than the patience in all
            loop.call_later(0.05 * number, source.more, b"piece ")
        await joined
        await one.close()
        await far
        assert bytes(there.data) == b"piece " * 8


async def test_a_source_that_ends_the_pipe() -> None:
    class Command(Words):
        ends_pipe = True

    async with pair() as (one, _other), asyncio.timeout(10):
        await join(one, Command(b"all"), Memory(), linger=1, totals=Totals())


@pytest.mark.parametrize("is_sending", [True, False])
async def test_a_broken_connection_is_told(is_sending: bool) -> None:
    async with pair() as (one, other), asyncio.timeout(10):
        source = Words(*[BIG] * 20) if is_sending else Words(ends=False)
        joined = asyncio.create_task(join(one, source, Memory(), linger=1, totals=Totals()))
        await asyncio.sleep(0)
        reset(other)
        with pytest.raises(PeerLostError, match=r"127\.0\.0\.1:\d+"):
            await joined


def reset(pipe: StreamPipe) -> None:
    """End the connection with a RST, as a killed process with unread data does."""
    sock = pipe._link.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pipe._link.abort()


async def test_what_goes_wrong_with_the_sink_ends_the_join() -> None:
    class Full(Memory):
        async def write(self, data: bytes) -> None:
            raise NetworkError("disk full")

    async with pair() as (one, other), asyncio.timeout(10):
        joined = asyncio.create_task(join(one, Words(ends=False), Full(), linger=1, totals=Totals()))
        await other.send(b"x")
        with pytest.raises(NetworkError, match="disk full"):
            await joined


async def test_echo_and_half_close() -> None:
    async with pair() as (one, other), asyncio.timeout(10):
        here, totals = Memory(), Totals()

        async def serve() -> None:
            await echo(other, totals)
            await other.close()

        await asyncio.gather(serve(), join(one, Words(BIG), here, linger=1, totals=Totals()))
        assert bytes(here.data) == BIG
        assert totals.sent == totals.received == len(BIG)


@pytest.mark.parametrize(
    ("chunks", "sizes"),
    [
        ((b"one\ntwo\n",), [4, 4]),
        ((b"one\n\nthree",), [4, 1, 5]),
        ((b"x" * 3_000,), [1200, 1200, 600]),
        ((b"y" * 1_199 + b"\n" + b"z",), [1200, 1]),
        ((b"a\rb",), [3]),
        ((b"part", b"ly\n"), [4, 3]),
        ((), []),
    ],
)
async def test_messages(chunks: tuple[bytes, ...], sizes: list[int]) -> None:
    found = [message async for message in messages(Words(*chunks))]
    assert [len(message) for message in found] == sizes
    assert b"".join(found) == b"".join(chunks)
    assert all(len(message) <= MESSAGE for message in found)


async def test_silence_counts_only_while_somebody_waits() -> None:
    silence = Silence()
    silence.begin()
    waiting = asyncio.create_task(silence.last(0.05))
    await asyncio.sleep(0)
    silence.end()  # something came; it is being worked on for longer than allowed
    await asyncio.sleep(0.1)
    assert not waiting.done()
    silence.begin()
    async with asyncio.timeout(5):
        await waiting


async def test_silence_given_up() -> None:
    silence = Silence()
    waiting = asyncio.create_task(silence.last(1_000))
    await asyncio.sleep(0)
    silence.give_up()
    async with asyncio.timeout(5):
        await waiting
