"""Holding mappings, in virtual time: asked, published, renewed, doubted, lost, given back."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from upnp_servers import asker

from warpgate_core import Endpoint, LocalInterface, NetworkError
from warpgate_core.testing.loop import run_virtual
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.holder import FINISH_ASKING, GIVE_BACK, Holder
from warpgate_upnp.mapping import Lease, Wish
from warpgate_upnp.race import Entrant
from warpgate_upnp.status import sentences, status_of

INSIDE = Endpoint("192.168.1.2", 4000)
ROUTER = "25.1.1.1"
FACE = LocalInterface(0, "eth0", INSIDE, external=Endpoint(ROUTER, 9), prefix=24)


class Context:
    """Of a node: what is published, and when that changed."""

    def __init__(self) -> None:
        self.address: dict[str, Endpoint] = {}
        self.history: list[tuple[float, str, str]] = []

    def publish(self, internal: Endpoint, external: Endpoint, transport: str) -> None:
        assert internal == INSIDE
        self.address[transport] = external
        self._note(transport, str(external))

    def withdraw(self, internal: Endpoint, transport: str) -> None:
        del self.address[transport]
        self._note(transport, "")

    def _note(self, transport: str, what: str) -> None:
        self.history.append((asyncio.get_running_loop().time(), transport, what))


class Router:
    """A router whose moods a test sets.

    Attributes:
        external: its address.
        life: seconds of a lease.
        delay: seconds that each answer takes.
        mood: transport to what it answers with instead of a lease.
        is_there: whether it is found, and answers.
        table: what it maps.
        asked: (seconds since the start, transport) of each request.
    """

    def __init__(self, protocol: str = "PCP") -> None:
        self.protocol = protocol
        self.external = ROUTER
        self.life = 600.0
        self.delay = 0.01
        self.mood: dict[str, Exception] = {}
        self.is_there = True
        self.table: dict[str, Endpoint] = {}
        self.asked: list[tuple[float, str]] = []
        self.found = 0
        self.closed = 0
        self.began = asyncio.get_running_loop().time()

    def entrant(self) -> Entrant:
        async def find(who: Asker, on_forgotten: Callable[[], None]) -> Client:
            await asyncio.sleep(self.delay)
            self.found += 1
            if not self.is_there:
                raise NetworkError(f"no {self.protocol} here")
            return _Asked(self)

        return Entrant(find)


class _Asked(Client):
    def __init__(self, router: Router) -> None:
        self.router = router
        self.protocol = router.protocol  # type: ignore[misc]
        self.open = True

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        router = self.router
        router.asked.append((asyncio.get_running_loop().time() - router.began, wish.transport))
        assert self.open
        await asyncio.sleep(router.delay)
        if not router.is_there:
            raise NetworkError("the router does not answer")
        if wish.transport in router.mood:
            raise router.mood[wish.transport]
        router.table[wish.transport] = Endpoint(router.external, 4000)
        return Lease(router.protocol, router.table[wish.transport], router.life)

    async def release(self, wish: Wish, held: Lease) -> None:
        assert self.open
        await asyncio.sleep(self.router.delay)
        del self.router.table[wish.transport]

    async def close(self) -> None:
        self.open = False
        self.router.closed += 1


@dataclasses.dataclass
class Scene:
    """A holder at work."""

    context: Context
    holder: Holder
    task: asyncio.Task[None]

    @property
    def said(self) -> str:
        now = asyncio.get_running_loop().time()
        return "; ".join(sentences(status_of(self.holder, m, now) for m in self.holder.mappings))

    async def end(self) -> float:
        """Cancel it; how long that took, in seconds."""
        began = asyncio.get_running_loop().time()
        self.task.cancel()
        await asyncio.wait({self.task})
        return asyncio.get_running_loop().time() - began


@asynccontextmanager
async def holding(*routers: Router, face: LocalInterface = FACE) -> AsyncIterator[Scene]:
    """A holder with these ways to find a router, ended at the end."""
    context = Context()
    who = asker("192.168.1.1", INSIDE)
    entrants = [router.entrant() for router in routers]
    holder = Holder(context, face, who, entrants, listen=False)  # type: ignore[arg-type]
    scene = Scene(context, holder, asyncio.create_task(holder.run()))
    try:
        yield scene
    finally:
        await scene.end()
    assert context.address == {}, "what is given back is not published"
    if not scene.task.cancelled():
        scene.task.result()


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    run_virtual(scenario)  # type: ignore[arg-type]


BOTH = {"udp": Endpoint(ROUTER, 4000), "tcp": Endpoint(ROUTER, 4000)}


def test_asked_published_renewed_and_given_back() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            assert scene.context.address == BOTH
            assert "reached at 25.1.1.1:4000, by PCP" in scene.said
            await asyncio.sleep(2_000)
            assert scene.context.address == BOTH
            assert len(scene.context.history) == 2, "a renewal changes nothing"
        for transport in ("udp", "tcp"):
            times = [time for time, kind in router.asked if kind == transport]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert len(gaps) >= 5
            assert all(300 <= gap <= 376 for gap in gaps), gaps
        assert router.table == {}
        assert (router.found, router.closed) == (1, 1)

    play(scenario)


def test_a_router_that_comes_back_under_another_port_is_found_again() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            router.is_there = False
            await asyncio.sleep(400)
            assert scene.context.address == BOTH, "until it runs out the mapping is there"
            assert "not renewed yet" in scene.said
            router.is_there = True
            await asyncio.sleep(150)
            assert scene.context.address == BOTH
            assert "not renewed" not in scene.said
            assert router.found >= 2

    play(scenario)


def test_a_router_that_is_gone_for_good() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            router.is_there = False
            await asyncio.sleep(620)
            assert scene.context.address == {}
            assert "no port mapping for udp and tcp" in scene.said
            ended = scene.context.history[-1][0] - router.began
            assert ended == pytest.approx(600, abs=12)
            before = router.found
            await asyncio.sleep(40_000)
            assert router.found - before < 30, "half an hour apart"
            router.is_there = True
            scene.holder._announced(False)
            await asyncio.sleep(0.1)
            assert scene.context.address == BOTH, "its announcement is enough"

    play(scenario)


def test_a_restart_is_answered_at_once() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            await asyncio.sleep(100)
            router.table.clear()
            scene.holder._announced(True)
            await asyncio.sleep(0.1)
            assert set(router.table) == {"udp", "tcp"}
            assert len(scene.context.history) == 2, "the address never changed"

    play(scenario)


def test_a_goodbye_and_then_silence_withdraws_at_once() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            await asyncio.sleep(100)
            router.is_there = False
            scene.holder._announced(True)
            await asyncio.sleep(0.1)
            assert scene.context.address == {}
            router.is_there = True
            scene.holder._announced(False)
            await asyncio.sleep(2.1)
            assert scene.context.address == BOTH

    play(scenario)


def test_a_protocol_that_is_refused_leaves_it_to_the_next() -> None:
    async def scenario() -> None:
        pcp, igd = Router("PCP"), Router("UPnP")
        igd.delay = 0.05
        pcp.mood = dict.fromkeys(("udp", "tcp"), RefusalError("not allowed", retry_after=1_000.0))
        async with holding(pcp, igd) as scene:
            await scene.holder.answered.wait()
            assert scene.context.address == BOTH
            assert "by UPnP" in scene.said
            assert pcp.closed == 1

    play(scenario)


def test_all_refused() -> None:
    async def scenario() -> None:
        router, other = Router("PCP"), Router("UPnP")
        other.is_there = False
        refusal = RefusalError("its owner does not allow it", retry_after=1_000.0)
        router.mood = dict.fromkeys(("udp", "tcp"), refusal)
        async with holding(router, other) as scene:
            await scene.holder.answered.wait()
            assert scene.context.address == {}
            assert "udp and tcp 192.168.1.2:4000" in scene.said
            assert "its owner does not allow it" in scene.said
            asked = len(router.asked)
            scene.holder._announced(False)
            await asyncio.sleep(900)
            assert len(router.asked) == asked, "it said for how long"
            await asyncio.sleep(200)
            assert len(router.asked) > asked

    play(scenario)


def test_one_of_two_is_better_than_none() -> None:
    async def scenario() -> None:
        router = Router()
        router.mood["tcp"] = RefusalError("the port is taken")
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            assert set(scene.context.address) == {"udp"}
            assert "no port mapping for tcp 192.168.1.2:4000" in scene.said
            router.mood.clear()
            await asyncio.sleep(40)
            assert scene.context.address == BOTH

    play(scenario)


@pytest.mark.parametrize("external", ["10.0.0.7", "25.7.7.7"])
def test_behind_another_nat_nothing_is_published_and_nothing_left(external: str) -> None:
    async def scenario() -> None:
        router = Router()
        router.external = external
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            await asyncio.sleep(0.1)
            assert scene.context.history == []
            assert router.table == {}
            assert external in scene.said
            assert ROUTER in scene.said
            scene.holder._announced(False)
            await asyncio.sleep(600)
            assert len(router.asked) == 2
            scene.holder.changed(dataclasses.replace(FACE, external=Endpoint(external, 9)))
            await asyncio.sleep(3)
            assert scene.context.address["udp"] == Endpoint(external, 4000), "now STUN says the same"

    play(scenario)


def test_stun_that_answers_late_corrects_what_was_published() -> None:
    async def scenario() -> None:
        router = Router()
        face = dataclasses.replace(FACE, external=None)
        async with holding(router, face=face) as scene:
            await scene.holder.answered.wait()
            assert scene.context.address == BOTH, "a public address is believed until something is known"
            scene.holder.changed(dataclasses.replace(FACE, external=Endpoint("198.51.100.9", 1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert scene.context.address == {}, "at once"
            await asyncio.sleep(5)
            assert scene.context.address == {}
            assert router.table == {}

    play(scenario)


def test_a_new_external_address_is_followed() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            await asyncio.sleep(100)
            router.external = "25.2.2.2"
            scene.holder.changed(dataclasses.replace(FACE, external=Endpoint("25.2.2.2", 77)))
            await asyncio.sleep(0.1)
            assert scene.context.address == dict.fromkeys(("udp", "tcp"), Endpoint("25.2.2.2", 4000))

    play(scenario)


def test_a_change_of_the_mapped_port_alone_is_no_reason() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            for port in range(50):
                scene.holder.changed(dataclasses.replace(FACE, external=Endpoint(ROUTER, 1_000 + port)))
                await asyncio.sleep(1)
            assert len(router.asked) == 2

    play(scenario)


def test_a_request_under_way_at_the_end_is_given_back_as_well() -> None:
    async def scenario() -> None:
        router = Router()
        router.delay = 0.2
        async with holding(router) as scene:
            await asyncio.sleep(0.3)  # found after 0.2 s, mapped after 0.4 s
            assert len(router.asked) == 2
            assert router.table == {}
            took = await scene.end()
            assert router.table == {}
            assert took == pytest.approx(0.1 + 0.2)
        assert scene.context.history == []
        assert router.closed == 1

    play(scenario)


def test_a_router_that_hangs_holds_nobody_up() -> None:
    async def scenario() -> None:
        router = Router()
        async with holding(router) as scene:
            await scene.holder.answered.wait()
            router.delay = 1_000.0
            assert await scene.end() == pytest.approx(GIVE_BACK)
        router = Router()
        async with holding(router) as scene:
            await asyncio.sleep(0.015)
            router.delay = 1_000.0
            scene.holder._forgotten()
            await asyncio.sleep(10)
            assert await scene.end() <= FINISH_ASKING + GIVE_BACK + 1e-6

    play(scenario)


def test_cancelled_while_it_looks_it_leaves_at_once() -> None:
    async def scenario() -> None:
        router = Router()
        router.delay = 1.0
        async with holding(router) as scene:
            await asyncio.sleep(0.5)
            assert await scene.end() == 0.0
        assert router.asked == []

    play(scenario)


def test_what_another_protocol_made_is_not_deleted_by_the_wrong_one() -> None:
    async def scenario() -> None:
        pcp, igd = Router("PCP"), Router("UPnP")
        igd.delay = 0.05
        async with holding(pcp, igd) as scene:
            await scene.holder.answered.wait()
            pcp.is_there = False
            igd.mood["tcp"] = RefusalError("no")
            await asyncio.sleep(450)
            assert set(igd.table) == {"udp"}
            assert scene.context.address == BOTH, "tcp is still held by what PCP made"
        assert igd.table == {}
        assert set(pcp.table) == {"udp", "tcp"}, "these run out"

    play(scenario)
