"""What a TURN server's refusal means, in words (RFC 8656 section 19, RFC 8489 section 14.8)."""

from __future__ import annotations

import os

from warpgate_core import NetworkError

__all__ = ["TurnError", "explain", "system_words"]

REASONS = {
    300: "it redirects to another server, which is not followed; configure that one",
    400: "it does not understand the request",
    401: "it refuses user name and password; check them, and the secret's spelling and the clock for hmac",
    403: "it forbids this by its own rules",
    405: "it does not relay",
    420: "it does not know an attribute of the request",
    437: "it knows no such allocation, as after a restart or once it has run out",
    438: "it does not accept its own nonce",
    440: "it has no relayed addresses of this family",
    441: "the allocation belongs to another user name",
    442: "it does not relay UDP",
    443: "the peer's address is of another family than the relay's",
    446: "it does not take this connection",
    486: "this user has too many allocations there already",
    500: "it failed; try again later",
    508: "it has no free relay port or no capacity left",
}
NO_LOGIN = "it wants a user name and a password, and none is configured"


class TurnError(NetworkError):
    """A TURN server said no.

    Args:
        code: its error code, 300 to 699.
        text: the whole sentence.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def explain(code: int, said: str, *, has_login: bool = True) -> TurnError:
    """An error to raise.

    Args:
        code: the server's error code.
        said: the server's own words; only its printable part is repeated.
        has_login: whether there was a user name to log in with.
    """
    text = NO_LOGIN if code == 401 and not has_login else REASONS.get(code, "it refuses")
    words = "".join(char for char in said if char.isprintable())[:60]
    return TurnError(code, f"{text} [{code}{f' {words}' if words else ''}]")


def system_words(error: OSError) -> str:
    """What the operating system says: asyncio puts the address into the text, and is vague on the rest."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error) or type(error).__name__
