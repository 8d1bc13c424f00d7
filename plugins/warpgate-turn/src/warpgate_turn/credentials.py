"""User name and password for a server, from whatever was configured.

They exist in this process only: not in a repr, a log, a trace, or anything that is sent to the peer.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field

from warpgate_core import TurnServer

__all__ = ["HMAC_LIFETIME", "Login", "hmac_login", "static_login"]

# draft-uberti-behave-turn-rest-00 section 2.2: 24 hours. Every refresh of an allocation carries the same
# user name, so it must last as long as a pipe may; a clock that is hours off does no harm either.
HMAC_LIFETIME = 86_400


@dataclass(frozen=True, slots=True)
class Login:
    """User name and password; both None for a server that wants none.

    Args:
        username: never shown, since it may name a person.
        password: never shown.
        expires: wall clock, seconds; None if it does not.
    """

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    expires: float | None = None


def static_login(server: TurnServer) -> Login:
    """As configured."""
    return Login(server.username, server.credential)


def hmac_login(server: TurnServer, now: float) -> Login:
    """For a limited time, from a secret shared with the server (coturn's ``use-auth-secret``).

    The user name is ``expiry:label``, the password base64(HMAC-SHA1(secret, user name)):
    draft-uberti-behave-turn-rest-00 section 2.2.

    Args:
        server: its credential is the secret, its username the label, if any.
        now: wall clock, seconds.
    """
    expires = int(now) + HMAC_LIFETIME
    username = f"{expires}:{server.username}" if server.username else str(expires)
    digest = hmac.digest((server.credential or "").encode(), username.encode(), "sha1")
    return Login(username, base64.b64encode(digest).decode(), float(expires))
