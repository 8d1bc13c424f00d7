"""WebSocket framing without a socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.errors import BrokerError
from warpgate_core.signal.websocket import MAX_FRAME, WebSocketCodec, _masked, check_response, handshake


def server_frame(content: bytes, opcode: int = 2, final: int = 0x80) -> bytes:
    size = len(content)
    if size < 126:
        return bytes((final | opcode, size)) + content
    if size < 1 << 16:
        return bytes((final | opcode, 126)) + size.to_bytes(2, "big") + content
    return bytes((final | opcode, 127)) + size.to_bytes(8, "big") + content


def unmask(frame: bytes) -> tuple[int, bytes]:
    """What a server reads."""
    size, start = frame[1] & 0x7F, 2
    assert frame[1] & 0x80, "clients mask"
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(frame[2:start], "big")
    assert len(frame) == start + 4 + size
    return frame[0] & 0x0F, _masked(frame[start + 4 :], frame[start : start + 4])


def test_masking_is_rfc_6455_section_5_7() -> None:
    assert _masked(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")


@given(st.binary(max_size=300))
def test_frames_round_trip(data: bytes) -> None:
    assert unmask(WebSocketCodec().frame(data)) == (2, data)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_every_length_form(size: int) -> None:
    data = bytes(size)
    assert unmask(WebSocketCodec().frame(data)) == (2, data)
    assert WebSocketCodec().feed(server_frame(data)) == (data, b"")


@given(st.lists(st.binary(max_size=200), max_size=6), st.integers(1, 50))
def test_cut_anywhere_it_comes_out_whole(messages: list[bytes], step: int) -> None:
    wire = b"".join(map(server_frame, messages))
    codec, out = WebSocketCodec(), b""
    for start in range(0, len(wire), step):
        out += codec.feed(wire[start : start + step])[0]
    assert out == b"".join(messages)


def test_fragments_are_one_stream() -> None:
    wire = server_frame(b"ab", final=0) + server_frame(b"cd", opcode=0)
    assert WebSocketCodec().feed(wire) == (b"abcd", b"")


def test_ping_is_answered_and_pong_ignored() -> None:
    payload, reply = WebSocketCodec().feed(server_frame(b"?", 9) + server_frame(b"", 10) + server_frame(b"x"))
    assert payload == b"x"
    assert unmask(reply) == (10, b"?")


def test_close_is_answered_and_ends_it() -> None:
    codec = WebSocketCodec()
    payload, reply = codec.feed(server_frame(b"\x03\xe8bye", 8) + server_frame(b"late"))
    assert (payload, codec.closed) == (b"", True)
    assert unmask(reply) == (8, b"\x03\xe8")


@pytest.mark.parametrize(
    "wire",
    [
        b"\x82\x81aaaax",  # masked by a server
        b"\xc2\x01x",  # a reserved bit
        b"\x83\x01x",  # an opcode that does not exist
        b"\x81\x01x",  # text
        b"\x89\x7e\x00\x7e",  # a control frame of 126 bytes
        b"\x82\x7f" + (MAX_FRAME + 1).to_bytes(8, "big"),
    ],
)
def test_a_server_that_breaks_the_rules_is_refused(wire: bytes) -> None:
    with pytest.raises(BrokerError, match="broker sent"):
        WebSocketCodec().feed(wire)


@given(st.binary(max_size=100))
def test_junk_is_refused_or_waited_for(data: bytes) -> None:
    with contextlib.suppress(BrokerError):
        payload, reply = WebSocketCodec().feed(data)
        assert len(payload) + len(reply) <= 2 * len(data) + 14


class TestHandshake:
    def good(self) -> tuple[bytes, bytes]:
        request, accept = handshake("h:9001", "/mqtt")
        assert b"GET /mqtt HTTP/1.1\r\nHost: h:9001\r\n" in request
        key = next(line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))[19:]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert base64.b64encode(digest) == accept
        return request, accept

    def test_the_answer_of_a_server_is_accepted(self) -> None:
        _, accept = self.good()
        check_response(
            b"HTTP/1.1 101 Switching\r\nUPGRADE: websocket\r\nsec-websocket-accept: " + accept + b"\r\n\r\n",
            accept,
        )

    @pytest.mark.parametrize(
        ("head", "words"),
        [
            (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
            (b"\r\n\r\n", "not HTTP"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
            (b"HTTP/1.1 101 ok\r\nSec-WebSocket-Accept: wrong\r\n\r\n", "not answered by"),
        ],
    )
    def test_others_are_refused(self, head: bytes, words: str) -> None:
        with pytest.raises(BrokerError, match=words):
            check_response(head, b"right")

    def test_another_protocol_is_refused(self) -> None:
        head = b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: k\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        with pytest.raises(BrokerError, match="another protocol"):
            check_response(head, b"k")
