"""Time as an argument: a monotonic clock for waits, a wall clock for stamps.

Protocol code never asks for the time; it is handed `now`. What asks is here. An NTP-corrected wall
clock is in `warpgate_core.net.ntp`, a virtual one in `warpgate_core.testing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(frozen=True, slots=True)
class Clock:
    """The two times a node needs.

    Args:
        now: seconds on a clock that never jumps; must be the running event loop's own time.
        time: seconds since 1970 (UTC), corrected if one likes.
    """

    now: Callable[[], float] = time.monotonic
    time: Callable[[], float] = time.time
