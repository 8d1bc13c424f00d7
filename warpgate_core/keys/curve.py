"""secp256k1 as far as no library is needed for it: ranges, points, low S, node ids.

Checking a public key here, in a few lines on public values, means that an address can be decoded
without importing a key library, and that every backend accepts exactly the same keys. The curve has
cofactor 1, so each point on it is a valid key (SEC 1 section 3.2.2.1); 80 us, and remembered.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import secrets

from warpgate_core.errors import IdentityError

__all__ = [
    "PUBLIC_KEY_SIZE",
    "SECRET_SIZE",
    "SIGNATURE_SIZE",
    "check_public_key",
    "check_secret",
    "is_low_s",
    "is_public_key",
    "join_low_s",
    "new_secret",
    "node_id",
    "split",
]

# SEC 2 version 2, section 2.4.1: the field prime, the order of the group; y^2 = x^3 + 7.
_P = 2**256 - 2**32 - 977
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_B = 7

PUBLIC_KEY_SIZE = 33  # SEC 1 section 2.3.3: 02 or 03, then x
SECRET_SIZE = 32
SIGNATURE_SIZE = 64  # r || s, 32 bytes each

_KEYS_REMEMBERED = 1024  # peers a node may meet at a time; 33 bytes each
_NODE_ID_BYTES = 10  # 80 bits: a second key with the same id costs 2^80 tries; 16 letters can be read aloud
_NODE_ID_DOMAIN = b"warpgate node id 1\0"


def new_secret() -> bytes:
    """A fresh secret key: 32 bytes, uniform in 1..n-1, from the operating system."""
    return (1 + secrets.randbelow(_N - 1)).to_bytes(SECRET_SIZE, "big")


def check_secret(secret: bytes) -> None:
    """Refuse what is no secret key.

    Raises:
        IdentityError: not 32 bytes, zero, or not below the order of the group.
    """
    if len(secret) != SECRET_SIZE:
        raise IdentityError(f"a secret key is {SECRET_SIZE} bytes long, this one has {len(secret)}")
    if not 1 <= int.from_bytes(secret, "big") < _N:
        raise IdentityError("these 32 bytes are no secp256k1 secret key: zero, or too large")


@functools.lru_cache(maxsize=_KEYS_REMEMBERED)
def _is_point(key: bytes) -> bool:
    x = int.from_bytes(key[1:], "big")
    square = (x * x * x + _B) % _P
    return x < _P and pow(square, (_P - 1) // 2, _P) == 1  # Euler: it has a root (none is zero here)


def check_public_key(key: bytes) -> None:
    """Refuse what is no compressed public key.

    Args:
        key: supposed to be 33 bytes, 02 or 03 and the x coordinate of a point on the curve.

    Raises:
        IdentityError: wrong length, wrong first byte, or not on the curve.
    """
    if len(key) != PUBLIC_KEY_SIZE:
        raise IdentityError(
            f"a public key is {PUBLIC_KEY_SIZE} bytes long (compressed secp256k1), this one has {len(key)}"
        )
    if key[0] not in (2, 3):
        raise IdentityError(f"a compressed public key begins with 02 or 03, this one with {key[0]:02x}")
    if not _is_point(bytes(key)):
        raise IdentityError(f"{bytes(key).hex()} is no public key: not a point on secp256k1")


def is_public_key(key: bytes) -> bool:
    """As `check_public_key`, as an answer."""
    return len(key) == PUBLIC_KEY_SIZE and key[0] in (2, 3) and _is_point(bytes(key))


def split(signature: bytes) -> tuple[int, int]:
    """The two numbers r and s of a raw signature of 64 bytes."""
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def join_low_s(r: int, s: int) -> bytes:
    """The raw signature of 64 bytes, with the lower of the two equivalent values s and n - s."""
    return r.to_bytes(32, "big") + min(s, _N - s).to_bytes(32, "big")


def is_low_s(signature: bytes) -> bool:
    """Whether these are 64 bytes with r in 1..n-1 and s in 1..n/2.

    For each valid signature (r, s) there is a second one, (r, n - s), that anybody can compute.
    Refusing it makes signatures unique per signing, as BIP 62 and BIP 146 do.
    """
    if len(signature) != SIGNATURE_SIZE:
        return False
    r, s = split(signature)
    return 1 <= r < _N and 1 <= s <= _N // 2


def node_id(public_key: bytes) -> str:
    """A short id for people to compare: four groups of four letters and digits.

    80 bits of SHA-256 over a fixed text and the key, in base32 (RFC 4648 section 6, lower case).
    Never used for addressing or for trust in code: that is the public key itself.

    Args:
        public_key: 33-byte compressed public key.
    """
    digest = hashlib.sha256(_NODE_ID_DOMAIN + public_key).digest()[:_NODE_ID_BYTES]
    letters = base64.b32encode(digest).decode("ascii").lower()
    return "-".join(letters[i : i + 4] for i in range(0, len(letters), 4))
