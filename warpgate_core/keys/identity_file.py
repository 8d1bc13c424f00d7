"""What stands in the identity file: four lines, of which each byte is checked.

The public key is written beside the secret it follows from, and only exactly these lines are
accepted, so that any damage shows. Rejected: PKCS8 PEM (its redundancy is not checked on loading: a
flipped bit gives another valid key), and a password (a node must start by itself; the mode of the
file protects it, as with an ssh host key).
"""

from __future__ import annotations

import re

from warpgate_core.errors import IdentityError

__all__ = ["VERSION", "parse", "render"]

VERSION = 1

_REMARK = "# Secret. Whoever has this file is this node. Keep a backup, and run it on one machine only."
_HEAD = re.compile(rb"warpgate-identity ([0-9]{1,6})\n")
_WHOLE = re.compile(
    rf"warpgate-identity {VERSION}\n{re.escape(_REMARK)}\n"
    r"public: ([0-9a-f]{66})\nsecret: ([0-9a-f]{64})\n".encode("ascii")
)


def render(public_key: bytes, secret: bytes) -> bytes:
    """The content of the file for this key pair."""
    text = f"warpgate-identity {VERSION}\n{_REMARK}\npublic: {public_key.hex()}\nsecret: {secret.hex()}\n"
    return text.encode("ascii")


def parse(data: bytes) -> tuple[bytes, bytes]:
    """The public key and the secret in a file; that they belong together is for the caller to check.

    Raises:
        IdentityError: damaged, or of another version; the caller adds the name of the file.
    """
    head = _HEAD.match(data)
    if head is not None and int(head[1]) != VERSION:
        raise IdentityError(
            f"written by a newer program (version {int(head[1])}, this one reads {VERSION}); upgrade, "
            "or set WARPGATE_HOME to another directory"
        )
    whole = _WHOLE.fullmatch(data)
    if whole is None:
        raise IdentityError("damaged, not the four lines it should be" if data else "empty")
    return bytes.fromhex(whole[1].decode("ascii")), bytes.fromhex(whole[2].decode("ascii"))
