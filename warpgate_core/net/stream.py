"""One TCP connection, from the first handshake frame until it is handed to the application.

A `StreamLink` is the asyncio protocol of that connection. The same object carries the session's proof
frames and later the application's bytes, so nothing is copied from one reader to another at the moment
a path is nominated. It works over any `asyncio.Transport`, the in-memory one of the testing kit included.

Rejected: `asyncio.StreamReader`/`StreamWriter` (each byte is copied twice, a frame cannot be read
before and pushed back for the next reader, and EOF, reset and our own close look alike);
`BufferedProtocol` (saves an allocation per read but needs a copy as soon as the application is slower
than the network, and hands over badly to another protocol). Received chunks stay the objects that the
transport made: `read_some` hands them on uncopied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import PeerLostError, PipeClosedError, PipeError, WarpgateError

__all__ = ["READ_HIGH", "READ_LIMIT", "READ_LOW", "StreamLink"]

READ_LIMIT: Final = 256 * 1024  # what asyncio and uvloop read at once: a whole chunk passes uncopied
READ_HIGH: Final = 512 * 1024  # pause reading above: two chunks, so that one is ready while one is used
READ_LOW: Final = 128 * 1024  # resume below; a quarter of the above, as asyncio does for writing
MAX_CHUNKS: Final = 1024  # bounds the overhead of tiny chunks: 512 bytes each on average
UNKNOWN: Final = Endpoint("::", 0)  # the name of a connection that was reset before we could look


class StreamLink(asyncio.Protocol):
    """One TCP connection with back-pressure both ways, typed errors and push-back.

    A protocol factory: ``loop.create_connection(StreamLink, ...)``. One reader at a time; cancelling a
    read loses nothing.

    Args:
        on_connected: called with the link once it is connected (for listeners).

    Attributes:
        local, remote: own end of the connection, and the peer's.
        transport: what is underneath.
    """

    local: Endpoint
    remote: Endpoint
    transport: asyncio.Transport

    def __init__(self, on_connected: Callable[[StreamLink], None] | None = None) -> None:
        self._on_connected = on_connected
        self._chunks: deque[bytes | memoryview] = deque()
        self._buffered = 0
        self._need = 1
        self._waiter: asyncio.Future[None] | None = None
        self._read_paused = self._write_paused = False
        self._writable = asyncio.Event()
        self._gone = asyncio.Event()
        self._eof = self._wrote_eof = False
        self._closing = False
        self._detached = False
        self._sink = False  # throw away what comes
        self._error: PipeError | None = None
        self._preamble: tuple[int, Callable[[bytes], None]] | None = None
        self._lost_callbacks: list[Callable[[PipeError | None], None]] = []

    def __repr__(self) -> str:
        if not hasattr(self, "transport"):
            return "<StreamLink not connected>"
        state = "lost" if self.is_lost else "closing" if self._closing else "open"
        return f"<StreamLink {self.local} to {self.remote} {state}>"

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands (called by the event loop)."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, but acts as one
        peer = transport.get_extra_info("peername")
        self.local = Endpoint.of(transport.get_extra_info("sockname") or UNKNOWN)
        self.remote = Endpoint.of(peer or UNKNOWN)
        if peer is None:  # it was reset before we looked: nobody needs to hear of it
            self.transport.abort()
        elif self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came (called by the event loop)."""
        if self._sink:
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._preamble is not None and not self._check_preamble():
            return
        if self._buffered >= self._need:
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            elif not self._read_paused and (self._buffered > READ_HIGH or len(self._chunks) > MAX_CHUNKS):
                self._read_paused = True
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer will send no more (called by the event loop); our own direction stays open."""
        self._eof = True
        if self._preamble is not None:
            self.fail(PeerLostError(f"{self.remote} ended the connection before it had confirmed it"))
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over (called by the event loop).

        Whoever took the transport over with `detach` calls this too, so that waiters hear of it.
        """
        if self._error is None and exc is not None and not self._closing:
            self._error = PeerLostError(f"the connection to {self.remote} broke: {exc}")
            self._error.__cause__ = exc
        self._gone.set()
        self._writable.set()
        self._wake()
        callbacks, self._lost_callbacks = self._lost_callbacks, []
        for callback in callbacks:
            callback(self._error)

    def pause_writing(self) -> None:
        """The transport's buffer is full (called by the event loop)."""
        self._write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has room again (called by the event loop)."""
        self._write_paused = False
        self._writable.set()

    # -- reading -----------------------------------------------------------------------------

    @property
    def is_expecting(self) -> bool:
        """Whether a frame of `expect` is still due."""
        return self._preamble is not None

    @property
    def is_write_paused(self) -> bool:
        """Whether the transport takes no more at present."""
        return self._write_paused

    @property
    def buffered(self) -> int:
        """Bytes received and not yet read."""
        return self._buffered

    @property
    def got_eof(self) -> bool:
        """Whether the peer has ended its direction; what it sent before may still be unread."""
        return self._eof

    def take(self, limit: int = READ_LIMIT) -> bytes:
        """What is there already, at most `limit` bytes, without waiting; b"" if there is nothing."""
        if not self._chunks or self._preamble is not None:
            return b""
        chunk = self._chunks.popleft()
        size = len(chunk)
        if size > limit:
            if limit < 1:
                self._chunks.appendleft(chunk)
                raise ValueError(f"cannot read {limit} bytes; the limit must be 1 or more")
            view = memoryview(chunk)
            self._chunks.appendleft(view[limit:])
            chunk, size = view[:limit], limit
        self._buffered -= size
        if self._read_paused and self._buffered <= READ_LOW:
            self._resume_reading()
        return chunk if type(chunk) is bytes else bytes(chunk)

    async def read_some(self, limit: int = READ_LIMIT) -> bytes:
        """Read what is there, or wait for the next bytes.

        Args:
            limit: at most so many bytes.

        Returns:
            1 to `limit` bytes; b"" once the peer has ended its direction.

        Raises:
            PeerLostError: the connection broke.
            PipeClosedError: this side closed it.
        """
        while True:
            data = self.take(limit)
            if data:
                return data
            if self._eof and not self._detached:
                return b""
            await self._readable(1)

    async def read_exactly(self, count: int) -> bytes:
        """Read exactly `count` bytes; none are taken if fewer come.

        Args:
            count: number of bytes; keep it small, all of them are held in memory.

        Raises:
            PipeClosedError: the peer ended its direction before.
            PeerLostError: the connection broke before.
        """
        while self._buffered < count or self._preamble is not None:
            if self._eof:
                raise PipeClosedError(
                    f"{self.remote} ended the connection after {self._buffered} of {count} bytes"
                )
            try:
                await self._readable(count)
            finally:
                self._need = 1
        return self._take_exactly(count)

    def _take_exactly(self, count: int) -> bytes:
        parts = []
        while count:
            parts.append(self.take(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def pushback(self, data: bytes) -> None:
        """Put bytes in front of what the next read returns."""
        if data:
            self._chunks.appendleft(data)
            self._buffered += len(data)
            self._wake()

    def expect(self, size: int, check: Callable[[bytes], None]) -> None:
        """Take the next `size` bytes out of the stream and give them to `check` once they are there.

        For a frame that comes in front of the application's bytes when the application holds the
        connection already. Reads wait until the check has passed; writes do not.

        Args:
            size: 1 or more bytes.
            check: raises a `WarpgateError` to refuse; the link then fails with `PeerLostError`.
        """
        if self._preamble is not None:
            raise PipeError(f"{self!r} already waits for a frame")
        self._preamble = (size, check)
        if self._check_preamble() and self._chunks:
            self._wake()
        elif self._eof and self._preamble is not None:
            self.eof_received()

    def _readable(self, need: int) -> asyncio.Future[None]:
        """Done with `need` bytes, EOF or the end; raises what reading must raise."""
        if self._closing or self._detached or self._error is not None or self._gone.is_set():
            raise self._state_error()
        if self._waiter is not None and not self._waiter.done():
            raise PipeError(f"somebody is already reading from {self!r}; one reader at a time")
        if self._read_paused:
            self._resume_reading()
        self._need = need
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume_reading(self) -> None:
        self._read_paused = False
        if not (self._eof or self._gone.is_set()):
            self.transport.resume_reading()

    def _check_preamble(self) -> bool:
        """Whether reads may go on: no frame is due, or it came just now and was right."""
        assert self._preamble is not None
        size, check = self._preamble
        if self._buffered < size:
            return False
        self._preamble = None
        try:
            check(self._take_exactly(size))
        except WarpgateError as error:
            lost = PeerLostError(f"{self.remote} sent a wrong frame where the confirmation belongs: {error}")
            lost.__cause__ = error
            self.fail(lost)
            return False
        return True

    # -- writing -----------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Queue bytes; follow with `drain`.

        Returns:
            Whether `drain` has something to do; whoever asks saves a call per write.

        Raises:
            PipeClosedError: closed on this side, or after `write_eof`.
            PeerLostError: the connection broke.
        """
        if self._closing or self._detached or self._error is not None:
            raise self._state_error()
        if self._wrote_eof:
            raise PipeClosedError(f"{self!r}: nothing can be sent after the end of our direction")
        self.transport.write(data)
        return self._write_paused or self.transport.is_closing()

    async def drain(self) -> None:
        """Wait until the transport takes more bytes.

        Raises:
            PeerLostError: the connection broke.
            PipeClosedError: this side closed it.
        """
        while self._write_paused and not self._gone.is_set():
            await self._writable.wait()
        if self.transport.is_closing():  # the transport knows of a failure before it tells us
            await self._gone.wait()
            raise self._state_error()

    def write_eof(self) -> None:
        """End our direction once what is queued was sent; reading goes on. Harmless twice."""
        if not (self._wrote_eof or self._closing or self._detached or self._gone.is_set()):
            self._shut_down()

    def _shut_down(self) -> None:
        self._wrote_eof = True
        try:
            self.transport.write_eof()
        except OSError as exc:  # reset after the peer's end, when nobody was reading any more (ENOTCONN)
            error = PeerLostError(f"the connection to {self.remote} broke: {exc}")
            error.__cause__ = exc
            self.fail(error)

    def _state_error(self) -> PipeError:
        if self._error is not None:
            error = PeerLostError(str(self._error))
            error.__cause__ = self._error.__cause__
            return error
        if self._detached:
            return PipeError(f"{self!r} was handed over; use what took it over")
        return PipeClosedError(f"{self!r} was closed on this side")

    # -- the end -----------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the connection is over and the transport closed."""
        return self._gone.is_set()

    @property
    def error(self) -> PipeError | None:
        """Why the connection broke; None while it stands, or after an orderly end."""
        return self._error

    def add_lost_callback(self, callback: Callable[[PipeError | None], None]) -> None:
        """Call `callback` once with `error` when the connection is over; soon, if it is already."""
        if self._gone.is_set():
            asyncio.get_running_loop().call_soon(callback, self._error)
        else:
            self._lost_callbacks.append(callback)

    def close(self) -> None:
        """Send what is queued and close. Bytes that were not read are discarded."""
        self._discard()
        self.transport.close()

    def abort(self) -> None:
        """Close at once and discard what is queued."""
        self._discard()
        self.transport.abort()

    def fail(self, error: PipeError) -> None:
        """Abort because of what the peer did: reads and writes raise `error` from now on."""
        if self._error is None and not self._gone.is_set():
            self._error = error
            self._eof = False
            self._forget_input()
            self.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is over, for whatever reason. Raises nothing."""
        await self._gone.wait()

    async def finish(self, flush: float, linger: float) -> None:
        """Close without losing bytes under way: flush, end our direction, wait for the peer's end.

        A plain close while the peer still sends answers it with a reset, which destroys what we sent
        last (RFC 2525 section 2.17). So what comes is thrown away until the peer ends too.

        Args:
            flush: seconds to send what is queued; then it is discarded.
            linger: seconds to wait for the peer's end after that.
        """
        self._discard()
        try:
            if not (self._gone.is_set() or self.transport.is_closing()):
                await self._flush(flush, linger)
        finally:
            self.transport.abort()
        await self._gone.wait()

    def _discard(self) -> None:
        self._closing = self._sink = True
        self._forget_input()

    def _forget_input(self) -> None:
        self._chunks.clear()
        self._buffered = 0
        self._preamble = None
        self._wake()

    async def _flush(self, flush: float, linger: float) -> None:
        if self._read_paused:
            self._resume_reading()
        self.transport.set_write_buffer_limits(0)  # now "writable" means "all was sent"
        try:
            async with asyncio.timeout(flush):
                while self._write_paused and not self._gone.is_set():
                    await self._writable.wait()
            if self.transport.is_closing():
                return
            if not self._wrote_eof:
                self._shut_down()
            async with asyncio.timeout(linger):
                while not (self._eof or self._gone.is_set()):
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
        except TimeoutError:
            return  # the bound was reached: the caller aborts

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Hand the transport over to another protocol.

        It is paused, so that nothing is lost: the new owner calls ``transport.set_protocol``, then
        ``transport.resume_reading`` unless `got_eof`, and our `connection_lost` at the end.

        Returns:
            The transport, and what was received and not read.

        Raises:
            PipeError: closed, lost, or a read is going on.
        """
        if self._closing or self._detached or self._error is not None or self._gone.is_set():
            raise self._state_error()
        if self._waiter is not None and not self._waiter.done():
            raise PipeError(f"{self!r} cannot be handed over while somebody reads from it")
        if not self._eof:
            self.transport.pause_reading()
        self._detached = True
        if self._preamble is not None:
            return self.transport, b""
        unread = b"".join(self._chunks)
        self._forget_input()
        return self.transport, unread
