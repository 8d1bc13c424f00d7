"""The byte stream to one broker: an asyncio transport that looks like a socket to paho.

paho reads and writes a socket; aiomqtt connects it in a thread and then watches its descriptor. Here
asyncio does all of that, and paho is left what it is good at, the MQTT protocol. What it gains:

- connecting, TLS and the WebSocket handshake block nothing and need no thread: twenty brokers that never
  answer cost twenty sockets and delay nobody;
- it runs on every event loop, also the one of Windows that cannot watch descriptors, and uvloop;
- one system call reads a whole message (paho alone: four), writing needs no registration first;
- back-pressure: a broker that does not read makes `writable` false, and nothing piles up.

Rejected: an executor of its own per router (threads hang in `connect` for as long as the kernel waits), and
the socket handed over after connecting (still four reads and six epoll calls a message, TLS by polling).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Literal, cast

from warpgate_core.errors import BrokerError
from warpgate_core.signal.websocket import MAX_HEAD, WebSocketCodec, check_response, handshake

__all__ = ["BrokerStream"]

# Bytes unsent at which a broker counts as stuck: 16 of the largest messages.
WRITE_LIMIT: Final = 256 * 1024

_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)  # linux/tcp.h; must be set anew after each reading


class BrokerStream(asyncio.Protocol):
    """One connection, with the methods that paho calls on a socket.

    Attributes:
        on_data: called when there is something to read, and once when the stream has ended.
        on_writable: called when writing became possible again.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._sock: socket.socket | None = None
        self._buffer = bytearray()
        self._codec: WebSocketCodec | None = None
        self._head: asyncio.Future[None] | None = None  # while the handshake's answer is awaited
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._eof = False
        self.writable = True
        self.error: Exception | None = None
        self.on_data: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._sock = transport.get_extra_info("socket")
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)

    def data_received(self, data: bytes) -> None:
        self._acknowledge_now()
        if self._head is not None:
            self._buffer += data
            self._look_for_head()
            return
        if self._codec is not None:
            try:
                data, reply = self._codec.feed(data)
            except BrokerError as error:
                self.fail(error)
                return
            if reply and self._transport is not None:
                self._transport.write(reply)
            self._eof |= self._codec.closed
        self._buffer += data
        if self.on_data is not None:
            self.on_data()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self.error = self.error or exc
        if not self._closed.done():
            self._closed.set_result(None)
        if self._head is not None and not self._head.done():
            self._head.set_exception(self.error or BrokerError("the broker closed the connection"))
        if self.on_data is not None:
            self.on_data()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.on_writable is not None:
            self.on_writable()

    def _acknowledge_now(self) -> None:
        """Let the kernel confirm what came at once instead of within 40 ms (Linux; elsewhere it decides).

        Brokers leave Nagle's algorithm on (mosquitto's default): they hold back a small message while the
        one before it is unconfirmed. An acknowledgement followed by an answer would wait those 40 ms.
        """
        if self._sock is not None and _QUICKACK is not None:
            with contextlib.suppress(OSError):  # just closed; it is only a matter of speed
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    # the WebSocket handshake

    async def upgrade(self, host: str, path: str) -> None:
        """Turn the connection into a WebSocket that carries MQTT.

        Raises:
            BrokerError: the server does not do that.
        """
        request, accept = handshake(host, path)
        assert self._transport is not None
        self._head = self._loop.create_future()
        self._transport.write(request)
        await self._head
        end = self._buffer.index(b"\r\n\r\n") + 4
        check_response(bytes(self._buffer[:end]), accept)
        rest = bytes(self._buffer[end:])
        self._buffer.clear()
        self._head, self._codec = None, WebSocketCodec()
        if rest:
            self.data_received(rest)

    def _look_for_head(self) -> None:
        assert self._head is not None
        if self._head.done():
            return
        if b"\r\n\r\n" in self._buffer:
            self._head.set_result(None)
        elif len(self._buffer) > MAX_HEAD:
            self._head.set_exception(BrokerError("the WebSocket handshake's answer has no end"))

    # what paho calls

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end; BlockingIOError if there is nothing yet."""
        if self._buffer:
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            return data
        if self._eof:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """All of `data`, or BlockingIOError while the broker does not read."""
        if self._transport is None or self._transport.is_closing():
            raise BrokenPipeError("the connection to the broker is closed")
        if not self.writable:
            raise BlockingIOError
        self._transport.write(self._codec.frame(bytes(data)) if self._codec else bytes(data))
        return len(data)

    def pending(self) -> int:
        """Bytes that can be read at once."""
        return len(self._buffer)

    def setblocking(self, flag: Literal[False]) -> None:
        """Never blocks anyway."""

    def fileno(self) -> int:
        """No descriptor to watch: the transport does that."""
        return -1

    def close(self) -> None:
        """Send what is written, then close."""
        if self._transport is not None:
            self._transport.close()

    # for the owner

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._eof

    def fail(self, error: Exception) -> None:
        """End the connection because of what came over it."""
        self.error = self.error or error
        self.abort()

    def abort(self) -> None:
        """Close at once; unsent bytes are lost."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await asyncio.shield(self._closed)
