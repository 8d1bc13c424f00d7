"""One TCP connection: reading in every way of cutting, and back-pressure."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.core.links import FakeTransport, loopback_links, memory_links
from warpgate_core.errors import PipeError
from warpgate_core.net.stream import MAX_CHUNKS, READ_HIGH, READ_LIMIT, StreamLink
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.network import MemoryNetwork

KERNEL = 16 * 1024 * 1024  # more than the kernel's buffers of both ends take on loopback


# -- reading -------------------------------------------------------------------------------------

operations = st.lists(
    st.one_of(
        st.tuples(st.just("some"), st.integers(1, 5000)),
        st.tuples(st.just("exactly"), st.integers(1, 5000)),
        st.tuples(st.just("back"), st.integers(1, 5000)),
    ),
    max_size=30,
)


@given(st.lists(st.integers(0, 40_000), max_size=8), operations, st.integers(0, 2**32))
def test_any_cutting_and_any_way_of_reading_gives_the_same_bytes(
    writes: list[int], reads: list[tuple[str, int]], seed: int
) -> None:
    async def main() -> None:
        network = MemoryNetwork(shred=True)
        line = Line(delay=0.01, jitter=0.01, loss=0.02, reorder=0.1, duplicate=0.1)
        left, right, *_ = await memory_links(network, line)
        sent = random.Random(seed).randbytes(sum(writes))
        got = b""

        async def write() -> None:
            at = 0
            for size in writes:
                left.write(sent[at : at + size])
                await left.drain()
                at += size
            left.write_eof()

        async def read() -> None:
            nonlocal got
            for kind, size in reads:
                if kind == "exactly" and len(sent) - len(got) >= size:
                    data = await right.read_exactly(size)
                    assert len(data) == size
                    got += data
                elif kind == "back":
                    right.pushback(got[-size:])
                    got = got[: max(0, len(got) - size)]
                elif kind == "some":
                    data = await right.read_some(size)
                    assert len(data) <= size
                    got += data
            while data := await right.read_some():
                got += data

        await asyncio.gather(write(), read())
        assert got == sent
        assert right.got_eof
        assert right.buffered == 0
        await asyncio.gather(left.finish(5, 1), right.finish(5, 1))

    run_virtual(main, seed=seed)


def test_chunks_are_handed_on_uncopied() -> None:
    async def main() -> None:
        link = StreamLink()
        link.connection_made(FakeTransport())
        chunk = bytes(READ_LIMIT)
        link.data_received(chunk)
        assert await link.read_some() is chunk

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 1000, READ_LIMIT])
async def test_reading_is_paused_above_the_mark_and_resumed_below(size: int) -> None:
    link, transport = StreamLink(), FakeTransport()
    link.connection_made(transport)
    fed = 0
    while transport.is_reading():
        link.data_received(bytes(size))
        fed += size
    assert fed <= READ_HIGH + READ_LIMIT
    assert fed // size <= MAX_CHUNKS + 1, "tiny chunks are bounded in number"
    read = 0
    while not transport.is_reading():
        read += len(await link.read_some())
    assert 0 < read <= fed


async def test_read_exactly_of_more_than_the_mark_resumes_reading() -> None:
    link, transport = StreamLink(), FakeTransport()
    link.connection_made(transport)
    while transport.is_reading():
        link.data_received(bytes(READ_LIMIT))
    wanted = 2 * READ_HIGH + 5
    task = asyncio.create_task(link.read_exactly(wanted))
    await asyncio.sleep(0)
    while link.buffered < wanted:
        assert transport.is_reading()
        link.data_received(bytes(READ_LIMIT))
    assert len(await task) == wanted


async def test_a_cancelled_read_loses_nothing() -> None:
    async with loopback_links() as (left, right):
        for _ in range(20):
            read = asyncio.create_task(right.read_exactly(1000))
            left.write(b"abcd")
            await asyncio.sleep(0)
            read.cancel()
            assert isinstance((await asyncio.gather(read, return_exceptions=True))[0], asyncio.CancelledError)
        assert await right.read_exactly(80) == b"abcd" * 20


async def test_a_read_that_is_cancelled_as_data_comes_loses_nothing() -> None:
    link = StreamLink()
    link.connection_made(FakeTransport())
    read = asyncio.create_task(link.read_some())
    await asyncio.sleep(0)
    link.data_received(b"data")
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert await link.read_some() == b"data"


async def test_only_one_may_read() -> None:
    async with loopback_links() as (left, right):
        first = asyncio.create_task(right.read_some())
        await asyncio.sleep(0)
        with pytest.raises(PipeError, match="one reader at a time"):
            await right.read_some()
        left.write(b"x")
        assert await first == b"x"


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused_and_loses_nothing(limit: int) -> None:
    link = StreamLink()
    link.connection_made(FakeTransport())
    link.data_received(b"data")
    with pytest.raises(ValueError, match="1 or more"):
        await link.read_some(limit)
    assert await link.read_some(4) == b"data"


# -- back-pressure over real sockets -------------------------------------------------------------


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_slow_reader_holds_back_the_writer_and_nothing_is_lost(loop_factory: object) -> None:
    async def main() -> None:
        async with loopback_links() as (left, right):
            chunk = random.Random(1).randbytes(64 * 1024)
            sent = 0
            try:
                async with asyncio.timeout(0.5):
                    while True:
                        left.write(chunk)
                        sent += len(chunk)
                        await left.drain()
            except TimeoutError:
                pass
            assert sent < KERNEL, "the writer was never held back"
            assert right.buffered <= READ_HIGH + READ_LIMIT
            assert left.transport.get_write_buffer_size() < 1024 * 1024

            async def write() -> None:
                await left.drain()
                left.write_eof()

            async def read() -> bytes:
                digest = hashlib.sha256()
                while data := await right.read_some():
                    digest.update(data)
                return digest.digest()

            _, digest = await asyncio.gather(write(), read())
            assert digest == hashlib.sha256(chunk * (sent // len(chunk))).digest()

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())
