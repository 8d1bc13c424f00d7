"""Messages between keys: signed over everything, then sealed to the recipient.

A broker sees a topic, a length, and random-looking bytes: neither sender nor content. The recipient
checks, in this order, size, version, seal, recipient, signature and freshness; replay is checked apart
(`ReplayGuard`), because the very same bytes also travel over direct paths. Pure: no I/O, and the time
is an argument or a function given at construction. Byte by byte in docs/protocol.md.

The recipient stands inside the signature, so nobody can re-seal what was signed for him to somebody else.

Rejected: sealing with the sender's static key instead of signing (the recipient could forge messages to
himself; offers must convince a third look), JOSE/COSE (two to three times the bytes, and a parser to
attack), and signed acknowledgements: whoever computed an `AckKey` holds the ephemeral secret (the
sender himself) or the recipient's, and found the message id inside the opened, verified message.
Towards the sender that proves what a signature would prove, for 3 us instead of 500; it proves nothing
to third parties, which is no loss.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from warpgate_core.errors import EnvelopeError, IdentityError, InputError
from warpgate_core.identity import Identity, verify
from warpgate_core.keys import open_backend
from warpgate_core.signal.replay import REPLAY_CAPACITY, ReplayGuard
from warpgate_core.signal.seal import ACK_ID_SIZE, AckKey, InboundChannels, OutboundChannels, ack_key

__all__ = [
    "ACK_SIZE",
    "FRESHNESS",
    "MAX_PAYLOAD",
    "MAX_SEALED",
    "NO_QUEUE",
    "OVERHEAD",
    "REPLAY_CAPACITY",
    "Ack",
    "AckKey",
    "AckStatus",
    "Envelope",
    "EnvelopeCodec",
    "MessageType",
    "ReplayGuard",
    "Sealed",
    "ack_id_of",
    "fastest_backend",
    "is_ack",
    "open_ack",
]

VERSION: Final = 1
KIND_SEALED: Final = 1
KIND_ACK: Final = 2

SIGN_LABEL: Final = b"warpgate/1 envelope\0"
KEY: Final = 33
NONCE: Final = 12  # ChaCha20-Poly1305, RFC 8439
TAG: Final = 16
SIGNATURE: Final = 64
MESSAGE_ID: Final = 16

OUTER: Final = 2 + KEY  # version, kind, ephemeral key: the associated data
INNER: Final = struct.Struct("!B33s33s8sQQ16s")  # type .. message id
OVERHEAD: Final = OUTER + NONCE + INNER.size + SIGNATURE + TAG

# Bytes. A signal is an offer or a short message; 16 KiB leaves an offer of every strategy fifteenfold
# room, is accepted by every public broker, and bounds what a stranger makes us hold.
MAX_SEALED: Final = 16 * 1024
MAX_PAYLOAD: Final = MAX_SEALED - OVERHEAD

ACK_HEAD: Final = 2 + ACK_ID_SIZE
ACK_BODY: Final = struct.Struct("!BQ")  # status, the recipient's clock in ms
ACK_SIZE: Final = ACK_HEAD + NONCE + ACK_BODY.size + TAG

# Seconds that a stamp may differ from our clock, either way. Wide enough for a clock that nobody
# corrected for months (quartz drifts up to 2 s a day) and for a message that waited for a broker;
# Kerberos allows 300 s (RFC 4120 section 1.6). Narrower, because every accepted id must be remembered
# for twice this long.
FRESHNESS: Final = 120.0

NO_QUEUE: Final = bytes(8)
MAX_MS: Final = 1 << 53  # stamps stay exact as a double; the year 287,396


class MessageType(IntEnum):
    """What an envelope carries."""

    DATA = 1  # for the application's handlers
    ACK = 2  # an acknowledgement; never inside a seal
    CONTROL = 3  # for the engine


class AckStatus(IntEnum):
    """What the recipient says."""

    ACCEPTED = 0
    CLOCK = 1  # signed correctly, but stamped too far from the recipient's clock; nothing was delivered


@dataclass(frozen=True, slots=True)
class Envelope:
    """An opened and verified message.

    Args:
        type: `MessageType.DATA` or `CONTROL`.
        sender: 33-byte key that signed it.
        recipient: 33-byte key it is for: ours.
        queue: 8 bytes chosen by the sender; messages of one queue are delivered in order.
        sequence: number within the queue from 1; 0 stands outside of any order.
        timestamp: seconds since 1970, by the sender's clock.
        message_id: 16 random bytes.
        payload: the content.
        ack: how it is acknowledged; secret.
    """

    type: MessageType
    sender: bytes
    recipient: bytes
    queue: bytes
    sequence: int
    timestamp: float
    message_id: bytes
    payload: bytes
    ack: AckKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message ready for the wire.

    Args:
        data: the bytes to carry, as they are, over any path.
        message_id: 16 bytes, as inside.
        ack: what the acknowledgement will look like; secret.
    """

    data: bytes = field(repr=False)
    message_id: bytes
    ack: AckKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Ack:
    """An opened acknowledgement: authentic, from the recipient.

    Args:
        status: see `AckStatus`.
        clock: the recipient's clock when it wrote this, seconds since 1970.
    """

    status: AckStatus
    clock: float


def fastest_backend(default: str) -> str:
    """Name of the quickest installed key backend; `default` if coincurve is missing.

    Its signatures are the same and its arithmetic is constant-time, so no choice of the user's is lost.
    """
    try:
        return open_backend("coincurve").name
    except IdentityError:
        return default


def is_ack(data: bytes) -> bool:
    """Whether these bytes look like an acknowledgement (not that it is an authentic one)."""
    return len(data) == ACK_SIZE and data[0] == VERSION and data[1] == KIND_ACK


def ack_id_of(data: bytes) -> bytes:
    """The public name on an acknowledgement (see `is_ack`)."""
    return data[2:ACK_HEAD]


def open_ack(data: bytes, key: AckKey) -> Ack:
    """Open an acknowledgement.

    Args:
        data: what came; `is_ack` holds.
        key: from the `Sealed` it belongs to.

    Raises:
        EnvelopeError: reason ``malformed`` or ``sealed``: not written by the recipient of that message.
    """
    if not is_ack(data) or ack_id_of(data) != key.id:
        raise EnvelopeError("malformed", "not the acknowledgement of this message")
    try:
        body = _cipher(key).decrypt(
            data[ACK_HEAD : ACK_HEAD + NONCE], data[ACK_HEAD + NONCE :], data[:ACK_HEAD]
        )
        status, clock = ACK_BODY.unpack(body)
        return Ack(AckStatus(status), clock / 1000)
    except InvalidTag as error:
        raise EnvelopeError("sealed", "the acknowledgement is not from the recipient") from error
    except ValueError as error:
        raise EnvelopeError("malformed", f"unknown acknowledgement status {status}") from error


class EnvelopeCodec:
    """Seals to others and opens what is sealed to us.

    Args:
        identity: our key pair.
        get_time: seconds since 1970; stamps what we send.
        now: monotonic seconds; ages the ephemeral keys.
        backend: library that signs and verifies; by default the fastest that is installed.
    """

    def __init__(
        self,
        identity: Identity,
        get_time: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
        backend: str | None = None,
    ) -> None:
        self._backend = backend or fastest_backend(identity.backend)
        if identity.backend != self._backend:
            identity = Identity.from_secret(identity.export_secret(), self._backend)
        self._identity = identity
        self._get_time = get_time
        self._outbound = OutboundChannels(now)
        self._inbound = InboundChannels(identity, now)

    def clock(self) -> float:
        """Our clock, by which envelopes are stamped and judged: seconds since 1970."""
        return self._get_time()

    @property
    def public_key(self) -> bytes:
        """Our 33-byte key."""
        return self._identity.public_key

    def seal(
        self,
        recipient: bytes,
        payload: bytes,
        *,
        type: MessageType = MessageType.DATA,  # noqa: A002 - the field's name in the protocol
        queue: bytes = NO_QUEUE,
        sequence: int = 0,
    ) -> Sealed:
        """Sign, then seal.

        Args:
            recipient: 33-byte key.
            payload: at most `MAX_PAYLOAD` bytes.
            type: `DATA` for applications, `CONTROL` for the engine.
            queue: 8 bytes.
            sequence: 0 to 2**64 - 1; see `Envelope`.

        Raises:
            InputError: payload too long, queue of another length, sequence out of range, or type `ACK`.
            IdentityError: the recipient is no valid key.
        """
        if len(payload) > MAX_PAYLOAD:
            raise InputError(
                f"a signal carries at most {MAX_PAYLOAD} bytes, not {len(payload)}; connect a pipe for more"
            )
        if len(queue) != 8 or not 0 <= sequence < 1 << 64 or type is MessageType.ACK:
            raise InputError("a queue is 8 bytes, a sequence 0 to 2**64 - 1, a type DATA or CONTROL")
        channel = self._outbound.take(bytes(recipient))
        message_id = os.urandom(MESSAGE_ID)
        stamp = round(self._get_time() * 1000)
        head = INNER.pack(type, self.public_key, recipient, queue, sequence, stamp, message_id)
        inner = head + payload
        signature = self._identity.sign(SIGN_LABEL + inner)
        outer = bytes((VERSION, KIND_SEALED)) + channel.ephemeral
        nonce = os.urandom(NONCE)
        data = outer + nonce + channel.aead.encrypt(nonce, inner + signature, outer)
        return Sealed(data, message_id, ack_key(channel, message_id))

    def open(self, data: bytes, now: float | None = None) -> Envelope:
        """Open and verify everything except replay.

        Args:
            data: what came over the wire.
            now: seconds since 1970; by default our clock.

        Raises:
            EnvelopeError: with reason ``size``, ``version``, ``malformed``, ``sealed``, ``recipient``,
                ``signature``, ``stale`` or ``future``.
        """
        envelope = self.unseal(data)
        self.check_fresh(envelope, now)
        return envelope

    def is_cheap(self, data: bytes) -> bool:
        """Whether these bytes name an ephemeral key of which a good message came before.

        Opening them costs no key exchange. Strangers' junk is never cheap, so it can be rationed apart.
        """
        return self._inbound.known(data[2:OUTER]) is not None

    def unseal(self, data: bytes) -> Envelope:
        """As `open`, without the check for freshness."""
        _check_outer(data)
        ephemeral = data[2:OUTER]
        channel = self._inbound.known(ephemeral)
        try:
            if channel is None:
                channel = self._inbound.compute(ephemeral)
            inner = channel.aead.decrypt(data[OUTER : OUTER + NONCE], data[OUTER + NONCE :], data[:OUTER])
        except (InvalidTag, IdentityError) as error:
            raise EnvelopeError("sealed", "not sealed to this key, or damaged on the way") from error
        kind, sender, recipient, queue, sequence, stamp, message_id = INNER.unpack_from(inner)
        if kind not in (MessageType.DATA, MessageType.CONTROL):
            raise EnvelopeError("malformed", f"unknown message type {kind}")
        if recipient != self.public_key:
            raise EnvelopeError("recipient", "signed for another recipient")
        if not verify(sender, inner[-SIGNATURE:], SIGN_LABEL + inner[:-SIGNATURE], self._backend):
            raise EnvelopeError("signature", "the signature is not the sender's")
        if stamp > MAX_MS:
            raise EnvelopeError("future", "stamped beyond any calendar")
        self._inbound.keep(channel)
        return Envelope(
            type=MessageType(kind),
            sender=sender,
            recipient=recipient,
            queue=queue,
            sequence=sequence,
            timestamp=stamp / 1000,
            message_id=message_id,
            payload=inner[INNER.size : -SIGNATURE],
            ack=ack_key(channel, message_id),
        )

    def check_fresh(self, envelope: Envelope, now: float | None = None) -> None:
        """Refuse what is stamped more than `FRESHNESS` seconds from our clock.

        Raises:
            EnvelopeError: reason ``stale`` or ``future``.
        """
        age = (self._get_time() if now is None else now) - envelope.timestamp
        if math.isfinite(age) and -FRESHNESS <= age <= FRESHNESS:
            return
        reason, words = ("stale", "before") if age > 0 else ("future", "after")
        raise EnvelopeError(
            reason,
            f"stamped {abs(age):.0f} s {words} our clock; {FRESHNESS:.0f} s are allowed. "
            "One of the two clocks is wrong, or the message was held back",
        )

    def acknowledge(self, key: AckKey, status: AckStatus = AckStatus.ACCEPTED) -> bytes:
        """The acknowledgement of an opened message (its `ack`): `ACK_SIZE` bytes with our clock inside."""
        head = bytes((VERSION, KIND_ACK)) + key.id
        nonce = os.urandom(NONCE)
        body = ACK_BODY.pack(status, round(self._get_time() * 1000))
        return head + nonce + _cipher(key).encrypt(nonce, body, head)


def _cipher(key: AckKey) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(key.key)


def _check_outer(data: bytes) -> None:
    if len(data) > MAX_SEALED:
        raise EnvelopeError("size", f"{len(data)} bytes; at most {MAX_SEALED} are accepted")
    if len(data) < 2:
        raise EnvelopeError("size", "too short to be an envelope")
    if data[0] != VERSION:
        raise EnvelopeError("version", f"envelope version {data[0]}; this program speaks {VERSION}")
    if data[1] != KIND_SEALED:
        raise EnvelopeError("malformed", f"unknown kind {data[1]}")
    if len(data) < OVERHEAD:
        raise EnvelopeError("size", f"{len(data)} bytes; the smallest envelope has {OVERHEAD}")
