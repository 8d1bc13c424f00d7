"""The session's secret: two ephemeral X25519 keys, signed over the whole transcript by the envelopes.

HKDF-SHA256 (RFC 5869) with the transcript's digest as salt and both identities in the info, so that a
section, address or key that was tampered with, or swapped between sessions, gives another secret. One
key per direction: a proof reflected to its sender does not verify.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from warpgate_core.errors import ProtocolError
from warpgate_core.strategy import Role

__all__ = ["MAC", "EphemeralKey", "SessionKeys", "derive", "mac"]

MAC = 16  # bytes of HMAC-SHA256 kept; 2^-128 per guess (RFC 2104 section 5 allows half the digest)
_INFO = b"warpgate session keys v1"


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """One MAC key per direction, 32 bytes each, and one secret for whoever builds upon a pipe.

    Args:
        initiator: authenticates what the initiator sends.
        responder: authenticates what the responder sends.
        exporter: not used yet: for what is to be bound to this very session, as RFC 9266 does for TLS.
    """

    initiator: bytes = field(repr=False)
    responder: bytes = field(repr=False)
    exporter: bytes = field(repr=False)

    def of(self, role: Role) -> bytes:
        """The key that authenticates what `role` sends."""
        return self.initiator if role is Role.INITIATOR else self.responder


def mac(key: bytes, data: bytes) -> bytes:
    """Truncated HMAC-SHA256."""
    return hmac.digest(key, data, "sha256")[:MAC]


class EphemeralKey:
    """One X25519 key pair for one session.

    Args:
        secret: 32 bytes, for test vectors only; None makes a new one.
    """

    __slots__ = ("_private", "public")

    def __init__(self, secret: bytes | None = None) -> None:
        self._private = (
            X25519PrivateKey.generate() if secret is None else X25519PrivateKey.from_private_bytes(secret)
        )
        self.public = self._private.public_key().public_bytes_raw()

    def exchange(self, peer: bytes) -> bytes:
        """The shared secret, 32 bytes.

        Raises:
            ProtocolError: a low-order key, which would make the secret known (RFC 7748 section 6.1).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise ProtocolError("the peer's ephemeral key is not a usable X25519 key") from error


def derive(shared: bytes, offer: bytes, answer: bytes, initiator: bytes, responder: bytes) -> SessionKeys:
    """Derive the session's keys.

    Args:
        shared: output of `EphemeralKey.exchange`.
        offer: the offer's payload, every byte of it.
        answer: the answer's payload, every byte of it.
        initiator: its public identity key, 33 bytes.
        responder: its public identity key, 33 bytes.
    """
    salt = hashlib.sha256(hashlib.sha256(offer).digest() + hashlib.sha256(answer).digest()).digest()
    okm = HKDF(hashes.SHA256(), 96, salt, _INFO + initiator + responder).derive(shared)
    return SessionKeys(okm[:32], okm[32:64], okm[64:])
