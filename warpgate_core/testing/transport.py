"""asyncio's view of a TCP connection in the in-memory network.

An `asyncio.Transport` with the promises of the real one: protocol callbacks come from the event loop and
never from inside a call, `pause_writing` above the high-water mark, `connection_lost` exactly once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from warpgate_core.testing.loop import VirtualLoop
from warpgate_core.testing.tcp import Connection

__all__ = ["MemoryTransport"]

HIGH_WATER: Final = 64 * 1024  # bytes; asyncio's default
LOW_WATER: Final = HIGH_WATER // 4  # asyncio's default


class MemoryTransport(asyncio.Transport):
    """One end of an in-memory TCP connection. Made by `Host.connect` and `Host.listen`.

    Args:
        connection: the kernel's part.
        factory: makes the protocol once the connection stands.
    """

    def __init__(self, connection: Connection, factory: Callable[[], asyncio.Protocol]) -> None:
        super().__init__({"sockname": tuple(connection.local), "peername": tuple(connection.remote)})
        self._loop = connection.host.network.loop
        self._connection = connection
        self._factory = factory
        self._protocol: asyncio.Protocol | None = None
        self._connected: asyncio.Future[asyncio.Protocol] | None = None
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._high, self._low = HIGH_WATER, LOW_WATER
        self._protocol_paused = False
        self._paused = False
        self._closing = False
        self._is_lost = False
        self._wrote_eof = False
        self._gave_eof = False
        connection.owner = self

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<MemoryTransport {self._connection!r} {state}>"

    async def connected(self) -> asyncio.Protocol:
        """Wait until the connection stands.

        Raises:
            OSError: refused, or timed out.
        """
        self._connected = self._loop.create_future()
        return await self._connected

    # -- what the connection tells -----------------------------------------------------------

    def established(self) -> None:
        """The handshake is done."""
        if self._connected is not None and self._connected.done():  # whoever dialled has given up
            self.abort()
            return
        if isinstance(self._loop, VirtualLoop):
            self._loop.track(self)
        self._protocol = self._factory()
        self._protocol.connection_made(self)
        if self._connected is not None:
            self._connected.set_result(self._protocol)

    def readable(self) -> None:
        """There is data, or the end of it."""
        while not (self._paused or self._closing):
            data = self._connection.read()
            if data is None:
                break
            self.get_protocol().data_received(data)
        if self._connection.at_eof and not (self._paused or self._closing or self._gave_eof):
            self._gave_eof = True
            if not self.get_protocol().eof_received():
                self.close()

    def writable(self) -> None:
        """There is room to send."""
        while self._buffer:
            data = self._buffer.popleft()
            taken = self._connection.send(data)
            self._size -= taken
            if taken < len(data):
                self._buffer.appendleft(data[taken:])
                break
        if self._protocol_paused and self._size <= self._low:
            self._protocol_paused = False
            self.get_protocol().resume_writing()
        if not self._buffer and self._wrote_eof:
            self._connection.shutdown()
        if not self._buffer and self._closing:
            self._finish(None)

    def broken(self, error: OSError) -> None:
        """It is over without a goodbye."""
        if self._protocol is None:
            if self._connected is not None and not self._connected.done():
                self._connected.set_exception(error)
        else:
            self._buffer.clear()
            self._finish(error)

    # -- asyncio.Transport -------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; see `asyncio.WriteTransport`."""
        if self._wrote_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing or not data:
            return
        rest = bytes(data)
        if not self._buffer:
            rest = rest[self._connection.send(rest) :]
        if rest:
            self._buffer.append(rest)
            self._size += len(rest)
            self._maybe_pause()

    def write_eof(self) -> None:
        """End our direction after what was written."""
        if not (self._wrote_eof or self._closing):
            self._wrote_eof = True
            if not self._buffer:
                self._connection.shutdown()

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Send what is buffered and close."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._finish(None)

    def abort(self) -> None:
        """Close at once; discard what is buffered, but not what the kernel took (as asyncio does)."""
        self._buffer.clear()
        if self._protocol is None:
            self._connection.abort()
        self._finish(None)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def pause_reading(self) -> None:
        """Receive nothing for a while."""
        self._paused = True

    def resume_reading(self) -> None:
        """Receive again."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self.readable)

    def is_reading(self) -> bool:
        """Whether it is neither paused nor closed."""
        return not (self._paused or self._closing)

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel did not take yet."""
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high water."""
        return (self._low, self._high)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is paused and resumed."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low
        self._maybe_pause()

    def get_protocol(self) -> asyncio.Protocol:
        """Who receives."""
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let somebody else receive from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only "sockname" and "peername" are known."""
        return super().get_extra_info(name, default)

    def _maybe_pause(self) -> None:
        if self._size > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self.get_protocol().pause_writing()

    def _finish(self, error: OSError | None) -> None:
        self._closing = True
        if not self._is_lost:
            self._is_lost = True
            self._connection.release()
            if self._protocol is not None:
                self._loop.call_soon(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        if isinstance(self._loop, VirtualLoop):
            self._loop.untrack(self)
        self.get_protocol().connection_lost(error)
