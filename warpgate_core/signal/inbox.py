"""From opened messages to the application's handlers: in order, bounded, never in an acknowledgement's way.

Each (sender, queue) is delivered in the order of its sequence numbers by a worker of its own, so that a
slow handler delays its own queue and nothing else. What arrives too early waits a bounded time for what
is missing. When there is no room, or nobody to take it, a message is refused *before* it is
acknowledged, so the sender knows. Refused as well is what comes after its place has passed: order is a
promise.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from warpgate_core.signal.envelope import Envelope
from warpgate_core.signal.ordering import Reorder
from warpgate_core.tasks import TaskSet

__all__ = ["Handler", "Inbox"]

_LOG = logging.getLogger("warpgate.signal")

Handler = Callable[[bytes, bytes, bytes, Any], Awaitable[None] | None]

MAX_QUEUES: Final = 1_024  # (sender, queue) pairs remembered; 1 kB each
MAX_MESSAGES: Final = 1_024  # accepted and not yet handled, over all queues: 16 MiB of the largest
QUEUE_MESSAGES: Final = 256  # of one queue

Item = tuple[Envelope, object]


@dataclass(slots=True)
class _Queue:
    """One sender's queue."""

    reorder: Reorder[Item] = field(default_factory=Reorder)
    ready: deque[Item] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None
    worker: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        return len(self.ready) + len(self.reorder)

    @property
    def idle(self) -> bool:
        return self.worker is None and not self.size


class Inbox:
    """The handlers and what is on its way to them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: OrderedDict[tuple[bytes, bytes], _Queue] = OrderedDict()
        self._workers = TaskSet("message handler")
        self._size = 0
        self.handlers: set[Handler] = set()

    async def close(self) -> None:
        """Cancel the handlers that still run."""
        for queue in self._queues.values():
            if queue.timer is not None:
                queue.timer.cancel()
        self._queues.clear()
        await self._workers.close()

    def offer(self, envelope: Envelope, client: object) -> str:
        """Take a message.

        Args:
            envelope: verified, and new.
            client: handed to the handlers: the link it came by.

        Returns:
            "" if it will be handled; otherwise why not: "unhandled", "full" or "late".
        """
        if not self.handlers:
            return "unhandled"
        queue = self._queue(envelope.sender, envelope.queue)
        if queue is None or self._size >= MAX_MESSAGES or queue.size >= QUEUE_MESSAGES:
            return "full"
        item = (envelope, client)
        if envelope.sequence == 0:
            ready: list[Item] | None = [item]
        else:
            ready = queue.reorder.push(envelope.sequence, item, self._loop.time())
        if ready is None:
            return "late"
        self._size += 1
        self._pass_on(queue, ready)
        return ""

    def _queue(self, sender: bytes, name: bytes) -> _Queue | None:
        key = (sender, name)
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= MAX_QUEUES:
                idle = next((k for k, q in self._queues.items() if q.idle), None)
                if idle is None:
                    return None
                del self._queues[idle]
            queue = self._queues[key] = _Queue()
        self._queues.move_to_end(key)
        return queue

    def _pass_on(self, queue: _Queue, ready: list[Item]) -> None:
        queue.ready.extend(ready)
        if queue.ready and queue.worker is None:
            queue.worker = self._workers.start(self._work(queue), "queue")
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        deadline = queue.reorder.deadline
        if deadline is not None:
            queue.timer = self._loop.call_at(deadline, self._give_up_waiting, queue)

    def _give_up_waiting(self, queue: _Queue) -> None:
        queue.timer = None
        self._pass_on(queue, queue.reorder.skip(self._loop.time()))

    async def _work(self, queue: _Queue) -> None:
        try:
            while queue.ready:
                envelope, client = queue.ready.popleft()
                self._size -= 1
                await self._handle(envelope, client)
        finally:
            queue.worker = None

    async def _handle(self, envelope: Envelope, client: object) -> None:
        handlers = tuple(self.handlers)
        if len(handlers) == 1:
            await _call(handlers[0], envelope, client)
            return
        async with asyncio.TaskGroup() as group:
            for handler in handlers:
                group.create_task(_call(handler, envelope, client), name="message handler")


async def _call(handler: Handler, envelope: Envelope, client: object) -> None:
    try:
        result = handler(envelope.payload, envelope.sender, envelope.queue, client)
        if inspect.isawaitable(result):
            await result
    except Exception:  # noqa: BLE001 - the application's own; it must not harm the other handlers
        name = getattr(handler, "__qualname__", repr(handler))
        _LOG.exception("message handler %s failed; the message is lost to it", name)
