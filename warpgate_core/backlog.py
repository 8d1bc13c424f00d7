"""Pipes that peers opened and nobody has accepted yet: bounded, and closed with the node."""

from __future__ import annotations

import asyncio
from collections import deque

from warpgate_core.errors import NodeClosedError
from warpgate_core.pipe import Pipe

__all__ = ["Backlog"]


class Backlog:
    """A queue of pipes.

    Args:
        limit: how many may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pipes: deque[Pipe] = deque()
        self._waiting: deque[asyncio.Future[Pipe]] = deque()
        self._refusing = False
        self._closed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pipes)

    def put(self, pipe: Pipe) -> bool:
        """Hand a pipe to whoever waits, or keep it. False: it is not taken, close it."""
        if self._refusing:
            return False
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(pipe)
                return True
        if len(self._pipes) >= self._limit:
            return False
        self._pipes.append(pipe)
        return True

    async def get(self) -> Pipe:
        """The next pipe that is still open.

        Raises:
            NodeClosedError: closed, or closed meanwhile.
        """
        while self._pipes:
            pipe = self._pipes.popleft()
            if not pipe.closed:
                return pipe
        if self._refusing:
            raise NodeClosedError("the node is closed")
        waiter: asyncio.Future[Pipe] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pipes.appendleft(waiter.result())
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def drain(self) -> list[Pipe]:
        """Take all that wait and are still open."""
        pipes = [pipe for pipe in self._pipes if not pipe.closed]
        self._pipes.clear()
        return pipes

    def refuse(self) -> None:
        """Take no more; whoever waits gets `NodeClosedError`."""
        self._refusing = True
        self._pipes.clear()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(NodeClosedError("the node is closed"))

    def close(self) -> None:
        """The node is closed."""
        self.refuse()
        self._closed.set()

    async def wait_closed(self) -> None:
        """Wait for `close`."""
        await self._closed.wait()
