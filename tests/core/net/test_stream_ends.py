"""One TCP connection: ends of every kind, a frame that comes late, handing over."""

from __future__ import annotations

import asyncio
import random

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.core.links import FakeTransport, loopback_links, memory_links, reset
from warpgate_core.errors import PeerLostError, PipeClosedError, PipeError, ProtocolError
from warpgate_core.net.stream import READ_HIGH, StreamLink
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.network import MemoryNetwork

KERNEL = 16 * 1024 * 1024  # more than the kernel's buffers of both ends take on loopback


# -- ends ----------------------------------------------------------------------------------------


async def test_half_close_leaves_the_other_direction_open() -> None:
    async with loopback_links() as (left, right):
        left.write(b"question")
        left.write_eof()
        left.write_eof()  # harmless
        with pytest.raises(PipeClosedError):
            left.write(b"more")
        assert await right.read_some() == b"question"
        assert await right.read_some() == b""
        assert await right.read_some() == b"", "the end stays the end"
        right.write(b"answer")
        right.write_eof()
        assert await left.read_exactly(6) == b"answer"
        assert await left.read_some() == b""


async def test_read_exactly_says_how_much_came() -> None:
    async with loopback_links() as (left, right):
        left.write(b"abc")
        left.write_eof()
        with pytest.raises(PipeClosedError, match="3 of 10 bytes"):
            await right.read_exactly(10)
        assert await right.read_some() == b"abc", "none were taken"


async def test_a_reset_is_a_lost_peer_and_what_came_before_it_is_read() -> None:
    async with loopback_links() as (left, right):
        lost: list[PipeError | None] = []
        right.add_lost_callback(lost.append)
        left.write(b"last words")
        assert (await right.read_exactly(4)) == b"last"
        reading = asyncio.create_task(right.read_exactly(100))
        await asyncio.sleep(0)
        reset(left)
        with pytest.raises(PeerLostError) as caught:
            await reading
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert await right.read_some() == b" words"
        with pytest.raises(PeerLostError):
            await right.read_some()
        with pytest.raises(PeerLostError):
            right.write(b"x")
        await right.wait_closed()
        assert lost == [right.error]
        right.add_lost_callback(lost.append)
        await asyncio.sleep(0)
        assert len(lost) == 2, "whoever comes late is told too"


async def test_a_writer_who_never_waits_still_learns_of_the_reset() -> None:
    async with loopback_links() as (left, right):
        reset(left)

        async def send_for_ever() -> None:
            while True:  # the transport takes everything in silence once it has failed
                right.write(bytes(1000))
                await right.drain()

        with pytest.raises(PeerLostError):
            await send_for_ever()


async def test_closing_wakes_whoever_waits() -> None:
    async with loopback_links() as (left, right):
        reading = asyncio.create_task(left.read_some())
        while not left.is_write_paused:
            left.write(bytes(1024 * 1024))
        draining = asyncio.create_task(left.drain())
        await asyncio.sleep(0)
        left.abort()
        results = await asyncio.gather(reading, draining, return_exceptions=True)
        assert [type(result) for result in results] == [PipeClosedError, PipeClosedError]
        with pytest.raises(PipeClosedError):
            left.write(b"x")
        assert await asyncio.gather(right.read_some(), return_exceptions=True)


async def test_a_connection_that_was_reset_before_it_was_seen_is_not_announced() -> None:
    announced: list[StreamLink] = []
    link, transport = StreamLink(announced.append), FakeTransport(peer=None)
    link.connection_made(transport)
    assert transport.aborted
    assert not announced


async def test_repr_before_and_after() -> None:
    assert repr(StreamLink()) == "<StreamLink not connected>"
    async with loopback_links() as (left, _):
        assert "open" in repr(left)
        left.close()
        await left.wait_closed()
        assert "lost" in repr(left)


# -- finish --------------------------------------------------------------------------------------


async def test_finish_delivers_everything_although_the_peer_still_sends() -> None:
    async with loopback_links() as (left, right):
        payload = random.Random(2).randbytes(5_000_000)

        async def chatter() -> bytes:
            got = b""
            while data := await right.read_some():
                got += data
                right.write(b"unwanted" * 1000)
                await right.drain()
            right.close()
            return got

        left.write(payload)
        _, got = await asyncio.gather(left.finish(10, 5), chatter())
        assert got == payload
        assert left.is_lost


@pytest.mark.parametrize(("reads", "seconds"), [(False, 3.0), (True, 2.0)])
def test_finish_is_bounded(reads: bool, seconds: float) -> None:
    """A peer that takes nothing costs `flush`, one that never ends costs `linger`."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        left, right, *_ = await memory_links(MemoryNetwork())
        if not reads:
            while not left.is_write_paused:
                left.write(bytes(100_000))
                await asyncio.sleep(0.001)
            assert right.buffered > READ_HIGH
        began = loop.time()
        await left.finish(3.0, 2.0)
        took = loop.time() - began
        right.abort()
        return took

    assert run_virtual(main) == pytest.approx(seconds, abs=0.01)


def test_finish_that_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        left, right, *_ = await memory_links(MemoryNetwork())
        task = asyncio.create_task(left.finish(3.0, 2.0))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait_closed()
        assert await right.read_some() == b""
        right.abort()

    run_virtual(main)


# -- a frame that comes late -----------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 60), st.integers(0, 100))
def test_an_expected_frame_is_taken_out_wherever_it_is_cut(cuts: list[int], size: int, extra: int) -> None:
    async def main() -> None:
        link = StreamLink()
        link.connection_made(FakeTransport())
        stream = random.Random(size).randbytes(size + extra)
        before, rest = stream[: extra // 3], stream[extra // 3 :]
        if before:
            link.data_received(before)
        frames: list[bytes] = []
        link.expect(size, frames.append)
        for cut in [*cuts, len(stream)]:
            if rest[:cut]:
                link.data_received(rest[:cut])
            rest = rest[cut:]
        assert frames == [stream[:size]]
        assert not link.is_expecting
        assert (await link.read_exactly(extra) if extra else b"") == stream[size:]

    asyncio.run(main())


async def test_reads_wait_for_the_expected_frame_and_writes_do_not() -> None:
    async with loopback_links() as (left, right):
        frames: list[bytes] = []
        right.expect(4, frames.append)
        right.write(b"early")
        assert await left.read_exactly(5) == b"early"
        reading = asyncio.create_task(right.read_some())
        left.write(b"fra")
        await asyncio.sleep(0.01)
        assert not reading.done()
        left.write(b"mapplication")
        assert await reading == b"application"
        assert frames == [b"fram"]


async def test_a_wrong_frame_breaks_the_link() -> None:
    def refuse(frame: bytes) -> None:
        raise ProtocolError(f"{frame!r} is no confirmation")

    async with loopback_links() as (left, right):
        reading = asyncio.create_task(right.read_some())
        right.expect(3, refuse)
        left.write(b"badand more")
        with pytest.raises(PeerLostError) as caught:
            await reading
        assert isinstance(caught.value.__cause__, ProtocolError)
        with pytest.raises(PeerLostError):
            right.write(b"x")
        assert right.buffered == 0, "nothing behind a wrong frame is shown to anybody"


async def test_the_end_before_the_frame_breaks_the_link() -> None:
    async with loopback_links() as (left, right):
        right.expect(3, lambda _: None)
        left.write(b"ab")
        left.write_eof()
        with pytest.raises(PeerLostError, match="before it had confirmed"):
            await right.read_some()


async def test_a_frame_that_had_come_and_ended_before_it_was_expected() -> None:
    async with loopback_links() as (left, right):
        left.write(b"abcd")
        left.write_eof()
        assert await _until_eof(right)
        frames: list[bytes] = []
        right.expect(4, frames.append)
        assert frames == [b"abcd"]
        assert await right.read_some() == b""


async def _until_eof(link: StreamLink) -> bool:
    data = await link.read_exactly(4)
    ended = await link.read_some() == b""
    link.pushback(data)
    return ended


# -- handing over --------------------------------------------------------------------------------


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended.set()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_detach_loses_nothing(loop_factory: object) -> None:
    async def main() -> None:
        async with loopback_links() as (left, right):
            sent = random.Random(3).randbytes(3_000_000)
            left.write(sent)
            left.write_eof()
            got = await right.read_some(1000)
            await asyncio.sleep(0.01)  # let the buffer fill, so that reading is paused
            transport, unread = right.detach()
            taker = Collector()
            transport.set_protocol(taker)
            transport.resume_reading()
            await taker.ended.wait()
            assert got + unread + taker.data == sent
            with pytest.raises(PipeError, match="handed over"):
                await right.read_some()
            with pytest.raises(PipeError, match="handed over"):
                right.write(b"x")
            with pytest.raises(PipeError, match="handed over"):
                right.detach()

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())


async def test_detach_is_refused_while_somebody_reads() -> None:
    async with loopback_links() as (left, right):
        reading = asyncio.create_task(right.read_some())
        await asyncio.sleep(0)
        with pytest.raises(PipeError, match="while somebody reads"):
            right.detach()
        left.write(b"x")
        assert await reading == b"x"


async def test_detach_of_a_broken_link_says_why() -> None:
    async with loopback_links() as (left, right):
        reset(left)
        await right.wait_closed()
        with pytest.raises(PeerLostError):
            right.detach()
        assert right.transport.is_closing()
