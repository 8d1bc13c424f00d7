"""Everything about secp256k1 keys that `warpgate_core.identity` is made of: one backend per file.

Three libraries do the arithmetic, and keys and signatures of all three are interchangeable
(33-byte compressed public keys, raw 64-byte ``r || s`` with low S). They are imported only when
asked for: importing one costs up to 15 ms, and two of them are extras. Rejected: one library only
(`cryptography` has no wheel for every system, `ecdsa` leaks its nonce by timing, `coincurve` is no
part of a default install).
"""

from __future__ import annotations

import functools
import importlib

from warpgate_core.errors import IdentityError
from warpgate_core.keys.base import Backend, SecretKey, TimingLeakWarning

__all__ = ["DEFAULT_BACKEND", "EXTRAS", "Backend", "SecretKey", "TimingLeakWarning", "open_backend"]

DEFAULT_BACKEND = (
    "cryptography"  # constant time, in every default install (DEPENDENCIES: 0.25 ms a signature)
)

EXTRAS = {"cryptography": "", "ecdsa": "ecdsa", "coincurve": "fast"}
"""Name of each backend, and the extra of warpgate-core that brings its library ("" for none)."""


@functools.cache
def open_backend(name: str) -> Backend:
    """Import a backend and return it.

    Args:
        name: "cryptography", "ecdsa" or "coincurve".

    Raises:
        IdentityError: no such backend, or its library is not installed (the text names the extra).
    """
    if name not in EXTRAS:
        raise IdentityError(f"there is no key backend {name!r}; choose one of {', '.join(EXTRAS)}")
    try:
        module = importlib.import_module(f"warpgate_core.keys.{name}")
    except ImportError as error:
        extra = f"[{EXTRAS[name]}]" if EXTRAS[name] else ""
        raise IdentityError(
            f"the key backend {name!r} cannot be imported ({error}); "
            f"install it with: pip install 'warpgate-core{extra}'"
        ) from error
    backend = module.BACKEND
    assert isinstance(backend, Backend)
    return backend
