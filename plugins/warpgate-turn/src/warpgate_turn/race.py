"""Several attempts at the same thing, one after the other with little patience; the first success counts.

As Happy Eyeballs (RFC 8305 section 5): the next attempt starts when the one before has failed, or been
silent for its time. Rejected: starting all at once (as many half-made allocations as there are servers), and
`asyncio.wait` in the caller (what a loser has opened must be released although nobody waits for it).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from warpgate_core import WarpgateError

__all__ = ["Race"]

T = TypeVar("T")
R = TypeVar("R")


class Race(Generic[T, R]):
    """One race.

    Args:
        starts: when each runner starts, in seconds, ascending.
        run: makes the result of one runner; releases what it holds when it fails or is cancelled.
        discard: releases a result that came second.

    Attributes:
        failures: why each of those failed that did.
    """

    def __init__(
        self,
        starts: Iterable[tuple[float, T]],
        run: Callable[[T], Coroutine[Any, Any, R]],
        discard: Callable[[R], Awaitable[None]],
    ) -> None:
        self._queue = list(starts)
        self._run = run
        self._discard = discard
        self._tasks: dict[asyncio.Task[R], T] = {}
        self._next_at = 0.0
        self.failures: dict[T, Exception] = {}

    def hold(self, seconds: float) -> None:
        """Somebody shows signs of life: start nobody else for so long, unless somebody fails."""
        self._next_at = max(self._next_at, asyncio.get_running_loop().time() + seconds)

    async def first(self) -> R | None:
        """Wait for the first success, which is the caller's from then on. Call `close` in any case.

        Returns:
            None if everybody has failed; see `failures`.
        """
        loop = asyncio.get_running_loop()
        self._next_at = loop.time()
        while self._queue or self._tasks:
            while self._queue and loop.time() >= self._next_at:
                self._start_next(loop.time())
            wait = self._next_at - loop.time()
            pause = max(0.0, wait) if self._queue and wait < math.inf else None
            done, _ = await asyncio.wait(self._tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if self._failed(task):
                    self._next_at = loop.time()
                else:
                    del self._tasks[task]
                    return task.result()
        return None

    def _start_next(self, now: float) -> None:
        when, runner = self._queue.pop(0)
        self._tasks[asyncio.get_running_loop().create_task(self._run(runner), name=str(runner))] = runner
        self._next_at = now + (self._queue[0][0] - when if self._queue else 0.0)

    def _failed(self, task: asyncio.Task[R]) -> bool:
        """Whether a runner that has ended has failed; its error is kept. A defect is raised."""
        error = task.exception()
        if error is None:
            return False
        runner = self._tasks.pop(task)
        if not isinstance(error, WarpgateError):
            raise error
        self.failures[runner] = error
        return True

    async def close(self) -> None:
        """Cancel who still runs, and release what came second; bounded by what a runner needs for that."""
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
            task, _ = self._tasks.popitem()
            if not task.cancelled() and task.exception() is None:
                await self._discard(task.result())
