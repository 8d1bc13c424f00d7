"""What can go wrong with a router, in two kinds: it said no, or it said nothing that can be used.

The difference decides what happens next. Silence (a plain `NetworkError`, or the core's `ProtocolError` for
rubbish) makes us look for the router anew, since it may have come back under another port; a refusal makes
us wait, since the same question would get the same answer.
"""

from __future__ import annotations

from warpgate_core import NetworkError

__all__ = ["RefusalError"]


class RefusalError(NetworkError):
    """The router understood, and said no.

    Args:
        text: one sentence for a person.
        code: the protocol's own number for it.
        retry_after: seconds for which the answer is likely to stay the same; None if it did not say.
    """

    def __init__(self, text: str, *, code: int = 0, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.retry_after = retry_after
