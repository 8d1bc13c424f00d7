"""When to try again: back-off for brokers, retransmission for messages. Pure: the time is an argument."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Backoff", "RoundTrip", "TokenBucket"]

BACKOFF_FIRST: Final = 0.5  # s; a broker that restarts is back in less (mosquitto: 60 ms, measured)
BACKOFF_LIMIT: Final = 60.0  # s; what paho and mosquitto's bridges use as well is 30 to 120
STABLE: Final = 30.0  # s connected, after which earlier failures are forgotten

INITIAL_TIMEOUT: Final = 1.0  # s before anything is measured (RFC 6298 section 2.1)
LEAST_TIMEOUT: Final = (
    0.2  # s; below, a busy recipient would be asked twice (RFC 6298 says 1 s, Linux uses 0.2)
)
MOST_TIMEOUT: Final = 3.0  # s; a delivery lasts 5 s by default


class Backoff:
    """Exponential back-off with jitter, so that a fleet does not return to a restarted broker at once.

    A connection only counts as recovered once it has lasted: a broker that disconnects every second is
    failing, although each single connection succeeds.

    Args:
        jitter: source of randomness.
    """

    def __init__(self, jitter: random.Random) -> None:
        self._jitter = jitter
        self._failures = 0
        self._since: float | None = None

    def connected(self, now: float) -> None:
        """A connection was established."""
        self._since = now

    def next(self, now: float) -> float:
        """It failed, or was lost: seconds to wait before the next attempt."""
        if self._since is not None and now - self._since >= STABLE:
            self._failures = 0
        self._since = None
        ceiling = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)  # 2**16 is beyond the limit anyway
        return self._jitter.uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0


class RoundTrip:
    """How long to wait for an acknowledgement before sending again (RFC 6298)."""

    __slots__ = ("_deviation", "_guess", "smoothed")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self._deviation = 0.0
        self._guess = INITIAL_TIMEOUT

    def guess(self, latency: float) -> None:
        """Before anything is measured: the broker itself answers in `latency` seconds.

        The recipient's way to the broker is unknown; as long as four times ours, and a busy moment, are
        allowed.
        """
        self._guess = min(INITIAL_TIMEOUT, LEAST_TIMEOUT + 5 * latency)

    def add(self, seconds: float) -> None:
        """One measured round trip. Only of messages that were sent once (Karn's algorithm)."""
        if self.smoothed is None:
            self.smoothed, self._deviation = seconds, seconds / 2
            return
        self._deviation = 0.75 * self._deviation + 0.25 * abs(self.smoothed - seconds)
        self.smoothed = 0.875 * self.smoothed + 0.125 * seconds

    def timeout(self, attempt: int = 0) -> float:
        """Seconds to wait after the given attempt, from 0; doubled with each."""
        base = self._guess if self.smoothed is None else self.smoothed + 4 * self._deviation
        return min(MOST_TIMEOUT, max(LEAST_TIMEOUT, base) * 2.0 ** min(attempt, 8))


class TokenBucket:
    """A bound on how often something dear is done.

    Args:
        rate: per second, in the long run.
        burst: at once, after a quiet time.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Whether it may be done now; if so it counts as done."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
