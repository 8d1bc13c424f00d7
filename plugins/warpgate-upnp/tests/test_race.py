"""The race of protocols, in virtual time and without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from warpgate_core import NetworkError, ProtocolError
from warpgate_core.testing.loop import run_virtual
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.mapping import Lease, Wish
from warpgate_upnp.race import HEAD_START, Entrant, Find, Race


class Made(Client):
    """A client that was found."""

    protocol = "test"

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        raise NotImplementedError

    async def release(self, wish: Wish, held: Lease) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed = True


class Field:
    """Who takes part; remembers what was made."""

    def __init__(self) -> None:
        self.made: dict[str, Made] = {}
        self.started: dict[str, float] = {}
        self.cancelled: set[str] = set()

    def entrant(self, name: str, after: float, outcome: object = None, *, waits: bool = False) -> Entrant:
        async def find(asker: Asker, on_forgotten: Callable[[], None]) -> Client:
            self.started[name] = asyncio.get_running_loop().time()
            try:
                await asyncio.sleep(after)
            except asyncio.CancelledError:
                self.cancelled.add(name)
                raise
            if isinstance(outcome, Exception):
                raise outcome
            self.made[name] = Made(name)
            return self.made[name]

        kept: Callable[[Asker, Callable[[], None]], Awaitable[Client]] = find
        found: Find = kept
        return Entrant(found, waits=waits)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    run_virtual(scenario)  # type: ignore[arg-type]


def race(*entrants: Entrant) -> Race:
    from upnp_servers import asker

    return Race(entrants, asker(), lambda: None)


async def names(running: Race) -> list[str]:
    found = []
    while (client := await running.next()) is not None:
        assert isinstance(client, Made)
        found.append(client.name)
    return found


def test_they_come_in_the_order_in_which_they_find() -> None:
    async def scenario() -> None:
        field = Field()
        async with race(
            field.entrant("a", 0.03), field.entrant("b", 0.01), field.entrant("c", 0.02)
        ) as running:
            assert await names(running) == ["b", "c", "a"]
            assert running.problems == []
        assert not any(client.closed for client in field.made.values()), "they are the caller's"

    play(scenario)


def test_at_the_same_moment_the_preferred_one_comes_first() -> None:
    async def scenario() -> None:
        field = Field()
        async with race(field.entrant("a", 0.01), field.entrant("b", 0.01)) as running:
            assert await names(running) == ["a", "b"]

    play(scenario)


def test_the_losers_are_cancelled_or_closed() -> None:
    async def scenario() -> None:
        field = Field()
        slow = field.entrant("slow", 1.0)
        async with race(field.entrant("a", 0.01), field.entrant("b", 0.02), slow) as running:
            first = await running.next()
            await asyncio.sleep(0.05)
        assert isinstance(first, Made)
        assert not first.closed
        assert field.made["b"].closed
        assert field.cancelled == {"slow"}

    play(scenario)


def test_a_search_gives_the_others_a_head_start() -> None:
    async def scenario() -> None:
        began = asyncio.get_running_loop().time()
        field = Field()
        late = field.entrant("igd", 0.01, waits=True)
        async with race(field.entrant("pcp", 0.2), late) as running:
            assert await names(running) == ["igd", "pcp"]
        assert field.started["igd"] - began == pytest.approx(HEAD_START)

    play(scenario)


def test_the_head_start_ends_when_all_others_have_failed() -> None:
    async def scenario() -> None:
        began = asyncio.get_running_loop().time()
        field = Field()
        late = field.entrant("igd", 0.01, waits=True)
        refused = [
            field.entrant("pcp", 0.001, NetworkError("nobody there")),
            field.entrant("nat-pmp", 0.002, ProtocolError("rubbish")),
        ]
        async with race(*refused, late) as running:
            assert await names(running) == ["igd"]
            assert running.problems == ["nobody there", "rubbish"]
        assert field.started["igd"] - began == pytest.approx(0.002)

    play(scenario)


def test_alone_it_does_not_wait() -> None:
    async def scenario() -> None:
        began = asyncio.get_running_loop().time()
        field = Field()
        async with race(field.entrant("igd", 0.01, waits=True)) as running:
            assert await names(running) == ["igd"]
        assert field.started["igd"] == began

    play(scenario)


def test_it_ends_when_the_time_is_up() -> None:
    async def scenario() -> None:
        field = Field()
        began = asyncio.get_running_loop().time()
        async with race(field.entrant("a", 1_000.0)) as running:
            assert await names(running) == []
            assert "no answer within" in running.problems[0]
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
        assert field.cancelled == {"a"}

    play(scenario)


def test_a_defect_is_not_swallowed() -> None:
    async def scenario() -> None:
        field = Field()
        with pytest.raises(RuntimeError, match="a bug"):
            async with race(
                field.entrant("a", 0.01, RuntimeError("a bug")), field.entrant("b", 1.0)
            ) as running:
                await running.next()
        assert field.cancelled == {"b"}

    play(scenario)
