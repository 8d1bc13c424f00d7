"""A reset that comes after the peer's orderly end, when the event loop does not read any more."""

from __future__ import annotations

import asyncio

from tests.core.links import loopback_links
from warpgate_core.errors import PeerLostError
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.tcp import reset


async def _ended_then_reset(left: StreamLink, right: StreamLink) -> None:
    left.write_eof()
    assert await right.read_some() == b""
    reset(left)
    await left.wait_closed()


async def test_closing_such_a_connection_raises_nothing() -> None:
    async with loopback_links() as (left, right):
        await _ended_then_reset(left, right)
        async with asyncio.timeout(1):
            await right.finish(5, 5)
        assert right.is_lost


async def test_ending_our_direction_of_such_a_connection_breaks_it() -> None:
    async with loopback_links() as (left, right):
        await _ended_then_reset(left, right)
        right.write_eof()
        await right.wait_closed()
        assert isinstance(right.error, PeerLostError)
