"""What tests of the whole edge share: starting one, and waiting until it has learnt something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from warpgate_core.endpoint import IP4
from warpgate_core.net.edge import LocalInterface
from warpgate_core.net.system import SystemEdge

PATIENCE = 20.0  # s until a test gives up waiting for what must come by itself


class Watched:
    """An edge whose changes a test can wait for."""

    def __init__(self, edge: SystemEdge) -> None:
        self.edge = edge
        self.changes = 0
        self._changed = asyncio.Event()
        edge.on_change = self._note

    def _note(self) -> None:
        self.changes += 1
        self._changed.set()

    @property
    def face(self) -> LocalInterface:
        """The only interface."""
        (face,) = self.edge.interfaces
        return face

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a change after which `condition` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def profiled(self) -> LocalInterface:
        """The only interface, once its NAT is known."""
        async with asyncio.timeout(PATIENCE):
            await self.edge.ready_nat.wait()
        return self.face


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Watched]:
    """A started edge on 127.0.0.1, or as the options say; closed at the end."""
    options.setdefault("nics", "lo")
    options.setdefault("families", [IP4])
    edge = SystemEdge(**options)
    watched = Watched(edge)
    await edge.start()
    try:
        yield watched
    finally:
        await edge.close()
