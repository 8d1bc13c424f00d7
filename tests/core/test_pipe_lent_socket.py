"""A datagram pipe over a socket that a strategy lent it: over when that is released, or breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.core.links import LOOPBACK, PEER
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, PeerLostError, PipeError
from warpgate_core.net.ports import bind_udp
from warpgate_core.net.udp import UdpSocket
from warpgate_core.pipe import Consent, DatagramMux, DatagramPipe, Path, Pipe
from warpgate_core.trace import Trace

KEYS = (b"a" * 32, b"b" * 32)
RELEASE = 0.05  # s that the lender needs once the last user has detached


class LentSocket(UdpSocket):
    """Closes itself some time after the last user has detached."""

    is_relay = True

    def __init__(self) -> None:
        super().__init__("lent")
        self.released = asyncio.get_running_loop().create_future()
        self.lost: list[Callable[[NetworkError], None]] = []

    def detach(self, remote: Endpoint) -> None:
        super().detach(remote)
        if not self.attached:
            asyncio.get_running_loop().call_later(RELEASE, self._release)

    def _release(self) -> None:
        self.close()
        if not self.released.done():
            self.released.set_result(None)

    def on_released(self, callback: Callable[[], None]) -> None:
        self.released.add_done_callback(lambda _: callback())

    def on_lost(self, callback: Callable[[NetworkError], None]) -> None:
        self.lost.append(callback)


def make_pipe(sock: UdpSocket, remote: Endpoint, *, is_first: bool) -> DatagramPipe:
    """A pipe on channel 5 of its own mux, as the engine makes them."""
    keys = KEYS if is_first else KEYS[::-1]
    mux = DatagramMux(sock, remote, other=lambda data: None, idle=lambda: None)
    return DatagramPipe(
        mux.channel(5),
        remote,
        peer=PEER,
        path=Path("udp", sock.local, remote, "relay"),
        strategy="lender",
        trace=Trace(time.monotonic),
        consent=Consent(*keys, asyncio.get_running_loop().time()),
        channel=5,
    )


@asynccontextmanager
async def two_pipes() -> AsyncIterator[tuple[LentSocket, DatagramPipe, DatagramPipe]]:
    lent, other = LentSocket(), UdpSocket("other")
    for sock in (lent, other):
        bound = bind_udp(LOOPBACK)
        await sock.open(bound, Endpoint.of(bound.getsockname()))
    pipes = make_pipe(lent, other.local, is_first=True), make_pipe(other, lent.local, is_first=False)
    try:
        yield lent, *pipes
    finally:
        for pipe in pipes:
            await pipe.close()
        for sock in (lent, other):
            sock.close()
            await sock.wait_closed()


async def test_closing_waits_until_the_socket_is_released() -> None:
    async with two_pipes() as (lent, pipe, _):
        await pipe.close()
        assert lent.released.done()
        await pipe.wait_closed()


async def test_the_peers_goodbye_ends_the_pipe_when_the_socket_is_released() -> None:
    async with two_pipes() as (lent, pipe, other):
        over: list[Pipe] = []
        pipe.add_close_callback(over.append)
        await asyncio.gather(other.close(), pipe.wait_closed())
        assert lent.released.done()
        assert over == [pipe]
        assert pipe.error is None


async def test_closing_a_pipe_that_the_peer_has_closed_waits_too() -> None:
    async with two_pipes() as (lent, pipe, other):
        await other.close()
        assert not lent.released.done()
        await pipe.close()
        assert lent.released.done()


async def test_a_socket_that_breaks_breaks_the_pipe_at_once() -> None:
    async with two_pipes() as (lent, pipe, _):
        waiting = asyncio.create_task(pipe.recv())
        await asyncio.sleep(0)
        for callback in lent.lost:
            callback(NetworkError("the server is gone"))
        assert pipe.closed
        for attempt in (waiting, pipe.send(b"x"), pipe.recv()):
            with pytest.raises(PeerLostError, match="the server is gone"):
                await attempt
        error: PipeError | None = pipe.error
        assert isinstance(error, PeerLostError)
        await pipe.wait_closed()
        assert lent.released.done()
        for callback in lent.lost:
            callback(NetworkError("once more"))
        assert "once more" not in str(pipe.error)
