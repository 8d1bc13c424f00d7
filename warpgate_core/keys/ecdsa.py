"""Backend in pure Python through `ecdsa`, for systems that have no wheel of `cryptography`.

Its signing time depends on the secret nonce, so who can measure many signatures closely may compute
the secret key (CVE-2024-23342, "Minerva"; the authors say that it will not be fixed). The same holds
for its key exchange. Therefore it is never the default signer, and loading a secret with it emits a
`TimingLeakWarning`. Verifying handles public values only and warns of nothing. It is also the
independent oracle of our tests, since it shares no code with the other two.
"""

from __future__ import annotations

import functools
import hashlib
import warnings

import ecdsa
from ecdsa.util import sigdecode_string, sigencode_string

from warpgate_core.keys.base import Backend, SecretKey, TimingLeakWarning
from warpgate_core.keys.curve import join_low_s, split

__all__ = ["BACKEND", "EcdsaBackend"]

_PEERS_REMEMBERED = 1024  # as many as `curve` remembers
_WARNING = (
    "the key backend 'ecdsa' leaks its secret through the time that signing takes (CVE-2024-23342); "
    "use the default backend 'cryptography' wherever it can be installed"
)
_CALLER = 5  # warnings.warn -> here -> load -> Identity.from_secret -> generate/load/... -> the caller


@functools.lru_cache(maxsize=_PEERS_REMEMBERED)
def _load_public(public_key: bytes) -> ecdsa.VerifyingKey:
    return ecdsa.VerifyingKey.from_string(public_key, curve=ecdsa.SECP256k1)


class _EcdsaKey(SecretKey):
    __slots__ = ("_loaded",)

    def __init__(self, secret: bytes) -> None:
        warnings.warn(_WARNING, TimingLeakWarning, stacklevel=_CALLER)
        self._loaded = ecdsa.SigningKey.from_string(secret, curve=ecdsa.SECP256k1)
        super().__init__(secret, self._loaded.get_verifying_key().to_string("compressed"))

    def sign(self, data: bytes) -> bytes:
        # RFC 6979 nonces: a weak random generator cannot repeat one.
        raw = self._loaded.sign_deterministic(data, hashfunc=hashlib.sha256, sigencode=sigencode_string)
        return join_low_s(*split(raw))

    def exchange(self, peer_public: bytes) -> bytes:
        agreement = ecdsa.ECDH(ecdsa.SECP256k1, self._loaded, _load_public(peer_public))
        return bytes(agreement.generate_sharedsecret_bytes())


class EcdsaBackend(Backend):
    """Keys and signatures by the library `ecdsa`: slow, and its signing leaks by timing (see above)."""

    name = "ecdsa"

    def load(self, secret: bytes) -> SecretKey:
        return _EcdsaKey(secret)

    def verify(self, public_key: bytes, signature: bytes, data: bytes) -> bool:
        try:
            _load_public(public_key).verify(
                signature, data, hashfunc=hashlib.sha256, sigdecode=sigdecode_string
            )
        except ecdsa.BadSignatureError:
            return False
        return True


BACKEND = EcdsaBackend()
