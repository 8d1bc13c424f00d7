"""A wall clock that several NTP servers agreed on (RFC 5905), for stamps that other machines check.

ntplib speaks the protocol; each server is asked in a daemon thread of its own, all at once, and the
middle one of the offsets is taken, so one server that lies by a year moves nothing. With fewer than two
answers (one, if only one server is configured), or where they contradict each other, the system's own clock
is used and `reason` says why: most machines are kept in time by their system, and a wrong correction is
worse than none. The system clock itself is never touched.

The corrected time advances with the monotonic clock, so it does not jump when the system's clock is set.
Rejected: asking in the event loop's executor (see `threads`), and chrony's own protocol, which needs root.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from warpgate_core.errors import ConfigError, NetworkError
from warpgate_core.net.threads import in_thread

__all__ = ["DEFAULT_SERVERS", "NtpClock", "query_offset"]

# The pool's own names for anybody's use; four, because with three and one of them down two could
# contradict each other (RFC 8633 section 3.2)
DEFAULT_SERVERS = ("0.pool.ntp.org", "1.pool.ntp.org", "2.pool.ntp.org", "3.pool.ntp.org")
MAX_SERVERS = 8
TIMEOUT = 2.0  # s for all servers together; a round trip around the world is 0.3
MIN_ANSWERS = 2  # one server alone could move our clock anywhere
AGREEMENT = 1.0  # s between the answers that are taken together; signalling allows minutes of skew
_CLOCK_GRAIN = 0.02  # s; Windows' clock moves in steps of 16 ms
_PORT = 123  # RFC 5905 section 16


def query_offset(server: str, timeout: float) -> float:
    """Ask one server; blocks, so call it in a thread.

    Args:
        server: name or address, with ``:port`` if it is not 123.
        timeout: seconds to wait for the answer; the name lookup comes before that.

    Returns:
        Seconds that the system's clock is behind.

    Raises:
        NetworkError: no answer, or one that says the server is not in time itself.
    """
    ntplib = importlib.import_module("ntplib")
    host, sep, port = server.rpartition(":")
    if not sep or ":" in host:
        host, port = server, str(_PORT)
    asked = time.time()
    try:
        answer = ntplib.NTPClient().request(host.strip("[]"), version=4, port=port, timeout=timeout)
    except (OSError, ntplib.NTPException, UnicodeError) as error:
        raise NetworkError(f"NTP server {server}: {error}") from error
    if answer.leap == 3 or not 0 < answer.stratum < 16:  # RFC 5905 section 7.3
        raise NetworkError(f"NTP server {server} is not in time itself")
    if not asked - _CLOCK_GRAIN <= answer.orig_time <= time.time() + _CLOCK_GRAIN:
        raise NetworkError(f"NTP server {server} answered a question that we did not ask")
    return float(answer.offset)


class NtpClock:
    """`time` is the corrected time; without `sync`, or after it failed, that of the system.

    Args:
        servers: names or addresses, at most 8.
        query: asks one server, blocking; for tests and other sources of time.

    Attributes:
        offset: seconds added to the system's clock when it was last asked; 0.0 if it was not.
        is_synchronised: whether servers confirmed the time.
        reason: one sentence for people: from where the time is, or why not.
    """

    def __init__(
        self,
        servers: Sequence[str] = DEFAULT_SERVERS,
        *,
        query: Callable[[str, float], float] = query_offset,
    ) -> None:
        if isinstance(servers, str) or len(servers) > MAX_SERVERS:
            raise ConfigError(f"NTP servers are given as a list of at most {MAX_SERVERS} names")
        self._servers = tuple(servers)
        self._query = query
        self._base: float | None = None  # corrected time minus monotonic clock
        self.offset = 0.0
        self.is_synchronised = False
        self.reason = "the system's clock; no NTP server was asked yet"

    def time(self) -> float:
        """Seconds since 1970 (UTC)."""
        return time.time() if self._base is None else self._base + time.monotonic()

    async def sync(self, timeout: float = TIMEOUT) -> bool:
        """Ask all servers and take the middle of the offsets that agree.

        Args:
            timeout: seconds for all of them together; a server that hangs delays no longer than this.

        Returns:
            Whether the time is confirmed now. If not, an earlier confirmation stays in force.
        """
        if not self._servers:
            self.reason = "the system's clock; no NTP server is configured"
            return False
        tasks = [
            asyncio.create_task(in_thread(f"ntp {server}", partial(self._query, server, timeout)))
            for server in self._servers
        ]
        try:
            await asyncio.wait(tasks, timeout=timeout)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        self._apply(
            [outcome for outcome in outcomes if isinstance(outcome, float)],
            [str(outcome) for outcome in outcomes if isinstance(outcome, Exception)],
        )
        return self.is_synchronised

    def _apply(self, offsets: list[float], problems: list[str]) -> None:
        agreed = _largest_agreement(offsets)
        needed = min(MIN_ANSWERS, len(self._servers))
        if len(agreed) < needed or 2 * len(agreed) <= len(offsets):
            held = "the earlier correction" if self.is_synchronised else "the system's clock"
            if len(offsets) > 1:
                why = f"the NTP servers contradict each other by {max(offsets) - min(offsets):.1f} s"
            else:
                why = f"{len(offsets)} of {len(self._servers)} NTP servers answered, {needed} needed"
            self.reason = f"{held}; {why}" + (f" ({problems[0]})" if problems else "")
            return
        self.offset = (agreed[(len(agreed) - 1) // 2] + agreed[len(agreed) // 2]) / 2  # the median
        self._base = time.time() + self.offset - time.monotonic()
        self.is_synchronised = True
        self.reason = f"{len(agreed)} NTP servers agree; the system's clock is {-self.offset:+.3f} s off"


def _largest_agreement(offsets: list[float]) -> list[float]:
    """The largest group of offsets that lie within `AGREEMENT` of each other."""
    ordered = sorted(offsets)
    groups = [
        [offset for offset in ordered[start:] if offset - ordered[start] <= AGREEMENT]
        for start in range(len(ordered))
    ]
    return max(groups, key=len, default=[])
