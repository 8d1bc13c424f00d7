"""What peers' clocks say against ours: learnt from acknowledgements, told in words.

Wrong clocks look like lost messages, because stale ones are dropped. So every acknowledgement carries the
recipient's clock, and a difference is reported as what it is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

__all__ = ["SKEW_NOTICE", "SkewTable", "in_words"]

_LOG = logging.getLogger("warpgate.signal")

SKEW_NOTICE: Final = 10.0  # s; far above what a round trip blurs, far below what is refused (120 s)
PEERS: Final = 1_024  # remembered

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def in_words(skew: float) -> str:
    """For people: "1 h ahead of ours", "35 s behind ours".

    Args:
        skew: seconds that the other clock is ahead.
    """
    size = abs(skew)
    for seconds, unit in _UNITS:
        if size >= seconds:
            amount = f"{size / seconds:.1f}".removesuffix(".0")
            return f"{amount} {unit} {'ahead of' if skew > 0 else 'behind'} ours"
    return "the same as ours"


class SkewTable:
    """The clocks of the peers we heard of last."""

    def __init__(self) -> None:
        self._skews: OrderedDict[bytes, float] = OrderedDict()

    def get(self, peer: bytes) -> float | None:
        """Seconds that this peer's clock is ahead of ours; None if unknown."""
        return self._skews.get(peer)

    def note(self, peer: bytes, skew: float, error: float) -> None:
        """A measurement.

        Args:
            peer: 33-byte key.
            skew: seconds ahead of ours.
            error: seconds that it may be off.
        """
        before = self._skews.get(peer)
        self._skews[peer] = skew
        self._skews.move_to_end(peer)
        if len(self._skews) > PEERS:
            self._skews.popitem(last=False)
        told = before is not None and abs(before) > SKEW_NOTICE
        if abs(skew) - error > SKEW_NOTICE and not told:
            _LOG.warning(
                "the clock of peer %s is %s (within %.1f s); one of the two is wrong. "
                "Beyond 120 s messages are refused",
                peer.hex()[:12],
                in_words(skew),
                error,
            )
