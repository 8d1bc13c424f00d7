"""A pipe of messages: what arrives, what is dropped, consent, goodbye, and nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.links import LOOPBACK, PEER
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import InputError, PeerLostError, PipeClosedError, PipeError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.ports import bind_udp
from warpgate_core.net.udp import UdpSocket
from warpgate_core.pipe import MAX_MESSAGE, Consent, DatagramPipe, Path, Pipe
from warpgate_core.pipe.consent import CLOSE_TIMEOUT, EXPIRY, Frame
from warpgate_core.pipe.datagram import OVERHEAD, QUEUE_SIZE
from warpgate_core.testing.edge import MemorySocket
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import VirtualLoop, run_virtual
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.trace import Trace

KEYS = (b"a" * 32, b"b" * 32)


def make_pipe(sock: DatagramSocket, remote: Endpoint, *, is_first: bool) -> DatagramPipe:
    keys = KEYS if is_first else KEYS[::-1]
    loop = asyncio.get_running_loop()
    rng = loop.random if isinstance(loop, VirtualLoop) else None
    return DatagramPipe(
        sock,
        remote,
        peer=PEER,
        path=Path("udp", sock.local, remote, "srflx"),
        strategy="punch-udp",
        trace=Trace(time.monotonic),
        consent=Consent(*keys, loop.time(), rng),
    )


@dataclass
class Stage:
    """Two pipes in memory, their sockets and hosts."""

    network: MemoryNetwork
    hosts: tuple[Host, Host]
    sockets: tuple[MemorySocket, MemorySocket]
    one: DatagramPipe
    other: DatagramPipe

    def cut(self) -> None:
        self.network.cut(*self.hosts)


@asynccontextmanager
async def stage(line: Line | None = None) -> AsyncIterator[Stage]:
    """Two pipes in memory; both are closed at the end."""
    network = MemoryNetwork()
    hosts = (
        network.host("one", "198.51.100.1/24", line=line),
        network.host("other", "198.51.100.2/24", line=line),
    )
    sockets = tuple(
        MemorySocket(host, "eth0", Endpoint(host.cards[0].address, 4000 + number))
        for number, host in enumerate(hosts)
    )
    first, second = sockets
    pipes = (
        make_pipe(first, second.local, is_first=True),
        make_pipe(second, first.local, is_first=False),
    )
    try:
        yield Stage(network, hosts, (first, second), *pipes)
    finally:
        await asyncio.gather(*(pipe.close() for pipe in pipes))
        for sock in sockets:
            sock.close()


def virtual(main: Callable[[Stage], Awaitable[None]], line: Line | None = None, seed: int = 0) -> None:
    """Run a test on a stage of its own, in virtual time; whatever is left behind fails it."""

    async def run() -> None:
        async with stage(line) as made:
            await main(made)

    run_virtual(run, seed=seed)


async def collect(pipe: Pipe) -> list[bytes]:
    return [data async for data in pipe]


# -- messages ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_messages_arrive_as_they_were_sent(messages: list[bytes]) -> None:
    async def main(on: Stage) -> None:
        for message in messages:
            await on.one.send(message)
        assert [await on.other.recv(timeout=1) for _ in messages] == messages

    virtual(main)


@pytest.mark.parametrize("message", [b"", bytes(MAX_MESSAGE), b"\xe9" + bytes(24), b"\x80\x80"])
async def test_over_a_real_socket_every_size_and_content_is_only_a_message(message: bytes) -> None:
    async with udp() as first, udp() as second:
        one = make_pipe(first, second.local, is_first=True)
        other = make_pipe(second, first.local, is_first=False)
        async with asyncio.timeout(10):
            for kind in (bytes, bytearray, memoryview):
                await one.send(kind(message))
                assert await other.recv() == message
            closing = asyncio.create_task(collect(other))
            await one.close()
            assert await closing == []
            await other.close()
        assert first.attached == second.attached == 0


@asynccontextmanager
async def udp() -> AsyncIterator[UdpSocket]:
    raw = bind_udp(LOOPBACK)
    sock = UdpSocket("lo")
    await sock.open(raw, Endpoint.of(raw.getsockname()))
    try:
        yield sock
    finally:
        sock.close()
        await sock.wait_closed()


def test_a_message_that_fits_no_datagram_is_refused() -> None:
    async def main(on: Stage) -> None:
        with pytest.raises(InputError, match=f"{MAX_MESSAGE} do"):
            await on.one.send(bytes(MAX_MESSAGE + 1))
        assert not on.one.closed

    virtual(main)


@pytest.mark.parametrize("size", [0, 1200])
def test_a_full_queue_drops_the_newest_and_counts(size: int) -> None:
    async def main(on: Stage) -> None:
        room = QUEUE_SIZE // (size + 1 + OVERHEAD)
        for number in range(room + 10):
            await on.one.send(_numbered(number, size))
        await asyncio.sleep(1)
        assert on.other.dropped == 10
        got = [await on.other.recv() for _ in range(room)]
        if size:
            assert [int.from_bytes(data[:4], "big") for data in got] == list(range(room))
        await on.one.send(b"again")
        assert await on.other.recv(timeout=1) == b"again", "there is room again"

    virtual(main)


def _numbered(number: int, size: int) -> bytes:
    return (number.to_bytes(4, "big") + bytes(size))[:size]


def test_a_sender_who_never_waits_lets_others_run() -> None:
    async def main(on: Stage) -> None:
        turns = 0

        async def other_work() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        working = asyncio.create_task(other_work())
        for _ in range(1000):
            await on.one.send(b"x")
        assert turns >= 10
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    virtual(main)


def test_what_comes_in_another_shape_is_ignored_and_counted() -> None:
    async def main(on: Stage) -> None:
        first, second = on.sockets
        for data in (b"", b"\x00hello", b"\xff", b"\xea" + bytes(40), b"\x81other channel"):
            first.send(data, second.local)
        await on.one.send(b"real")
        assert await on.other.recv(timeout=1) == b"real"
        assert on.other.ignored == 5

    virtual(main)


def test_late_frames_of_the_proof_have_a_place_to_go() -> None:
    async def main(on: Stage) -> None:
        frames: list[bytes] = []
        on.other._on_frame = frames.append
        on.sockets[0].send(b"\xe4nominate", on.sockets[1].local)
        await on.one.send(b"x")
        await on.other.recv()
        assert frames == [b"\xe4nominate"]
        assert on.other.ignored == 0

    virtual(main)


# -- waiting -------------------------------------------------------------------------------------


def test_recv_times_out_is_cancelled_and_loses_nothing() -> None:
    async def main(on: Stage) -> None:
        with pytest.raises(TimeoutError, match="within 2 s"):
            await on.other.recv(timeout=2)
        waiting = asyncio.create_task(on.other.recv())
        await asyncio.sleep(1)
        with pytest.raises(PipeError, match="one at a time"):
            await on.other.recv()
        await on.one.send(b"x")
        on.sockets[1]._received(b"\x80y", on.sockets[0].local)  # wakes it ...
        waiting.cancel()  # ... as it is cancelled
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert {await on.other.recv(), await on.other.recv()} == {b"x", b"y"}
        with pytest.raises(InputError):
            await on.other.recv("all")  # type: ignore[arg-type]

    virtual(main)


# -- consent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_an_idle_pipe_lives_on_over_a_bad_line(loss: float) -> None:
    """At a loss of 0.2 on each line, three round trips of five fail."""

    async def main(on: Stage) -> None:
        await asyncio.sleep(3600)
        assert not on.one.closed
        assert not on.other.closed
        checks = on.network.fates["sent"] / 4
        assert checks > 3600 / 6
        assert loss or checks < 3600 / 4

    for seed in range(5):
        virtual(main, Line(delay=0.05, jitter=0.05, loss=loss, duplicate=loss, reorder=0.1), seed)


def test_a_peer_that_vanishes_is_lost_after_thirty_seconds_and_everything_is_released() -> None:
    async def main(on: Stage) -> None:
        loop = asyncio.get_running_loop()
        over: list[Pipe] = []
        on.one.add_close_callback(over.append)
        await asyncio.sleep(100)
        await on.other.send(b"last words")
        await asyncio.sleep(1)
        on.cut()
        cut = loop.time()
        assert await on.one.recv() == b"last words"
        with pytest.raises(PeerLostError, match="has not answered for 30 s"):
            await collect(on.one)
        assert EXPIRY - 6 - 0.1 <= loop.time() - cut <= EXPIRY + 0.1
        await on.one.wait_closed()
        assert over == [on.one]
        assert on.one.closed
        assert isinstance(on.one.error, PeerLostError)
        with pytest.raises(PeerLostError):
            await on.one.send(b"x")
        began = loop.time()
        await on.one.close()
        assert loop.time() == began, "there is nobody to say goodbye to"
        make_pipe(on.sockets[0], on.sockets[1].local, is_first=True)._release()  # the place is free again

    virtual(main, Line(delay=0.02))


def test_received_messages_are_no_consent() -> None:
    """Whoever can forge the peer's address could otherwise keep us sending to it."""

    async def main(on: Stage) -> None:
        on.cut()

        async def forge() -> None:
            while True:
                on.sockets[0]._received(b"\x80forged", on.sockets[1].local)
                await asyncio.sleep(1)

        forging = asyncio.create_task(forge())
        await on.one.wait_closed()
        assert isinstance(on.one.error, PeerLostError)
        forging.cancel()
        await asyncio.gather(forging, return_exceptions=True)

    virtual(main)


# -- goodbye -------------------------------------------------------------------------------------


def test_the_peers_goodbye_comes_after_all_it_sent() -> None:
    async def main(on: Stage) -> None:
        loop = asyncio.get_running_loop()
        over: list[Pipe] = []
        on.other.add_close_callback(over.append)
        for number in range(5):
            await on.one.send(b"%d" % number)
        began = loop.time()
        await on.one.close()
        assert loop.time() - began == pytest.approx(0.08), "one round trip"
        with pytest.raises(PipeClosedError):
            await on.other.send(b"x")
        assert on.other.closed
        assert await collect(on.other) == [b"0", b"1", b"2", b"3", b"4"]
        with pytest.raises(PipeClosedError, match="the peer"):
            await on.other.recv()
        assert on.one.error is None
        assert on.other.error is None
        await on.other.wait_closed()  # without any close of its own
        assert over == [on.other]

    virtual(main, Line(delay=0.02))


def test_goodbye_survives_loss_and_the_waiting_peer_is_woken() -> None:
    heard = 0
    for seed in range(40):

        async def main(on: Stage) -> None:
            nonlocal heard
            loop = asyncio.get_running_loop()
            waiting = asyncio.create_task(collect(on.other))
            await asyncio.sleep(0)
            began = loop.time()
            await on.one.close()
            assert loop.time() - began <= CLOSE_TIMEOUT + 0.01
            await asyncio.sleep(1)
            if waiting.done():
                heard += 1
                assert await waiting == []
            else:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

        virtual(main, Line(delay=0.01, loss=0.15), seed)
    assert heard >= 36, "three tries at 28 % loss miss one time in fifty"


def test_closing_without_a_peer_takes_a_second_and_is_harmless_twice() -> None:
    async def main(on: Stage) -> None:
        loop = asyncio.get_running_loop()
        on.cut()
        waiting = asyncio.create_task(on.one.recv())
        await asyncio.sleep(0)
        began = loop.time()
        await asyncio.gather(on.one.close(), on.one.close(), on.one.aclose())
        assert loop.time() - began == pytest.approx(CLOSE_TIMEOUT)
        with pytest.raises(PipeClosedError, match="this side"):
            await waiting
        with pytest.raises(PipeClosedError, match="this side"):
            await on.one.send(b"x")
        assert await collect(on.one) == []

    virtual(main)


def test_a_cancelled_close_releases_at_once() -> None:
    async def main(on: Stage) -> None:
        on.cut()
        closing = asyncio.create_task(on.one.close())
        second = asyncio.create_task(on.one.close())
        await asyncio.sleep(0.1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await second
        assert on.one.closed
        on.sockets[0].attach(on.sockets[1].local, lambda _: None)  # free again
        on.sockets[0].detach(on.sockets[1].local)

    virtual(main)


def test_crossed_goodbyes() -> None:
    async def main(on: Stage) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(on.one.close(), on.other.close())
        assert loop.time() - began == pytest.approx(0.04), "half a round trip: no answer is needed"

    virtual(main, Line(delay=0.02))


def test_a_forged_goodbye_is_ignored() -> None:
    async def main(on: Stage) -> None:
        await asyncio.sleep(1)
        for data in (b"\xe9", b"\xe9" + bytes(24), b"\xe9" + bytes(25), bytes([Frame.CLOSE]) * 25):
            on.sockets[0].send(data, on.sockets[1].local)
        await on.one.send(b"real")
        assert await on.other.recv() == b"real"
        assert not on.other.closed

    virtual(main)


def test_repr() -> None:
    async def main(on: Stage) -> None:
        text = repr(on.one)
        assert "DatagramPipe udp 198.51.100.1:4000 to 198.51.100.2:4001 (srflx) by punch-udp" in text
        assert all(key.hex() not in text and repr(key) not in text for key in KEYS)

    virtual(main)
