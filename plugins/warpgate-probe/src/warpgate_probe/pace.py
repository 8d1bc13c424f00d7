"""When probes are sent: pure, time is an argument.

In small batches, because a timer of 5 ms would wake a phone 200 times a second; and never faster than the
rate: what a busy machine was late with is not caught up with.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BATCH", "Pace"]

LENIENCE = 0.25  # of a pause: how late a timer may be without a new timetable
BATCH = 10  # datagrams of 61 bytes, every 50 ms at 200 a second


@dataclass(slots=True)
class Pace:
    """The timetable of one search.

    Args:
        rate: probes per second.
        left: how many may still be sent.
    """

    rate: float
    left: int
    next_at: float | None = None

    def take(self, now: float) -> int:
        """How many to send now; 0 if it is too early, or all are sent."""
        if self.left == 0 or (self.next_at is not None and now < self.next_at):
            return 0
        count = min(BATCH, self.left, max(1, int(self.rate)))
        self.left -= count
        interval = count / self.rate
        late = 0.0 if self.next_at is None else now - self.next_at
        # A timer that is a little late must not slow the search down; a busy machine must not speed it up.
        self.next_at = now + interval - (late if late < LENIENCE * interval else 0.0)
        return count

    def pause(self, now: float) -> float:
        """Seconds until the next batch."""
        return max(0.0, self.next_at - now) if self.next_at is not None else 0.0
