"""One search at a time per node, and not too often.

A search makes hundreds of mappings at one end's NAT and sends hundreds of packets that the other end's NAT
must drop; a NAT that is asked for that again and again may take it for an attack. The gate hangs on the
options, of which a node's registry has one object, so two nodes in a process have two gates.

Both ends must be free at once. Each reserves its gate with its section if it is free, and gives it back
unused when the other's is not. Then they wait in order: the node with the lower public key first, and only
when it has its gate the other. All nodes keep to one order, so no circle of them can wait for each other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

__all__ = ["Gate"]


class Gate:
    """See above. First come, first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._began = -math.inf
        self._free_at = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until a search may begin, as far as is known; infinite while one is under way."""
        return math.inf if self._lock.locked() else max(0.0, self._free_at - now)

    async def try_enter(self, now: float) -> bool:
        """Enter if nobody is inside or waits, and the last search was long enough ago; never waits."""
        if self._lock.locked() or now < self._free_at:
            return False
        await self._lock.acquire()  # at once, since it is free
        self._began = now
        return True

    async def enter(self, now: Callable[[], float]) -> None:
        """Wait for the turn, and then until the last search was long enough ago.

        Args:
            now: gives monotonic seconds.
        """
        await self._lock.acquire()
        try:
            pause = self._free_at - now()
            if pause > 0:
                await asyncio.sleep(pause)
        except BaseException:
            self._lock.release()
            raise
        self._began = now()

    def leave(self, *, spacing: float) -> None:
        """Let the next one in.

        Args:
            spacing: seconds from the beginning of this search to that of the next; 0 if none took place.
        """
        if spacing:
            self._free_at = self._began + spacing
        self._lock.release()
