"""Has the router forgotten our mappings? Told by the clock that it sends with every answer.

PCP and NAT-PMP servers send the seconds since their table of mappings was empty. If that clock does not run
as ours does, the server has restarted. Pure: `now` is an argument.
"""

from __future__ import annotations

__all__ = ["NatPmpEpoch", "PcpEpoch"]


class PcpEpoch:
    """The check of RFC 6887 section 8.5."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def observe(self, epoch: int, now: float) -> bool:
        """Take an answer's epoch.

        Args:
            epoch: seconds, of the server.
            now: seconds, of any clock of ours that never jumps.

        Returns:
            Whether it fits the one before. False: the server's state is lost.
        """
        last, self._last = self._last, (epoch, now)
        if last is None:
            return True
        server = epoch - last[0]
        client = now - last[1]
        if server < -1:
            return False
        return client + 2 >= server - server / 16 and server + 2 >= client - client / 16


class NatPmpEpoch(PcpEpoch):
    """The check of RFC 6886 section 3.6: the clock may run fast, but not slower than seven eighths."""

    def observe(self, epoch: int, now: float) -> bool:
        """See `PcpEpoch.observe`."""
        last, self._last = self._last, (epoch, now)
        return last is None or epoch >= last[0] + (now - last[1]) * 7 / 8 - 2
