"""Frames on a candidate path: one layout for all kinds, for streams and datagrams alike.

::

    kind 1 | length 2 | flags 1 | tag 8 | nonce 12 | echo 12 | mac 16 | name length 1 | name | envelope

`length` counts what follows it. On a stream frames follow each other; a datagram holds one frame and may
be padded behind it. `tag` names the session, `nonce` the sender's end of this path, `echo` the receiver's
nonce as far as the sender has seen it, which is what makes a proof fresh. First bytes 0xE0 to 0xEF keep
clear of STUN (0x00-0x03), TURN channels (0x40-0x7F), DTLS and QUIC (RFC 7983).
"""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, replace

from warpgate_core.errors import ProtocolError
from warpgate_core.session.keys import mac
from warpgate_core.session.wire import Reader, Writer

__all__ = ["CONFIRM_SIZE", "HEADER", "MAX_FRAME", "NO_NONCE", "Frame", "FrameKind", "frame_length"]

TAG = 8
NONCE = 12
NO_NONCE = bytes(NONCE)
HEADER = 3
MAX_NAME = 24
MAX_ENVELOPE = 16_384
_FIXED = 1 + TAG + NONCE + NONCE + 16 + 1
CONFIRM_SIZE = HEADER + _FIXED
MAX_FRAME = HEADER + _FIXED + MAX_NAME + MAX_ENVELOPE
_WANTS_REPLY = 1


class FrameKind(enum.IntEnum):
    """First byte of a frame or of a datagram on a UDP pipe."""

    OFFER = 0xE0
    ANSWER = 0xE1
    REFUSAL = 0xE2
    CHECK = 0xE3
    NOMINATE = 0xE4
    CONFIRM = 0xE5
    DATA = 0xE6
    CONSENT_REQUEST = 0xE7
    CONSENT_RESPONSE = 0xE8
    CLOSE = 0xE9


_PROOF_KINDS = frozenset(
    (
        FrameKind.OFFER,
        FrameKind.ANSWER,
        FrameKind.REFUSAL,
        FrameKind.CHECK,
        FrameKind.NOMINATE,
        FrameKind.CONFIRM,
    )
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Args:
        kind: one of OFFER, ANSWER, REFUSAL, CHECK, NOMINATE, CONFIRM.
        tag: first eight bytes of the session id.
        nonce: the sender's nonce for this path, 12 bytes.
        echo: the receiver's nonce for this path, or `NO_NONCE`.
        strategy: name of the strategy that made the path, as the sender sees it.
        wants_reply: the receiver shall answer with a CHECK of its own.
        envelope: sealed offer, answer or refusal; else empty.
        mac: keyed over all of it; zero where no key can be known yet (OFFER, REFUSAL).
    """

    kind: FrameKind
    tag: bytes
    nonce: bytes
    echo: bytes = NO_NONCE
    strategy: str = ""
    wants_reply: bool = False
    envelope: bytes = b""
    mac: bytes = bytes(16)

    def _covered(self) -> bytes:
        name = self.strategy.encode("ascii")
        head = bytes((self.kind, _WANTS_REPLY if self.wants_reply else 0))
        return b"".join((head, self.tag, self.nonce, self.echo, bytes((len(name),)), name, self.envelope))

    def signed(self, key: bytes) -> Frame:
        """The same with its MAC by `key`."""
        return replace(self, mac=mac(key, self._covered()))

    def verify(self, key: bytes) -> bool:
        """Whether the MAC is right, in constant time."""
        return hmac.compare_digest(self.mac, mac(key, self._covered()))

    def encode(self, pad_to: int = 0) -> bytes:
        """The bytes; a datagram may be padded with zeros to `pad_to` bytes."""
        body = Writer().uint(_WANTS_REPLY if self.wants_reply else 0, 1)
        body.raw(self.tag).raw(self.nonce).raw(self.echo).raw(self.mac)
        body.blob(self.strategy.encode("ascii"), 1).raw(self.envelope)
        data = bytes(body)
        whole = bytes((self.kind,)) + len(data).to_bytes(2, "big") + data
        return whole.ljust(pad_to, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Frame:
        """Read one frame; what follows it in a datagram is padding.

        Raises:
            ProtocolError: not a frame, truncated, or over a bound.
        """
        size = frame_length(data[:HEADER])
        if len(data) < HEADER + size:
            raise ProtocolError(f"frame says {size} bytes, {max(0, len(data) - HEADER)} are there")
        reader = Reader(data[HEADER : HEADER + size], "frame")
        flags = reader.uint(1, "flags")
        tag, nonce = reader.raw(TAG, "tag"), reader.raw(NONCE, "nonce")
        echo, code = reader.raw(NONCE, "echo"), reader.raw(16, "mac")
        name = reader.text("strategy", MAX_NAME)
        kind = FrameKind(data[0])
        return cls(kind, tag, nonce, echo, name, bool(flags & _WANTS_REPLY), reader.rest(), code)


def frame_length(header: bytes) -> int:
    """How many bytes follow the three of the header.

    Raises:
        ProtocolError: not the header of a proof frame, or over `MAX_FRAME`.
    """
    if len(header) < HEADER:
        raise ProtocolError("frame ends inside its header")
    if header[0] not in _PROOF_KINDS:
        raise ProtocolError(f"0x{header[0]:02x} begins no frame of this protocol")
    size = int.from_bytes(header[1:3], "big")
    if not _FIXED <= size <= MAX_FRAME - HEADER:
        raise ProtocolError(f"frame of {size} bytes; from {_FIXED} to {MAX_FRAME - HEADER} are allowed")
    return size
