"""A pipe of bytes over TCP: raw application bytes, no framing, no bridge in between.

Thin on purpose: the work is in `StreamLink`, and `streams()` takes even that out of the way by giving
the bare transport to asyncio's own reader and writer. Rejected: handing out `StreamReader` objects from
the start (see `net.stream`) and wrapping reads into a task (one more switch per read).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from warpgate_core.errors import PipeClosedError, PipeError
from warpgate_core.net.keepalive import keep_alive
from warpgate_core.net.stream import READ_LIMIT, StreamLink
from warpgate_core.pipe.base import SUB_ALL, Path, Pipe, Sub, check_sub
from warpgate_core.trace import Trace

__all__ = ["FLUSH_TIMEOUT", "LINGER", "Preamble", "StreamPipe"]

FLUSH_TIMEOUT: Final = 5.0  # s to send what is queued at close: 256 KiB at 0.5 Mbit/s
LINGER: Final = 1.0  # s for the peer to end its direction too: three round trips of a slow path (300 ms)
STREAM_LIMIT: Final = 64 * 1024  # bytes; asyncio's own default for a StreamReader


@dataclass(frozen=True, slots=True)
class Preamble:
    """One frame of fixed size that the peer sends before the application's bytes.

    It is taken out of the stream as soon as it is there. Reads wait for it, writes do not.

    Args:
        size: bytes.
        check: called with the frame; raises a `WarpgateError` to refuse it, which breaks the pipe with a
            `PeerLostError` whose cause is that error.
    """

    size: int
    check: Callable[[bytes], None]


class StreamPipe(Pipe):
    """A pipe over one TCP connection.

    Args:
        link: the proven connection; the pipe owns it from now on.
        peer, path, strategy, trace: see `Pipe`.
        preamble: a frame that still has to come first; None if there is none.
    """

    def __init__(
        self,
        link: StreamLink,
        *,
        peer: bytes,
        path: Path,
        strategy: str,
        trace: Trace,
        preamble: Preamble | None = None,
    ) -> None:
        super().__init__(peer=peer, path=path, strategy=strategy, trace=trace)
        self._link = link
        self._closing = False
        self._handed_over = False
        keep_alive(link.transport)
        if preamble is not None:
            link.expect(preamble.size, preamble.check)
        link.add_lost_callback(lambda _: self._finished())

    @property
    def closed(self) -> bool:
        """Whether this side closed the pipe, or the connection is over."""
        return self._closing or self._link.is_lost or self._link.error is not None

    @property
    def error(self) -> PipeError | None:
        """See `Pipe.error`."""
        return self._link.error

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; waits while the peer takes no more (back-pressure). See `Pipe.send`."""
        link = self._link
        if link.write(data if type(data) is bytes else bytes(data)):
            await link.drain()

    async def recv(self, sub: Sub = SUB_ALL, timeout: float | None = None, limit: int = READ_LIMIT) -> bytes:
        """Receive 1 to `limit` bytes: what is there, or what comes next. See `Pipe.recv`.

        Args:
            sub: `SUB_ALL`.
            timeout: seconds; None waits as long as it takes.
            limit: at most so many bytes.
        """
        if sub is not SUB_ALL:
            check_sub(sub)
        data = self._link.take(limit)
        if data:
            return data
        if timeout is None:
            data = await self._link.read_some(limit)
        else:
            try:
                async with asyncio.timeout(timeout):
                    data = await self._link.read_some(limit)
            except TimeoutError:
                raise TimeoutError(f"nothing came from {self.path.remote} within {timeout:g} s") from None
        if not data:
            raise PipeClosedError(f"the peer at {self.path.remote} closed the pipe")
        return data

    def send_eof(self) -> None:
        """End our direction after what was sent; receiving goes on (half close).

        Raises:
            PipeError: after `streams()`; use the writer's own `write_eof`.
        """
        self._check_not_handed_over()
        self._link.write_eof()

    def streams(self, limit: int = STREAM_LIMIT) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Go on with asyncio's own streams on the bare connection; nothing received is lost.

        From then on the reader and the writer own the bytes: `send`, `recv` and `send_eof` raise
        `PipeError`. `close` and ``async with`` still close the connection, as the writer's own `close` does.

        Args:
            limit: bytes that the reader buffers before it pauses the peer (twice that).

        Raises:
            PipeError: called twice, or while a `recv` waits.
            PipeClosedError, PeerLostError: the pipe is over.
        """
        self._check_not_handed_over()
        loop = asyncio.get_running_loop()
        link = self._link
        eof = link.got_eof
        transport, unread = link.detach()
        self._handed_over = True
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = _Handover(link, reader, loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if link.is_write_paused:
            protocol.pause_writing()
        if eof:
            reader.feed_data(unread)
            reader.feed_eof()
        else:
            transport.resume_reading()  # before feeding: the reader may pause it again
            reader.feed_data(unread)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def close(self) -> None:
        """Send what is queued, end the connection and release it; at most six seconds.

        What the peer sent and nobody received is discarded. Cancelling aborts the connection.
        """
        if self._closing:
            await self._link.wait_closed()
            return
        self._closing = True
        if self._handed_over:
            await self._close_handed_over()
        else:
            await self._link.finish(FLUSH_TIMEOUT, LINGER)
        self._finished()

    async def _close_handed_over(self) -> None:
        transport = self._link.transport
        transport.close()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._link.wait_closed()
        except TimeoutError:
            pass  # the peer takes nothing any more: what is queued is discarded
        finally:
            transport.abort()
        await self._link.wait_closed()

    def _check_not_handed_over(self) -> None:
        if self._handed_over:
            raise PipeError("the pipe was handed over by streams(); use the reader and the writer")


class _Handover(asyncio.StreamReaderProtocol):
    """asyncio's own stream protocol, which also lets the link know of a due frame and of the end."""

    def __init__(
        self, link: StreamLink, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(reader, loop=loop)
        self._link = link
        self._target = reader

    def data_received(self, data: bytes) -> None:
        if self._link.is_expecting:
            self._link.data_received(data)
            if self._link.error is not None:
                self._target.set_exception(self._link.error)
            data = self._link.take()
            if not data:
                return
        super().data_received(data)

    def eof_received(self) -> bool:
        if self._link.is_expecting:
            self._link.eof_received()
            if self._link.error is not None:
                self._target.set_exception(self._link.error)
            return False
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._link.connection_lost(exc)
