"""The strategy `turn`, as the core calls it."""

from __future__ import annotations

import asyncio

from warpgate_core import Attempt, Role, Strategy, Tier, register
from warpgate_turn.meeting import Meeting
from warpgate_turn.options import TurnOptions

__all__ = ["Turn"]

SOON = (
    0.010  # s that offer or answer may wait for a relay, half of what the core waits: for servers on the LAN
)


@register("turn", rank=90, transports={"udp"}, tier=Tier.RELAY, options=TurnOptions)
class Turn(Strategy):
    """Meets at a TURN relay; one is enough for both ends."""

    options: TurnOptions
    _meeting: Meeting | None = None

    async def contribute(self, attempt: Attempt) -> bytes:
        """Begin to allocate if it is this end's turn, and say what there is."""
        self._meeting = Meeting(attempt, self.options if self.options is not None else TurnOptions())
        return await self._meeting.contribute(await _known_section(attempt), SOON)

    async def run(self, attempt: Attempt) -> None:
        """Meet the peer at its relay or ours."""
        assert self._meeting is not None
        await self._meeting.run()

    async def close(self) -> None:
        """Give back what no pipe has taken over."""
        if self._meeting is not None:
            await self._meeting.close()


async def _known_section(attempt: Attempt) -> bytes | None:
    """The initiator's section, unless it follows later."""
    if attempt.role is Role.INITIATOR:
        return None
    try:
        async with asyncio.timeout(SOON / 2):
            return await attempt.peer_section()
    except TimeoutError:
        return None
