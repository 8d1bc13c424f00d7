"""Five brokers killed, hung and restarted at random under traffic: once, in order, and nobody notices."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack

import pytest

from tests.fixtures.brokers import BlackHole, Mosquitto, Silent
from tests.integration.signal_kit import no_socket_is_left
from warpgate_core.identity import Identity
from warpgate_core.signal.router import Router
from warpgate_core.signal.smart_pipe import SmartPipe

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SECONDS = 5.0


class Traffic:
    """Numbers sent over pipes between routers, and what arrived of them."""

    def __init__(self, until: float) -> None:
        self._until = until
        self.arrived: dict[bytes, list[int]] = defaultdict(list)  # by queue, which is random per pipe
        self.acknowledged: dict[bytes, set[int]] = defaultdict(set)
        self.failed = 0

    def handle(self, msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        self.arrived[queue_id].append(int(msg))

    async def send(self, pipe: SmartPipe, rng: random.Random) -> None:
        number = 0
        while time.monotonic() < self._until:
            number += 1
            if await pipe.send(b"%d" % number, timeout=4):
                self.acknowledged[pipe.queue].add(number)
            else:
                self.failed += 1
            await asyncio.sleep(rng.random() * 0.02)


async def chaos(brokers: list[Mosquitto], until: float, rng: random.Random) -> None:
    """Always leaves two of them alive."""
    down: list[Mosquitto] = []
    while time.monotonic() < until:
        await asyncio.sleep(rng.random() * 0.4)
        victim = rng.choice(brokers)
        if victim in down:
            await victim.start()
            down.remove(victim)
        elif rng.random() < 0.3 and not down:
            await victim.pause()
            await asyncio.sleep(rng.random() * 0.5)
            await victim.resume()
        elif rng.random() < 0.5 and len(down) < 2:
            await victim.kill()
            down.append(victim)
        else:
            await victim.restart()


@pytest.mark.parametrize("seed", [1])
async def test_every_acknowledged_message_is_handled_once_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    until = time.monotonic() + SECONDS
    traffic = Traffic(until)
    with no_socket_is_left():
        async with AsyncExitStack() as stack:
            brokers = [await stack.enter_async_context(Mosquitto()) for _ in range(5)]
            hole = await stack.enter_async_context(BlackHole())
            silent = await stack.enter_async_context(Silent())
            urls = [*(broker.url for broker in brokers), hole.url, silent.url]
            routers = [
                await stack.enter_async_context(
                    Router(Identity.generate(), traffic.handle, time.time, None, urls)
                )
                for _ in range(3)
            ]
            pipes = [
                await a.pipe(b.identity.public_key, b.hints if rng.random() < 0.5 else None)
                for a in routers
                for b in routers
                if a is not b
            ]
            await asyncio.gather(
                chaos(brokers, until, rng), *(traffic.send(pipe, random.Random(seed)) for pipe in pipes)
            )
    for queue, numbers in traffic.arrived.items():
        assert numbers == sorted(set(numbers))
        assert traffic.acknowledged[queue] <= set(numbers)
    total = sum(map(len, traffic.acknowledged.values()))
    assert total > 200
    assert traffic.failed <= total // 100
    assert silent.connections < 20
