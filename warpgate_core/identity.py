"""Who a node is: one secp256k1 key pair, kept in one file.

This curve because the keys of programs written for the earlier Warpgate are on it. The arithmetic is
done by one of three libraries (`warpgate_core.keys`), chosen by name. Rejected: Ed25519 (faster, but
such programs would lose their keys), and an identity per run (peers would need a new address each time).

`load`, `load_or_create` and `save` do small synchronous file operations, and loading a key computes
for up to a millisecond: call them in a thread from async code, as the node does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from warpgate_core.errors import IdentityError
from warpgate_core.keys import (
    DEFAULT_BACKEND,
    EXTRAS,
    SecretKey,
    TimingLeakWarning,
    identity_file,
    open_backend,
)
from warpgate_core.keys.curve import (
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    check_public_key,
    check_secret,
    is_low_s,
    is_public_key,
    new_secret,
    node_id,
)
from warpgate_core.keys.foreign import public_of, secret_of
from warpgate_core.keys.private_file import create_private, read_private

__all__ = [
    "BACKENDS",
    "PUBLIC_KEY_SIZE",
    "SIGNATURE_SIZE",
    "Identity",
    "TimingLeakWarning",
    "check_public_key",
    "default_home",
    "node_id",
    "verify",
]

BACKENDS = tuple(EXTRAS)
"""Names of the key backends: "cryptography" (default), "ecdsa", "coincurve"."""

_FILE_NAME = "identity"
_LEFT_ALONE = (
    "The file was left as it is; restore it from a backup, or move it away to get a new identity "
    "(peers then need the new address)"
)


def default_home() -> Path:
    """The directory for identity and caches: ``WARPGATE_HOME``, else the user's data directory."""
    home = os.environ.get("WARPGATE_HOME", "")
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs  # 18 ms, and not needed by who passes an identity

    return platformdirs.user_data_path("warpgate", appauthor=False)


def verify(public_key: bytes, signature: bytes, data: bytes, backend: str = DEFAULT_BACKEND) -> bool:
    """Whether `signature` is the key's own over SHA-256 of `data`. High S is refused.

    Args:
        public_key: 33 bytes, compressed.
        signature: 64 bytes, raw ``r || s``.
        data: the signed bytes, any length.
        backend: which library computes it.

    Returns:
        False also for a key or a signature that is malformed: bad bytes never raise.

    Raises:
        IdentityError: the backend does not exist or is not installed.
    """
    library = open_backend(backend)
    if not (is_public_key(public_key) and is_low_s(signature)):
        return False
    return library.verify(bytes(public_key), bytes(signature), bytes(data))


class Identity:
    """A loaded key pair. Make one with `generate`, `from_secret`, `of`, `load` or `load_or_create`.

    Immutable; equal to another one with the same public key. Its `repr` shows no secret.
    """

    __slots__ = ("_backend", "_key")

    def __init__(self, key: SecretKey, backend: str) -> None:
        self._key = key
        self._backend = backend

    @classmethod
    def generate(cls, backend: str = DEFAULT_BACKEND) -> Self:
        """A new identity, not kept anywhere until `save` is called."""
        return cls.from_secret(new_secret(), backend)

    @classmethod
    def from_secret(cls, secret: bytes, backend: str = DEFAULT_BACKEND) -> Self:
        """From 32 secret bytes (big-endian).

        Args:
            secret: 32 bytes, as a number between 1 and the order of the curve.
            backend: "cryptography", "ecdsa" or "coincurve". With "ecdsa" a `TimingLeakWarning` is
                emitted: its signing time leaks the secret (CVE-2024-23342).

        Raises:
            IdentityError: not such a number, or the backend is not installed.
        """
        check_secret(secret)
        return cls(open_backend(backend).load(bytes(secret)), backend)

    @classmethod
    def of(cls, key: object, backend: str = DEFAULT_BACKEND) -> Identity:
        """From whatever holds a secp256k1 secret key (see `warpgate_core.keys.foreign.ACCEPTED`).

        An `Identity` is returned as it is. For everything else the secret is loaded by `backend`,
        whatever library the object came from: an `ecdsa` key does not sign with `ecdsa`.

        Raises:
            IdentityError: another curve, no secret in it, another kind of object (the text says what
                is accepted), or a key pair whose public half is not that of its secret half.
        """
        if isinstance(key, Identity):
            return key
        identity = cls.from_secret(secret_of(key), backend)
        claimed = public_of(key)
        if claimed is not None and claimed != identity.public_key_hex:
            raise IdentityError(
                f"the two halves of this key pair do not belong together: public {claimed}, "
                f"but its secret key has {identity.public_key_hex}"
            )
        return identity

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, backend: str = DEFAULT_BACKEND) -> Self:
        """Read the identity file.

        Args:
            path: the file; by default ``identity`` in `default_home`.
            backend: which library is to hold the key.

        Raises:
            IdentityError: there is none, it is open to others, damaged, of a newer version, or
                cannot be read. The file is never changed.
        """
        file = _file(path)
        try:
            return cls._open(file, backend)
        except FileNotFoundError as error:
            raise IdentityError(
                f"there is no identity at {file}; Identity.load_or_create() or `warpgate id` makes one"
            ) from error

    @classmethod
    def load_or_create(
        cls, path: str | os.PathLike[str] | None = None, backend: str = DEFAULT_BACKEND
    ) -> Self:
        """Read the identity file, or make it if there is none.

        Two processes that do this at once end with the same identity.

        Raises:
            IdentityError: as `load`; or the file cannot be written.
        """
        file = _file(path)
        try:
            return cls._open(file, backend)
        except FileNotFoundError:
            identity = cls.generate(backend)
        try:
            create_private(file, identity_file.render(identity.public_key, identity.export_secret()))
        except FileExistsError:  # another process was faster
            return cls.load(file, backend)
        return identity

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write a new identity file, mode 0600, all of it or nothing.

        Returns:
            The path of the file.

        Raises:
            IdentityError: a file is there already (it is left alone), or cannot be written.
        """
        file = _file(path)
        try:
            create_private(file, identity_file.render(self.public_key, self._key.secret))
        except FileExistsError as error:
            raise IdentityError(
                f"{file} exists and is not overwritten; move it away, or save to another path"
            ) from error
        return file

    @property
    def public_key(self) -> bytes:
        """33 bytes, compressed: what peers know this node by."""
        return self._key.public_key

    @property
    def public_key_hex(self) -> str:
        """The public key as 66 hex characters."""
        return self._key.public_key.hex()

    @property
    def node_id(self) -> str:
        """Short id for people to compare, see `node_id`."""
        return node_id(self._key.public_key)

    @property
    def backend(self) -> str:
        """Name of the library that computes: "cryptography", "ecdsa" or "coincurve"."""
        return self._backend

    def sign(self, data: bytes) -> bytes:
        """ECDSA over SHA-256 of `data`.

        Returns:
            64 bytes, raw ``r || s``, low S. Two signatures of the same data may differ.
        """
        return self._key.sign(data)

    def exchange(self, peer_public: bytes) -> bytes:
        """Elliptic-curve Diffie-Hellman (SEC 1 section 3.3.1).

        Args:
            peer_public: 33 bytes, compressed.

        Returns:
            The x coordinate of the shared point, 32 bytes. Not uniform: put it through HKDF.

        Raises:
            IdentityError: no valid public key.
        """
        check_public_key(peer_public)
        return self._key.exchange(bytes(peer_public))

    def verify(self, public_key: bytes, signature: bytes, data: bytes) -> bool:
        """As the function `verify`, computed by this identity's own backend."""
        return verify(public_key, signature, data, self._backend)

    def export_secret(self) -> bytes:
        """The 32 secret bytes, for `from_secret` elsewhere. Whoever has them is this node."""
        return self._key.secret

    @classmethod
    def _open(cls, file: Path, backend: str) -> Self:
        """Read a file that may be missing (FileNotFoundError) but not damaged (IdentityError)."""
        data = read_private(file)
        try:
            public_key, secret = identity_file.parse(data)
            check_secret(secret)
        except IdentityError as error:
            raise IdentityError(f"{file}: {error}. {_LEFT_ALONE}") from error
        identity = cls.from_secret(secret, backend)
        if identity.public_key != public_key:
            raise IdentityError(f"{file}: damaged, its two keys do not belong together. {_LEFT_ALONE}")
        return identity

    def __repr__(self) -> str:
        return f"<Identity {self.node_id} ({self._backend})>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.public_key == self.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)


def _file(path: str | os.PathLike[str] | None) -> Path:
    return default_home() / _FILE_NAME if path is None else Path(path)
