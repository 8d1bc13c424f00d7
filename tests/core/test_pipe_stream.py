"""A pipe of bytes: sending, receiving, both ways of closing, and asyncio's own streams on top of it."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.core.links import PEER, loopback_links, memory_links, pipe_of, reset
from warpgate_core.errors import InputError, PeerLostError, PipeClosedError, PipeError, ProtocolError
from warpgate_core.net.keepalive import COUNT, IDLE, INTERVAL, USER_TIMEOUT
from warpgate_core.net.stream import READ_HIGH
from warpgate_core.pipe import SUB_ALL, Pipe, Preamble
from warpgate_core.pipe.stream import FLUSH_TIMEOUT, LINGER
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.network import MemoryNetwork

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


async def test_bytes_pass_both_ways_and_the_iterator_ends_when_the_peer_closes() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        async with one:
            await one.send(b"hello")
            assert await other.recv(SUB_ALL) == b"hello"
            await other.send(bytearray(b"back"))
            await other.send(memoryview(b" again"))
            assert await one.recv(limit=4) == b"back"
            assert await one.recv(timeout=5) == b" again"
            await one.send(b"last")
            closing = asyncio.create_task(_collect(other))
        assert one.closed
        assert await closing == b"last"
        await other.close()
        await asyncio.gather(one.wait_closed(), other.wait_closed())
        assert other.closed
        assert one.error is None
        assert other.error is None


async def _collect(pipe: Pipe) -> bytes:
    got = b""
    async for data in pipe:
        got += data
    await pipe.close()
    return got


async def test_what_was_given_to_send_may_be_changed_at_once() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        data = bytearray(b"a" * 4_000_000)

        async def send() -> None:
            sending = asyncio.create_task(one.send(data))
            await asyncio.sleep(0)  # it waits now, with most of it not sent
            assert not sending.done()
            data[:] = b"b" * len(data)
            data.clear()
            await sending
            one.send_eof()

        _, got = await asyncio.gather(send(), _read_all(other))
        assert got == b"a" * 4_000_000


async def _read_all(pipe: Pipe) -> bytes:
    return b"".join([data async for data in pipe])


async def test_half_close() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        await one.send(b"question")
        one.send_eof()
        with pytest.raises(PipeClosedError):
            await one.send(b"more")
        assert await _read_all(other) == b"question"
        with pytest.raises(PipeClosedError):
            await other.recv()
        assert not other.closed
        await other.send(b"answer")
        await asyncio.gather(other.close(), one.recv())
        with pytest.raises(PipeClosedError):
            await one.recv()


async def test_recv_times_out_and_the_pipe_stays_usable() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            await one.recv(timeout=0.01)
        await other.send(b"late")
        assert await one.recv(timeout=5) == b"late"


async def test_two_receivers_and_unknown_subscriptions_are_refused() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        first = asyncio.create_task(one.recv())
        await asyncio.sleep(0)
        with pytest.raises(PipeError, match="one reader at a time"):
            await one.recv()
        with pytest.raises(InputError, match="SUB_ALL"):
            await one.recv(3.0)  # type: ignore[arg-type]
        await other.send(b"x")
        assert await first == b"x"
        assert repr(SUB_ALL) == "SUB_ALL"


async def test_a_reset_raises_in_every_way_of_waiting() -> None:
    async with loopback_links() as (left, right):
        one = pipe_of(left)
        over: list[Pipe] = []
        one.add_close_callback(over.append)
        waiting = asyncio.create_task(_read_all(one))
        await asyncio.sleep(0)
        reset(right)
        with pytest.raises(PeerLostError):
            await waiting
        with pytest.raises(PeerLostError):
            await one.send(b"x")
        await one.wait_closed()
        assert over == [one]
        assert isinstance(one.error, PeerLostError)
        assert one.closed
        one.add_close_callback(over.append)
        await asyncio.sleep(0)
        assert over == [one, one]
        await one.close()


async def test_closing_wakes_an_own_recv_and_is_harmless_twice() -> None:
    async with loopback_links() as (left, right):
        one = pipe_of(left)
        waiting = asyncio.create_task(one.recv())
        iterating = asyncio.create_task(_read_all(pipe_of(right)))
        await asyncio.sleep(0)
        right_done = asyncio.create_task(right.wait_closed())
        closing = asyncio.gather(one.close(), one.close(), one.aclose())
        assert await iterating == b""
        right.close()
        await closing
        with pytest.raises(PipeClosedError):
            await waiting
        with pytest.raises(PipeClosedError):
            await one.send(b"x")
        assert [data async for data in one] == []
        await right_done


def test_a_peer_that_vanishes_is_noticed() -> None:
    """Behind it are TCP keepalive and the user timeout; the in-memory kernel keeps the same times."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        network = MemoryNetwork()
        left, right, one, other = await memory_links(network, Line(delay=0.01))
        network.cut(one, other)
        began = loop.time()
        results = await asyncio.gather(pipe_of(left).recv(), pipe_of(right).recv(), return_exceptions=True)
        assert [type(result) for result in results] == [PeerLostError, PeerLostError]
        return loop.time() - began

    assert run_virtual(main) == pytest.approx(30, abs=1)


async def test_the_kernel_is_told_to_watch() -> None:
    async with loopback_links() as (left, _):
        pipe_of(left)
        sock = left.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in (
            ("TCP_KEEPIDLE", IDLE),
            ("TCP_KEEPINTVL", INTERVAL),
            ("TCP_KEEPCNT", COUNT),
            ("TCP_USER_TIMEOUT", USER_TIMEOUT),
        ):
            assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


@pytest.mark.parametrize(("reads", "bound"), [(True, LINGER), (False, FLUSH_TIMEOUT)])
def test_close_is_bounded_whatever_the_peer_does(reads: bool, bound: float) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        left, right, *_ = await memory_links(MemoryNetwork())
        one = pipe_of(left)
        sending = None
        if not reads:
            sending = asyncio.create_task(one.send(bytes(3_000_000)))
            await asyncio.sleep(1)
            assert right.buffered > READ_HIGH
        began = loop.time()
        await one.close()
        took = loop.time() - began
        if sending is not None:
            with pytest.raises(PipeClosedError):
                await sending
        right.abort()
        return took

    assert run_virtual(main) == pytest.approx(bound, abs=0.01)


def test_a_cancelled_close_aborts() -> None:
    async def main() -> None:
        left, right, *_ = await memory_links(MemoryNetwork())
        one = pipe_of(left)
        closing = asyncio.create_task(one.close())
        await asyncio.sleep(LINGER / 2)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await one.close()
        await one.wait_closed()
        right.abort()

    run_virtual(main)


async def test_repr_shows_path_and_peer_shortly() -> None:
    async with loopback_links() as (left, _):
        pipe = pipe_of(left)
        text = repr(pipe)
        assert str(pipe.path) in text
        assert "(host) by direct" in text
        assert PEER.hex()[:10] in text
        assert PEER.hex() not in text
        assert "open" in text


# -- a frame that still has to come --------------------------------------------------------------


@pytest.mark.parametrize("with_streams", [False, True])
@given(cuts=st.lists(st.integers(1, 6), max_size=6), seed=st.integers(0, 2**32))
def test_the_preamble_never_reaches_the_application(with_streams: bool, cuts: list[int], seed: int) -> None:
    async def main() -> None:
        network = MemoryNetwork(shred=True)
        left, right, *_ = await memory_links(network, Line(delay=0.01, jitter=0.02))
        sent = b"CONFIRM" + random.Random(seed).randbytes(500)
        frames: list[bytes] = []
        at = 0
        for cut in cuts:
            left.write(sent[at : at + cut])
            at += cut
            await asyncio.sleep(0.005)
        pipe = pipe_of(right, Preamble(7, frames.append))
        await pipe.send(b"early")  # writes do not wait for it
        left.write(sent[at:])
        left.write_eof()
        if with_streams:
            reader, writer = pipe.streams()
            got = await reader.read()
            writer.close()
            await writer.wait_closed()
        else:
            got = await _read_all(pipe)
        assert got == sent[7:]
        assert frames == [b"CONFIRM"]
        assert await left.read_exactly(5) == b"early"
        await asyncio.gather(pipe.close(), left.finish(1, 1))

    run_virtual(main, seed=seed)


@pytest.mark.parametrize("ending", ["wrong", "eof"])
@pytest.mark.parametrize("with_streams", [False, True])
async def test_a_wrong_or_missing_preamble_breaks_the_pipe(with_streams: bool, ending: str) -> None:
    def refuse(frame: bytes) -> None:
        raise ProtocolError("not a confirmation")

    async with loopback_links() as (left, right):
        pipe = pipe_of(right, Preamble(3, refuse))
        streams = pipe.streams() if with_streams else None
        left.write(b"badsecret" if ending == "wrong" else b"ba")
        left.write_eof()
        with pytest.raises(PeerLostError) as caught:
            await (streams[0].read() if streams is not None else pipe.recv())
        if ending == "wrong":
            assert isinstance(caught.value.__cause__, ProtocolError)
        await pipe.wait_closed()
        assert isinstance(pipe.error, PeerLostError)
        await pipe.close()


# -- asyncio's own streams ---------------------------------------------------------------------


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("ended", [False, True])
def test_streams_take_over_without_losing_a_byte(loop_factory: object, size: int, ended: bool) -> None:
    async def main() -> None:
        async with loopback_links() as (left, right):
            sent = random.Random(size).randbytes(size)
            one, other = pipe_of(left), pipe_of(right)
            sending = asyncio.create_task(one.send(sent))
            first = await other.recv(limit=3)
            if ended:
                sending.add_done_callback(lambda _: one.send_eof())
            await asyncio.sleep(0.02)  # much of it, or all with its end, is here and unread
            reader, writer = other.streams()
            assert first + await reader.readexactly(size - 3) == sent
            await sending
            writer.write(b"and ")
            await writer.drain()
            writer.writelines([b"back", b"\n"])
            writer.write_eof()
            assert await _read_all(one) == b"and back\n"
            if ended:
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await other.wait_closed()
            assert other.closed
            await asyncio.gather(one.close(), other.close())

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())


async def test_streams_keep_back_pressure_both_ways() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        sending = asyncio.create_task(one.send(bytes(64 * 1024 * 1024)))
        back = asyncio.create_task(other.send(bytes(64 * 1024 * 1024)))
        await asyncio.sleep(0.2)
        assert not sending.done()
        assert not back.done()
        back.cancel()
        reader, writer = other.streams(limit=1000)
        await asyncio.sleep(0.2)
        assert not sending.done(), "the reader takes no more than it was allowed to"
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0)
        assert not draining.done(), "that writing was paused is known to the writer"

        async def read(count: int) -> None:
            while count:
                count -= len(await reader.read(count))

        async def read_back() -> None:
            left_over = 64 * 1024 * 1024
            while left_over:
                left_over -= len(await one.recv())

        await asyncio.gather(sending, draining, read(64 * 1024 * 1024), read_back())
        await asyncio.gather(one.close(), other.close())


async def test_after_streams_the_pipe_only_closes() -> None:
    async with loopback_links() as (left, right):
        one, other = pipe_of(left), pipe_of(right)
        reader, _ = other.streams()
        for refused in (other.recv(), other.send(b"x")):
            with pytest.raises(PipeError, match="handed over"):
                await refused
        with pytest.raises(PipeError, match="handed over"):
            other.send_eof()
        with pytest.raises(PipeError, match="handed over"):
            other.streams()
        await one.send(b"still there")
        assert await reader.read(100) == b"still there"
        await other.close()
        await other.close()
        assert await reader.read() == b""
        assert await _read_all(one) == b""
        assert other.closed
        await one.close()


async def test_streams_report_a_reset() -> None:
    async with loopback_links() as (left, right):
        pipe = pipe_of(right)
        reader, writer = pipe.streams()
        reset(left)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await pipe.wait_closed()
        assert isinstance(pipe.error, PeerLostError)
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


def test_closing_after_streams_is_bounded() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        left, right, *_ = await memory_links(MemoryNetwork())
        pipe = pipe_of(left)
        _, writer = pipe.streams()
        writer.write(bytes(3_000_000))
        await asyncio.sleep(1)
        began = loop.time()
        await pipe.close()
        took = loop.time() - began
        right.abort()
        return took

    assert run_virtual(main) == pytest.approx(FLUSH_TIMEOUT, abs=0.01)
