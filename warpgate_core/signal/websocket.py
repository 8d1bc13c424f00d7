"""MQTT inside WebSocket frames, client side: the handshake and the framing, without any I/O.

RFC 6455, and MQTT 3.1.1 section 6: binary frames, sub-protocol ``mqtt``; MQTT packets may be cut
anywhere, so frames are nothing but a way to move bytes. paho has such code of its own; it reads its
handshake byte by byte from a blocking socket, which would need a thread per broker, and is replaced by
this.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

from warpgate_core.errors import BrokerError

__all__ = ["MAX_HEAD", "WebSocketCodec", "check_response", "handshake"]

MAX_HEAD: Final = 16 * 1024  # bytes of HTTP response head; what common servers allow for requests
MAX_FRAME: Final = 1 << 20  # bytes; a broker may put many MQTT packets into a frame, but not without end

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA  # RFC 6455 section 5.2


def handshake(host: str, path: str) -> tuple[bytes, bytes]:
    """The request that opens a WebSocket.

    Args:
        host: value of the Host header: host and, unless it is the scheme's default, port.
        path: begins with ``/``.

    Returns:
        The bytes to send, and the value that `check_response` must find.
    """
    key = base64.b64encode(os.urandom(16))
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
        "",
        "",
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return "\r\n".join(lines).encode(), accept


def check_response(head: bytes, accept: bytes) -> None:
    """Check the server's answer.

    Args:
        head: everything up to and with the empty line.
        accept: from `handshake`.

    Raises:
        BrokerError: it is no WebSocket server, or does not speak MQTT.
    """
    lines = head.split(b"\r\n")
    status = lines[0].split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
        raise BrokerError("no WebSocket there: the answer is not HTTP/1.1")
    if status[1] != b"101":
        code = status[1].decode("ascii", "replace")[:3]
        raise BrokerError(f"no WebSocket at this path: HTTP status {code} where 101 belongs")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    if fields.get(b"sec-websocket-accept") != accept:
        raise BrokerError("the WebSocket handshake was not answered by a WebSocket server")
    if fields.get(b"sec-websocket-protocol", b"mqtt").lower() not in (b"mqtt", b"mqttv3.1"):
        raise BrokerError("the WebSocket server speaks another protocol than mqtt")


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one big number (RFC 6455 section 5.3)."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class WebSocketCodec:
    """Bytes to frames and back. Feed what came; send what `feed` says."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.closed = False

    def frame(self, data: bytes, opcode: int = _BINARY) -> bytes:
        """One masked frame (clients mask, RFC 6455 section 5.1)."""
        size = len(data)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        mask = os.urandom(4)
        return head + mask + _masked(data, mask)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take in bytes.

        Returns:
            The payload that became complete, and bytes to send back (pongs, the answer to a close).

        Raises:
            BrokerError: the server breaks RFC 6455, or its frame is too long.
        """
        self._buffer += data
        payload, reply = bytearray(), bytearray()
        while not self.closed and (found := self._next()) is not None:
            opcode, content = found
            if opcode in (_BINARY, _CONTINUATION):
                payload += content
            elif opcode == _PING:
                reply += self.frame(content, _PONG)
            elif opcode == _CLOSE:
                reply += self.frame(content[:2], _CLOSE)
                self.closed = True
            elif opcode != _PONG:
                raise BrokerError(
                    f"the broker sent a WebSocket frame of kind {opcode}; MQTT uses binary ones"
                )
        return bytes(payload), bytes(reply)

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, size, start = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        if buffer[1] & 0x80 or buffer[0] & 0x70:
            raise BrokerError("the broker sent a WebSocket frame that no server may send")
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if size > (125 if opcode >= _CLOSE else MAX_FRAME):
            raise BrokerError(f"the broker sent a WebSocket frame of {size} bytes")
        if len(buffer) < start + size:
            return None
        content = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return opcode, content
