"""How good a line is: what it delays, loses, swaps and doubles.

A value, so that a test says in one place what its network is like. In the words of `tc netem`, which
also means that jitter swaps packets. Rejected: bandwidth and queues; no race depends on them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Line"]


@dataclass(frozen=True, slots=True)
class Line:
    """One end's access line, the same in both directions. A path adds up the lines it takes.

    Args:
        delay: seconds, one way.
        jitter: up to so many seconds more, evenly spread.
        loss: probability from 0 to 1 that a packet is lost.
        reorder: probability that a packet is held back by another `delay`, at least 1 ms.
        duplicate: probability that a packet comes twice.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0

    def sample(self, rng: random.Random) -> list[float]:
        """Delays in seconds of what becomes of one packet: none, one or two copies."""
        copies = 2 if self.duplicate and rng.random() < self.duplicate else 1
        delays = []
        for _ in range(copies):
            if self.loss and rng.random() < self.loss:
                continue
            delay = self.delay
            if self.jitter:
                delay += rng.random() * self.jitter
            if self.reorder and rng.random() < self.reorder:
                delay += max(self.delay, 0.001)
            delays.append(delay)
        return delays
