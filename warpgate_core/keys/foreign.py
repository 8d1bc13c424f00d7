"""Keys of other libraries, taken as they are: what kind of object holds a secret, and where.

Recognised by shape and not by type, so none of those libraries is imported, or need be installed.
Programs written for the `ecdsa`-based key pairs of aionetiface (`Signing`) and namebump (`Keypair`)
run unchanged with it.
"""

from __future__ import annotations

from warpgate_core.errors import IdentityError

__all__ = ["ACCEPTED", "public_of", "secret_of"]

ACCEPTED = (
    "an Identity, 32 secret bytes, a secp256k1 key of `ecdsa` (SigningKey), `cryptography` "
    "(EllipticCurvePrivateKey) or `coincurve` (PrivateKey), or an object that holds one of these as "
    ".private_key, .private, .privkey, .sk or .signing_key beside .public_key_hex or .vkc"
)

_HOLDERS = ("private_key", "private", "privkey", "sk", "signing_key")  # aionetiface, namebump, and near ones


def secret_of(key: object) -> bytes:
    """The 32 secret bytes of an object, whatever library it comes from.

    Args:
        key: see `ACCEPTED`.

    Raises:
        IdentityError: another kind of object, another curve, or no secret in it.
    """
    secret = _direct(key)
    if secret is not None:
        return secret
    if public_of(key) is not None:
        for name in _HOLDERS:
            secret = _direct(getattr(key, name, None))
            if secret is not None:
                return secret
        raise IdentityError(f"this {_kind(key)} holds a public key only; what is accepted: {ACCEPTED}")
    raise IdentityError(f"a {_kind(key)} is no key; what is accepted: {ACCEPTED}")


def public_of(key: object) -> str | None:
    """The public key in hex that a key pair object says it has; None if it says nothing."""
    text = getattr(key, "public_key_hex", None)
    if isinstance(text, str):
        return text.lower()
    vkc = getattr(key, "vkc", None)
    return str(vkc.hex()).lower() if vkc is not None and hasattr(vkc, "hex") else None


def _direct(key: object) -> bytes | None:
    """The secret of a key object itself, not of what it may hold."""
    if isinstance(key, bytes | bytearray | memoryview):
        return bytes(key)
    if hasattr(key, "private_numbers"):  # cryptography
        _check_curve(key)
        return int(key.private_numbers().private_value).to_bytes(32, "big")
    if hasattr(key, "sign") and hasattr(key, "to_string") and hasattr(key, "curve"):  # ecdsa
        _check_curve(key)
        return bytes(key.to_string())
    secret = getattr(key, "secret", None)
    if isinstance(secret, bytes) and hasattr(key, "sign_recoverable"):  # coincurve
        return secret
    return None


def _check_curve(key: object) -> None:
    name = getattr(getattr(key, "curve", None), "name", None)
    if not isinstance(name, str) or name.lower() != "secp256k1":
        raise IdentityError(f"this {_kind(key)} is on curve {name}; only secp256k1 keys are accepted")


def _kind(key: object) -> str:
    return f"{type(key).__module__}.{type(key).__qualname__}".removeprefix("builtins.")
