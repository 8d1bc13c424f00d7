"""Frames on a candidate path: one layout for all kinds, for streams and datagrams alike.

::

    kind 1 | length 2 | flags 1 | tag 8 | nonce 12 | echo 12 | mac 16 | name length 1 | name | envelope

`length` counts what follows it. On a stream frames follow each other; a datagram holds one frame and may
be padded behind it. `tag` names the session, `nonce` the sender's end of this path, `echo` the receiver's
nonce as far as the sender has seen it, which is what makes a proof fresh. `flags`: bit 0, the receiver shall
reply (CHECK only); bit 1 is zero; bits 2 to 7, the channel that a NOMINATE gives to a UDP pipe (see
`pipe.mux`: several pipes may share two endpoints), zero in every other kind. First bytes 0xE0 to 0xEF keep
clear of STUN (0x00-0x03), TURN channels (0x40-0x7F), DTLS and QUIC (RFC 7983).

Each value has one encoding: what a kind does not use is zero or absent, and a reader insists on it, so
that no bit of a frame can be changed unnoticed. The MAC covers everything and the transport besides: a
frame recorded from a datagram proves nothing on a stream, where one frame without an echo can be enough.
"""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, replace

from warpgate_core.errors import ProtocolError
from warpgate_core.session.keys import MAC, mac
from warpgate_core.session.wire import Reader, Writer
from warpgate_core.strategy import is_valid_name

__all__ = ["CONFIRM_SIZE", "HEADER", "MAX_FRAME", "NO_NONCE", "Frame", "FrameKind", "frame_length"]

TAG = 8
NONCE = 12
NO_NONCE = bytes(NONCE)
NO_MAC = bytes(MAC)
HEADER = 3
MAX_NAME = 24  # as in the strategy contract
MAX_ENVELOPE = 16_384  # the largest sealed envelope there is (docs/protocol.md)
_FIXED = 1 + TAG + NONCE + NONCE + MAC + 1
CONFIRM_SIZE = HEADER + _FIXED  # no other kind is as short
MAX_FRAME = HEADER + _FIXED + MAX_NAME + MAX_ENVELOPE
_WANTS_REPLY = 1
_CHANNEL_SHIFT = 2
_CHANNEL = 0xFF << _CHANNEL_SHIFT & 0xFF
# In the MAC only, never on the wire: IP protocol numbers (RFC 9293, RFC 768).
_OVER_STREAM = 6
_OVER_DATAGRAM = 17


class FrameKind(enum.IntEnum):
    """First byte of a frame. Our other first bytes belong to UDP pipes (`pipe.mux`, `pipe.consent`)."""

    OFFER = 0xE0
    ANSWER = 0xE1
    REFUSAL = 0xE2
    CHECK = 0xE3
    NOMINATE = 0xE4
    CONFIRM = 0xE5
    PROBE = 0xE6


_KINDS = frozenset(FrameKind)
_CARRIERS = frozenset((FrameKind.OFFER, FrameKind.ANSWER, FrameKind.REFUSAL))  # of an envelope
_UNKEYED = frozenset(
    (FrameKind.OFFER, FrameKind.REFUSAL, FrameKind.PROBE)
)  # made before both ends share a key
_NAMELESS = frozenset((FrameKind.REFUSAL, FrameKind.CONFIRM))
_FLAGS = {FrameKind.CHECK: _WANTS_REPLY, FrameKind.NOMINATE: _CHANNEL}
_FIRST = frozenset((FrameKind.OFFER, FrameKind.PROBE))  # made before anything of the peer's was heard
_ECHOING = frozenset((FrameKind.REFUSAL, FrameKind.NOMINATE, FrameKind.CONFIRM))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Args:
        kind: see `FrameKind`.
        tag: first eight bytes of the session id.
        nonce: the sender's nonce for this path, 12 bytes; `NO_NONCE` in a REFUSAL, whose sender has no path.
        echo: the receiver's nonce for this path, or `NO_NONCE`.
        strategy: name of the strategy that made the path, as the sender sees it; in a reply, the name in
            the frame that is answered, so that no reply is longer. Empty in REFUSAL and CONFIRM.
        wants_reply: the receiver shall answer with a CHECK of its own. Only in a CHECK.
        envelope: sealed offer, answer or refusal; else empty.
        channel: 0 to 63; in a NOMINATE over UDP, which of the pipes between these endpoints this one is.
        mac: keyed over all of it; zero where no key can be known yet (OFFER, REFUSAL).
    """

    kind: FrameKind
    tag: bytes
    nonce: bytes
    echo: bytes = NO_NONCE
    strategy: str = ""
    wants_reply: bool = False
    envelope: bytes = b""
    channel: int = 0
    mac: bytes = NO_MAC

    @property
    def _flags(self) -> int:
        return self.channel << _CHANNEL_SHIFT | (_WANTS_REPLY if self.wants_reply else 0)

    def _covered(self, *, stream: bool) -> bytes:
        over = _OVER_STREAM if stream else _OVER_DATAGRAM
        out = Writer().uint(self.kind, 1).uint(over, 1).uint(self._flags, 1)
        out.raw(self.tag).raw(self.nonce).raw(self.echo)
        return bytes(out.blob(self.strategy.encode("ascii"), 1).raw(self.envelope))

    def signed(self, key: bytes, *, stream: bool) -> Frame:
        """The same with its MAC.

        Args:
            key: of the sender's direction.
            stream: whether it goes over TCP (true) or UDP (false).
        """
        return replace(self, mac=mac(key, self._covered(stream=stream)))

    def verify(self, key: bytes, *, stream: bool) -> bool:
        """Whether the MAC is right for the transport that the frame came over, in constant time."""
        return hmac.compare_digest(self.mac, mac(key, self._covered(stream=stream)))

    def encode(self, pad_to: int = 0) -> bytes:
        """The bytes; a datagram may be padded with zeros to `pad_to` bytes."""
        body = Writer().uint(self._flags, 1)
        body.raw(self.tag).raw(self.nonce).raw(self.echo).raw(self.mac)
        body.blob(self.strategy.encode("ascii"), 1).raw(self.envelope)
        whole = bytes(Writer().uint(self.kind, 1).blob(bytes(body), 2))
        return whole.ljust(pad_to, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Frame:
        """Read one frame; what follows it in a datagram is padding.

        Raises:
            ProtocolError: not a frame, truncated, over a bound, or not in the one encoding it has.
        """
        size = frame_length(data[:HEADER])
        if len(data) < HEADER + size:
            raise ProtocolError(f"frame says {size} bytes, {len(data) - HEADER} are there")
        reader = Reader(data[HEADER : HEADER + size], "frame")
        flags = reader.uint(1, "flags")
        tag, nonce = reader.raw(TAG, "tag"), reader.raw(NONCE, "nonce")
        echo, code = reader.raw(NONCE, "echo"), reader.raw(MAC, "mac")
        name = reader.text("strategy", MAX_NAME)
        kind = FrameKind(data[0])
        wants_reply, channel = flags == _WANTS_REPLY, flags >> _CHANNEL_SHIFT
        if flags & ~_FLAGS.get(kind, 0):
            raise ProtocolError(f"{kind.name} with flags 0x{flags:02x}, which this version does not know")
        frame = cls(kind, tag, nonce, echo, name, wants_reply, reader.rest(), channel, code)
        frame._check_fields()
        return frame

    def _check_fields(self) -> None:
        """Insist that what this kind uses is there, and nothing else."""
        kind = self.kind
        rules = (
            (bool(self.envelope) == (kind in _CARRIERS), "envelope"),
            ((self.mac == NO_MAC) if kind in _UNKEYED else True, "mac"),
            (self.strategy == "" if kind in _NAMELESS else is_valid_name(self.strategy), "strategy"),
            ((self.nonce == NO_NONCE) == (kind is FrameKind.REFUSAL), "nonce"),
            (self.echo != NO_NONCE if kind in _ECHOING else True, "echo"),
            (self.echo == NO_NONCE if kind in _FIRST else True, "echo"),
        )
        for right, field in rules:
            if not right:
                raise ProtocolError(f"{kind.name}: its field {field!r} is not as this kind of frame has it")


def frame_length(header: bytes) -> int:
    """How many bytes follow the three of the header.

    Raises:
        ProtocolError: not the header of a frame, or over `MAX_FRAME`.
    """
    if len(header) < HEADER:
        raise ProtocolError("frame ends inside its header")
    if header[0] not in _KINDS:
        raise ProtocolError(f"0x{header[0]:02x} begins no frame of this protocol")
    size = int.from_bytes(header[1:3], "big")
    if not _FIXED <= size <= MAX_FRAME - HEADER:
        raise ProtocolError(f"frame of {size} bytes; from {_FIXED} to {MAX_FRAME - HEADER} are allowed")
    return size
