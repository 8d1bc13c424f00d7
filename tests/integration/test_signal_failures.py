"""Brokers that are dead, silent, hung, flapping or gone for a while: nobody waits for them, all come back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.fixtures.brokers import BlackHole, Gate, Mosquitto, Silent, free_port
from tests.integration.signal_kit import Received, no_socket_is_left
from warpgate_core.identity import Identity
from warpgate_core.signal import inbound as inbound_module
from warpgate_core.signal import link as link_module
from warpgate_core.signal.brokers import parse_url
from warpgate_core.signal.rendezvous import rank
from warpgate_core.signal.router import Router

pytestmark = pytest.mark.broker

DELAY = 0.1  # s: what twenty dead brokers may cost


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    with no_socket_is_left():
        yield


def router(kp: Identity, handler: Any, urls: Sequence[str], **options: Any) -> Router:
    return Router(kp, handler, get_time=time.time, servers=list(urls), **options)


def identity_that_ranks_last(url: str, urls: Sequence[str]) -> Identity:
    """A key for which this broker is the last of all."""
    pool = [parse_url(one) for one in urls]
    while True:
        found = Identity.generate()
        if rank(pool, found.public_key)[-1].url == url:
            return found


def identity_with_ranking(urls: Sequence[str]) -> Identity:
    """A key whose ranking is exactly this."""
    pool = [parse_url(one) for one in urls]
    while True:
        found = Identity.generate()
        if [broker.url for broker in rank(pool, found.public_key)] == list(urls):
            return found


@asynccontextmanager
async def twenty_black_holes() -> AsyncIterator[list[str]]:
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(BlackHole())).url for _ in range(20)]


async def start_send_and_close(urls: Sequence[str], live: str) -> dict[str, float]:
    """Seconds that each step of a router's life takes; the live broker is last in everybody's ranking."""
    bob, alice, nobody = (identity_that_ranks_last(live, urls) for _ in range(3))
    times = {}
    began = time.monotonic()
    async with router(bob, Received(), urls) as listener:
        times["start until somebody listens"] = time.monotonic() - began
        assert [str(hint) for hint in listener.hints] == [live]
        one = router(alice, None, urls)
        await one.start()  # without waiting for anything
        began = time.monotonic()
        pipe = await one.pipe(bob.public_key_hex)
        assert await pipe.send(b"cold") == 4
        times["first message"] = time.monotonic() - began
        began = time.monotonic()
        assert await pipe.send(b"warm") == 4
        times["second message"] = time.monotonic() - began
        lost = await one.pipe(nobody.public_key_hex)
        began = time.monotonic()
        assert await lost.send(b"x", timeout=0.2) == 0
        times["message to nobody"] = time.monotonic() - began
        began = time.monotonic()
        await one.close()
        times["close"] = time.monotonic() - began
    return times


async def test_twenty_black_holes_beside_one_live_broker_delay_nothing() -> None:
    """Each step against the same step without them; the best of three, since the machine is shared."""
    async with Mosquitto() as live, twenty_black_holes() as dead:
        alone = [await start_send_and_close([live.url], live.url) for _ in range(3)]
        beside = [await start_send_and_close([*dead, live.url], live.url) for _ in range(3)]
        costs = {step: min(t[step] for t in beside) - min(t[step] for t in alone) for step in alone[0]}
        assert max(costs.values()) < DELAY, costs


async def test_dead_brokers_among_the_hints_cost_nothing() -> None:
    """Nobody has tried them before; the last hint lives, and is in no pool of ours."""
    bob, times = Identity.generate(), []
    async with (
        Mosquitto() as live,
        Mosquitto() as ours,
        twenty_black_holes() as dead,
        router(bob, Received(), [live.url]),
    ):
        hints = [parse_url(url).hint for url in (*dead[:7], live.url)]
        for _ in range(3):
            async with router(Identity.generate(), None, [ours.url]) as one:
                began = time.monotonic()
                pipe = await one.pipe(bob.public_key_hex, hints)
                assert await pipe.send(b"found") == 5
                times.append(time.monotonic() - began)
        assert min(times) < DELAY


async def test_a_broker_that_accepts_and_never_answers_delays_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "CONNECT_TIMEOUT", 0.3)
    received = Received()
    async with Mosquitto() as live, Silent() as silent:
        me = identity_with_ranking([silent.url, live.url])
        began = time.monotonic()
        async with router(me, received, [silent.url, live.url]) as one:
            pipe = await one.pipe(me.public_key_hex)
            assert await pipe.send(b"x") == 1
            assert time.monotonic() - began < 0.25  # before the silent one has even failed
            async with asyncio.timeout(5):
                await silent.connected.wait()
                lost = await one.pipe(Identity.generate().public_key_hex)
                while not (row := one.brokers[0]).error:
                    assert await lost.send(b"x", timeout=0.1) == 0
            assert row.name == silent.url
            assert row.error == "it accepts connections, but does not answer (waited 0.3 s)"
            assert row.latency is None


async def test_a_dead_broker_is_not_dialled_again_by_every_message() -> None:
    """It is first in the destination's order, and none of ours: only sending ever asks for it."""
    async with Mosquitto() as a, Mosquitto() as b, Mosquitto() as c, Silent() as silent:
        urls = [silent.url, a.url, b.url, c.url]
        bob, me = identity_with_ranking(urls), identity_that_ranks_last(silent.url, urls)
        async with router(bob, Received(), urls[1:]), router(me, None, urls) as one:
            before = silent.connections
            pipe = await one.pipe(bob.public_key_hex, use_cache=False)
            for _ in range(100):
                assert await pipe.send(b"x") == 1
            assert silent.connections <= before + 1


async def test_a_broker_that_dies_is_replaced_by_the_others_at_once() -> None:
    received = Received()
    async with Mosquitto() as a, Mosquitto() as b:
        bob = Identity.generate()
        urls = [a.url, b.url]
        async with router(bob, received, urls), router(Identity.generate(), None, urls) as one:
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"1") == 1
            first = received.calls[0][3].broker.port
            await (a if a.port == first else b).kill()
            began = time.monotonic()
            assert await pipe.send(b"2") == 1
            assert time.monotonic() - began < 1.5
            assert received.messages == [b"1", b"2"]


async def test_all_brokers_die_and_come_back() -> None:
    received = Received()
    async with Mosquitto() as a, Mosquitto() as b, Mosquitto() as c:
        brokers = (a, b, c)
        urls = [broker.url for broker in brokers]
        bob = Identity.generate()
        async with router(bob, received, urls) as listener, router(Identity.generate(), None, urls) as one:
            before = set(listener.hints)
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"before") == 6
            await asyncio.gather(*(broker.kill() for broker in brokers))
            assert await pipe.send(b"nobody carries this", timeout=0.3) == 0
            assert {row.state for row in one.brokers} <= {"connecting", "waiting to retry"}
            sending = asyncio.create_task(pipe.send(b"after", timeout=20))
            await asyncio.gather(*(broker.start() for broker in brokers))
            assert await sending == 5
            assert await received.get() == b"before"
            assert await received.get() == b"after"
            assert set(listener.hints) == before  # kept for life: they stand in our address


async def test_a_message_under_way_survives_the_restart_of_its_only_broker() -> None:
    received, bob = Received(), Identity.generate()
    async with (
        Mosquitto() as broker,
        router(bob, received, [broker.url]),
        router(Identity.generate(), None, [broker.url]) as one,
    ):
        pipe = await one.pipe(bob.public_key_hex)
        await broker.kill()
        sending = asyncio.create_task(pipe.send(b"patience", timeout=20))
        await asyncio.sleep(0)
        await broker.start()
        assert await sending == 8
        assert received.messages == [b"patience"]


async def test_a_hung_broker_is_found_out_by_the_first_unanswered_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGSTOP: connections stay open, the kernel takes what we send, nobody reads it."""
    monkeypatch.setattr(link_module, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(link_module, "CONNECT_TIMEOUT", 1.0)
    received, me = Received(), Identity.generate()
    async with Mosquitto() as broker, router(me, received, [broker.url]) as one:
        pipe = await one.pipe(me.public_key_hex)
        assert await pipe.send(b"warm") == 4
        await broker.pause()
        assert await pipe.send(b"unheard", timeout=3) == 0
        assert one.brokers[0].state != "up"
        assert "answer" in one.brokers[0].error
        await broker.resume()
        assert await pipe.send(b"back", timeout=20) == 4
        async with asyncio.timeout(10):
            while await received.get() != b"back":
                pass  # "unheard" may have been heard in the end


async def test_a_hung_broker_beside_a_live_one_delays_nothing() -> None:
    received, bob = Received(), Identity.generate()
    async with Mosquitto() as a, Mosquitto() as b:
        urls = [a.url, b.url]
        async with router(bob, received, urls), router(Identity.generate(), None, urls) as one:
            pipe = await one.pipe(bob.public_key_hex, use_cache=False)
            await a.pause()
            times = []
            for _ in range(5):
                began = time.monotonic()
                assert await pipe.send(b"x") == 1
                times.append(time.monotonic() - began)
            assert min(times) < DELAY


async def test_a_flapping_broker_harms_nobody_and_is_not_hammered() -> None:
    received, bob = Received(), Identity.generate()
    async with (
        Mosquitto() as good,
        Mosquitto() as behind,
        Gate(behind.host, behind.port, lifetime=0.05) as flapping,
        router(bob, received, [good.url, flapping.url]),
        router(Identity.generate(), None, [good.url, flapping.url]) as one,
    ):
        pipe = await one.pipe(bob.public_key_hex, use_cache=False)
        began, count = time.monotonic(), 0
        while flapping.connections < 4:
            assert await pipe.send(b"%d" % count) > 0
            count += 1
            if count % 50 == 0:
                async with asyncio.timeout(5):
                    await flapping.empty.wait()
        assert time.monotonic() - began > 0.25  # two ends, each with a back-off between
        async with asyncio.timeout(5):
            assert [await received.get() for _ in range(count)] == [b"%d" % n for n in range(count)]


async def test_nobody_alive_at_the_start_is_told_and_heals(caplog: pytest.LogCaptureFixture) -> None:
    received, me = Received(), Identity.generate()
    broker = Mosquitto(port=free_port())
    try:
        with caplog.at_level(logging.WARNING, "warpgate.signal"):
            began = time.monotonic()
            async with router(me, received, [broker.url]) as one:
                assert time.monotonic() - began < 1  # refused at once; nobody waits for the whole timeout
                assert "no broker is alive yet" in caplog.text
                assert "refused" in one.brokers[0].error
                assert not await one.ready(0)
                assert not one.hints
                changed = asyncio.Event()
                one.on_change = changed.set
                sending = asyncio.create_task(
                    (await one.pipe(me.public_key_hex)).send(b"at last", timeout=20)
                )
                await broker.start()
                assert await sending == 7
                async with asyncio.timeout(5):
                    await changed.wait()
                assert [hint.port for hint in one.hints] == [broker.port]
                assert await one.ready(0)
    finally:
        await broker.__aexit__(None, None, None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_the_protected_set_is_filled_up_when_one_dies_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "REFILL_AFTER", 0.2)
    async with AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(Mosquitto()) for _ in range(4)]
        urls = [broker.url for broker in brokers]
        me = identity_with_ranking(urls)
        async with router(me, Received(), urls) as one:
            assert [hint.port for hint in one.hints] == [broker.port for broker in brokers[:3]]
            changed = asyncio.Event()
            one.on_change = changed.set
            await brokers[1].kill()
            async with asyncio.timeout(10):
                await changed.wait()
            alive = {brokers[n].port for n in (0, 2, 3)}
            assert {hint.port for hint in one.hints} == alive
            protected = {row.name for row in one.brokers if row.protected}
            assert protected == set(urls)  # the dead one may come back, and stands in old addresses


async def test_a_better_broker_that_comes_late_is_added() -> None:
    async with AsyncExitStack() as stack:
        late = Mosquitto(port=free_port())
        stack.push_async_exit(late)
        others = [await stack.enter_async_context(Mosquitto()) for _ in range(3)]
        urls = [late.url, *(broker.url for broker in others)]
        me = identity_with_ranking(urls)
        async with router(me, Received(), urls) as one:
            assert {hint.port for hint in one.hints} == {broker.port for broker in others}
            changed = asyncio.Event()
            one.on_change = changed.set
            await late.start()
            one.network_changed()
            async with asyncio.timeout(10):
                await changed.wait()
            assert {row.name for row in one.brokers if row.protected} == set(urls)


async def test_a_change_of_network_ends_every_back_off() -> None:
    broker = Mosquitto(port=free_port())
    me, received = Identity.generate(), Received()
    try:
        async with router(me, received, [broker.url]) as one:
            (link,) = one._running()._links.values()
            for _ in range(20):
                link._backoff.next(0.0)  # as after a night without a network
            one.network_changed()
            came_up = asyncio.Event()
            link.watch(lambda _: came_up.set())
            await broker.start()
            one.network_changed()
            async with asyncio.timeout(5):
                await came_up.wait()
    finally:
        await broker.__aexit__(None, None, None)


async def test_only_what_is_needed_stays_connected() -> None:
    """Six brokers live; three are kept, the others were not even asked, or given up."""
    async with AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(Mosquitto()) for _ in range(6)]
        urls = [broker.url for broker in brokers]
        me = identity_with_ranking(urls)
        async with router(me, Received(), urls) as one:
            rows = {row.name: row for row in one.brokers}
            assert sum(row.protected for row in rows.values()) >= 3
            others = [rows[url].state for url in urls[3:] if not rows[url].protected]
            assert set(others) <= {"idle", "up"}  # up: it was faster than being given up
