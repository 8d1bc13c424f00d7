"""What a backend has to offer: load a secret, sign, exchange, verify. Nothing else differs.

Secrets are made by `warpgate_core.keys.curve.new_secret`, public keys and signatures are checked
in `curve` before a backend sees them, so that the backends cannot disagree about what is valid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Backend", "SecretKey", "TimingLeakWarning"]


class TimingLeakWarning(UserWarning):
    """The chosen backend's signing time tells something about its secret (CVE-2024-23342)."""


class SecretKey(ABC):
    """One loaded secret key. Loading costs 0.1 to 0.8 ms, so it is done once and kept.

    Args:
        secret: 32 bytes, big-endian, already known to be in range.
        public_key: the 33-byte compressed public key that belongs to it.
    """

    __slots__ = ("public_key", "secret")

    def __init__(self, secret: bytes, public_key: bytes) -> None:
        self.secret = secret
        self.public_key = public_key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.public_key.hex()}>"

    @abstractmethod
    def sign(self, data: bytes) -> bytes:
        """ECDSA over SHA-256 of `data`: raw 64-byte ``r || s``, low S."""

    @abstractmethod
    def exchange(self, peer_public: bytes) -> bytes:
        """ECDH with a valid compressed public key: the 32-byte x coordinate of the shared point."""


class Backend(ABC):
    """One library that can do the arithmetic."""

    name: str

    @abstractmethod
    def load(self, secret: bytes) -> SecretKey:
        """Load a secret of 32 bytes that is in range.

        Raises:
            IdentityError: this installation of the library does not know secp256k1.
        """

    @abstractmethod
    def verify(self, public_key: bytes, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (raw, in range, low S) over `data` is of this valid compressed key."""
