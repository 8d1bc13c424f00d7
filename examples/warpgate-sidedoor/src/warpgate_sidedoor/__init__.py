"""A way in by the side: the responder opens one more TCP port, for this session alone."""

from __future__ import annotations

import asyncio

from warpgate_core import Attempt, Endpoint, Role, Strategy, StreamLink, register

__all__ = ["SideDoor"]


@register("sidedoor", rank=40, transports={"tcp"})
class SideDoor(Strategy):
    """Opens one more TCP port, for this session alone."""

    door: asyncio.Server | None = None

    async def contribute(self, attempt: Attempt) -> bytes:
        """Say where the door is; only the responder has one."""
        if attempt.role is Role.INITIATOR:
            return b""
        own = attempt.interfaces[0].internal.host
        loop = asyncio.get_running_loop()
        self.door = await loop.create_server(lambda: StreamLink(attempt.accept_stream), own, 0)
        return str(Endpoint.of(self.door.sockets[0].getsockname())).encode()

    async def run(self, attempt: Attempt) -> None:
        """Dial, or keep the door open; who comes in and cannot prove itself is thrown out by the core."""
        if attempt.role is Role.RESPONDER:
            await attempt.settled()
        else:
            section = await attempt.peer_section()
            await attempt.dial(Endpoint.parse(section.decode("ascii", "replace")))

    async def close(self) -> None:
        """Close the door, also if nobody ever came."""
        if self.door is not None:
            self.door.close()
