"""The keys under which envelopes and acknowledgements travel, and how long each lives.

One elliptic-curve exchange is dear (0.1 ms and more), so a sender keeps one ephemeral key per recipient
for a while, and a recipient remembers what the ephemeral keys it saw were worth. Both tables are
bounded.

    shared = x coordinate of ECDH(ephemeral, recipient)                       32 bytes
    okm    = HKDF-SHA256(ikm=shared, salt=none, info=label || ephemeral || recipient)   64 bytes (RFC 5869)
    seal key = okm[:32]     ack root = okm[32:]

Nonces are 96 random bits. A key seals at most 65,536 messages, so the chance that any nonce of it
repeats is below 2**-64 (birthday bound: 2**31 pairs of 2**96 values; RFC 8439 section 4 wants them unique).
Rejected: a counter, which repeats when a process is forked or a virtual machine is restored from a
snapshot.

Rejected as well: a fresh ephemeral key per message (0.2 ms more at each end, and nothing gained: the
recipient's key is static either way, so whoever steals it reads all, and what the broker could link by the
key it links already by the connection), and the static-static secret (no ephemeral at all: then one
stolen *sender* key would open the past too).
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from warpgate_core.identity import Identity

__all__ = ["ACK_ID_SIZE", "AckKey", "Channel", "InboundChannels", "OutboundChannels", "ack_key", "derive"]

SEAL_LABEL: Final = b"warpgate/1 seal"
ACK_LABEL: Final = b"warpgate/1 ack"
ACK_ID_SIZE: Final = 16

EPHEMERAL_LIFETIME: Final = 600.0  # s; as long as an idle broker connection lives (seed 000)
EPHEMERAL_MESSAGES: Final = 65_536  # see above
OUTBOUND_LIMIT: Final = 256  # recipients talked to at a time; 1 kB each
INBOUND_LIMIT: Final = 1_024  # ephemeral keys remembered; 1 kB each
INBOUND_LIFETIME: Final = EPHEMERAL_LIFETIME + 300.0  # and the freshness window on both sides, rounded up


@dataclass(frozen=True, slots=True)
class AckKey:
    """How one message is acknowledged: the public name of the acknowledgement and its secret key.

    Args:
        id: 16 bytes that stand openly on the acknowledgement; unlinkable to the message for others.
        key: 32 bytes, known to who sealed the message and to who could open it.
    """

    id: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"<AckKey {self.id.hex()}>"


@dataclass(slots=True)
class Channel:
    """What one ephemeral key and one recipient share.

    Args:
        ephemeral: 33-byte public key.
        aead: the cipher, under the seal key.
        ack_root: 32 bytes, from which each message's `AckKey` is derived.
        expires: monotonic seconds.
        left: messages that may still be sealed.
    """

    ephemeral: bytes
    aead: ChaCha20Poly1305
    ack_root: bytes
    expires: float
    left: int = EPHEMERAL_MESSAGES

    def __repr__(self) -> str:
        return f"<Channel {self.ephemeral.hex()}>"


def derive(own: Identity, other: bytes, ephemeral: bytes, recipient: bytes, expires: float) -> Channel:
    """The channel of an ephemeral key and a recipient, computed by whichever end we are.

    Args:
        own: holder of the secret half that we have: the ephemeral key, or the recipient's.
        other: the public half of the other one.
        ephemeral: public ephemeral key.
        recipient: public key of the recipient.
        expires: monotonic seconds.

    Raises:
        IdentityError: `other` is no valid key.
    """
    info = SEAL_LABEL + ephemeral + recipient
    okm = HKDF(SHA256(), length=64, salt=None, info=info).derive(own.exchange(other))
    return Channel(ephemeral, ChaCha20Poly1305(okm[:32]), okm[32:], expires)


def ack_key(channel: Channel, message_id: bytes) -> AckKey:
    """The acknowledgement's name and key: HMAC-SHA-512(ack root, label || message id), cut in two."""
    block = hmac.digest(channel.ack_root, ACK_LABEL + message_id, "sha512")
    return AckKey(block[:ACK_ID_SIZE], block[ACK_ID_SIZE : ACK_ID_SIZE + 32])


V = TypeVar("V")


class _Bounded(Generic[V]):
    """A table that forgets what was used longest ago."""

    __slots__ = ("_limit", "_table")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._table: OrderedDict[bytes, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: bytes) -> V | None:
        value = self._table.get(key)
        if value is not None:
            self._table.move_to_end(key)
        return value

    def put(self, key: bytes, value: V) -> None:
        self._table[key] = value
        self._table.move_to_end(key)
        if len(self._table) > self._limit:
            self._table.popitem(last=False)

    def drop(self, key: bytes) -> None:
        self._table.pop(key, None)


class OutboundChannels:
    """The sender's side: one ephemeral key per recipient, for a bounded time and number of messages.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._table: _Bounded[Channel] = _Bounded(OUTBOUND_LIMIT)

    def take(self, recipient: bytes) -> Channel:
        """The channel for one more message to `recipient`.

        Raises:
            IdentityError: the recipient is no valid key.
        """
        channel = self._table.get(recipient)
        if channel is None or channel.left <= 0 or channel.expires <= self._now():
            own = Identity.generate()
            channel = derive(own, recipient, own.public_key, recipient, self._now() + EPHEMERAL_LIFETIME)
            self._table.put(recipient, channel)
        channel.left -= 1
        return channel


class InboundChannels:
    """The recipient's side: what known ephemeral keys are worth.

    Only a channel that carried a correctly signed message is kept (`keep`), so that junk pushes nothing
    out.

    Args:
        identity: the recipient.
        now: monotonic seconds.
    """

    def __init__(self, identity: Identity, now: Callable[[], float]) -> None:
        self._identity = identity
        self._now = now
        self._table: _Bounded[Channel] = _Bounded(INBOUND_LIMIT)

    def known(self, ephemeral: bytes) -> Channel | None:
        """The remembered channel of an ephemeral key, if there is one that still lives."""
        channel = self._table.get(ephemeral)
        if channel is not None and channel.expires <= self._now():
            self._table.drop(ephemeral)
            return None
        return channel

    def compute(self, ephemeral: bytes) -> Channel:
        """The channel of an ephemeral key that is new to us; not kept yet.

        Raises:
            IdentityError: the key is no valid one.
        """
        me = self._identity
        return derive(me, ephemeral, ephemeral, me.public_key, self._now() + INBOUND_LIFETIME)

    def keep(self, channel: Channel) -> None:
        """Remember a channel that proved itself."""
        if channel.left == EPHEMERAL_MESSAGES:  # new: `left` counts what came in over it
            self._table.put(channel.ephemeral, channel)
        channel.left -= 1
