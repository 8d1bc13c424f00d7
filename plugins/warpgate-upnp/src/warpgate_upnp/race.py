"""All protocols against each other: who finds a router first, and what became of the others.

PCP and NAT-PMP start at once. A UPnP search is multicast and costs the router more than all the rest
(miniupnpd stands still for 50 ms over it), so it gives them a head start, unless they have failed before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from warpgate_core import NetworkError, ProtocolError
from warpgate_upnp.client import Asker, Client

__all__ = ["HEAD_START", "Entrant", "Find", "Race"]

HEAD_START = 0.05  # s; ten times what a PCP or NAT-PMP server on a LAN takes (1 to 6 ms, measured)

Find = Callable[[Asker, Callable[[], None]], Awaitable[Client]]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One way of finding a router.

    Args:
        find: raises NetworkError or ProtocolError if there is none.
        waits: gives the others a head start.
    """

    find: Find
    waits: bool = False


class Race:
    """One round of looking for a router, as an asynchronous context manager.

    On leaving it, whoever still looks is cancelled and what was found but not asked for is closed.

    Args:
        entrants: the preferred one first: it comes first if two have found something at once.
        asker: who asks.
        on_forgotten: given to the clients.

    Attributes:
        problems: why the others found nothing, in the order in which they failed.
    """

    def __init__(self, entrants: Sequence[Entrant], asker: Asker, on_forgotten: Callable[[], None]) -> None:
        self._entrants = entrants
        self._asker = asker
        self._on_forgotten = on_forgotten
        self._tasks: list[asyncio.Task[Client | None]] = []
        self._deadline = 0.0
        self._hopes = 0  # of those that started first, how many have not failed
        self._go = asyncio.Event()  # for the others
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + self._asker.timing.find
        self._hopes = sum(not one.waits for one in self._entrants)
        if not self._hopes:
            self._go.set()
        self._tasks = [
            loop.create_task(
                (self._find_later if one.waits else self._find_first)(one.find), name="upnp: find"
            )
            for one in self._entrants
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (client := task.result()) is not None:
                await client.close()

    async def next(self) -> Client | None:
        """The next router that was found, now the caller's to close; None if there is none any more."""
        while self._tasks:
            timeout = self._deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait(
                self._tasks, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self.problems.append(f"no answer within {self._asker.timing.find:g} s")
                return None
            first = next(task for task in self._tasks if task in done)
            self._tasks.remove(first)
            if (client := first.result()) is not None:
                return client
        return None

    async def _find_first(self, find: Find) -> Client | None:
        client = await self._find(find)
        if client is None:
            self._hopes -= 1
            if not self._hopes:
                self._go.set()
        return client

    async def _find_later(self, find: Find) -> Client | None:
        with contextlib.suppress(TimeoutError):  # the head start is over
            async with asyncio.timeout(HEAD_START):
                await self._go.wait()
        return await self._find(find)

    async def _find(self, find: Find) -> Client | None:
        try:
            return await find(self._asker, self._on_forgotten)
        except (NetworkError, ProtocolError) as error:
            self.problems.append(str(error))
            return None
