"""A set of tasks that ends with its owner.

Like `asyncio.TaskGroup`, but it may be opened in one task and closed in another (a node lives in the
application's code, not in one block of ours), and a task that fails does not take the owner down: the
failure is logged with its traceback, since a task of ours that raises is a defect to be seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["TaskSet", "cancel_within", "finish"]

_LOG = logging.getLogger("warpgate")


class TaskSet:
    """Tasks that are cancelled and awaited by `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task. After `close` the coroutine is closed and RuntimeError raised."""
        if self._closed:
            coro.close()
            raise RuntimeError(f"{self._name} is closed")
        task = asyncio.get_running_loop().create_task(coro, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s failed", task.get_name(), exc_info=task.exception())

    def disown(self, task: asyncio.Task[Any]) -> None:
        """Let go of a task that will not end; somebody else looks after it."""
        self._tasks.discard(task)

    async def close(self) -> None:
        """Cancel all and wait until they have ended. May be called from one of them."""
        self._closed = True
        current = asyncio.current_task()
        tasks = {task for task in self._tasks if task is not current}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def cancel_within(tasks: set[asyncio.Task[Any]], grace: float) -> set[asyncio.Task[Any]]:
    """Cancel tasks and wait for them, but no longer than `grace` seconds.

    Returns:
        Those that are still running: they ignored the cancellation.
    """
    for task in tasks:
        task.cancel()
    if not tasks:
        return set()
    _, pending = await asyncio.wait(tasks, timeout=grace)
    return pending


async def finish(coro: Coroutine[Any, Any, None]) -> None:
    """Await to its end what releases things, though the caller be cancelled meanwhile.

    The cancellation is raised again afterwards. For coroutines that end by themselves within a bound.
    """
    task = asyncio.get_running_loop().create_task(coro)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled():
        task.result()
        raise cancelled
    task.result()
