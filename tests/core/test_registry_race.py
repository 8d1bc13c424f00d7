"""Awkward plugins in a real race: the sound one wins in time, whatever the others do."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.fixtures.plugins.huge_section.awkward_huge_section import Huge
from tests.fixtures.plugins.raising_hook.awkward_raising_hook import Raising
from tests.fixtures.plugins.uncancellable.awkward_uncancellable import Stubborn
from warpgate_core.strategies.direct import Direct
from warpgate_core.strategy import Attempt, Strategy, register
from warpgate_core.testing.stage import Stage, Subject

BOTH = frozenset(("tcp", "udp"))


@register("mute", rank=1)
class Mute(Strategy):
    """Its contribution never comes, and its rank is the best of all."""

    async def contribute(self, attempt: Attempt) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def run(self, attempt: Attempt) -> None:
        raise AssertionError("never reached")


@register("raising", rank=1)
class RaisingStrategy(Strategy):
    """Raises what no strategy may."""

    async def run(self, attempt: Attempt) -> None:
        raise SystemError("broken inside")

    async def close(self) -> None:
        raise OSError("broken at the end as well")


@register("exiting", rank=1)
class Exiting(Strategy):
    """Ends the program, or tries to."""

    async def run(self, attempt: Attempt) -> None:
        sys.exit("enough")


async def connect_in_time(stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    pipe = await stage.alice.connect(stage.bob, BOTH, 10.0)
    assert pipe.strategy == "direct"
    assert loop.time() - start < 0.5  # half a dozen round trips of 40 ms; the others cost nothing
    async with asyncio.timeout(1.0):
        assert (await stage.bob.accepted.get()).strategy == "direct"


@pytest.mark.parametrize("awkward", [Huge, Mute, RaisingStrategy, Exiting], ids=lambda cls: cls.spec.name)
def test_an_awkward_strategy_costs_the_others_nothing(awkward: type[Strategy]) -> None:
    cast: list[type[Strategy]] = [Direct, awkward]
    subject = Subject(Direct)
    subject.play(connect_in_time, alice=lambda cls, diary: cast, bob=lambda cls, diary: cast)
    subject.play(connect_in_time, alice=lambda cls, diary: cast, bob=lambda cls, diary: [Direct])


def test_a_strategy_that_ignores_cancelling_does_not_hang_a_race() -> None:
    async def scenario(stage: Stage) -> None:
        Stubborn.release = asyncio.Event()
        await connect_in_time(stage)
        for actor in (stage.alice, stage.bob):
            await actor.engine.close()
            assert actor.engine.abandoned == 1
        Stubborn.release.set()
        while stage.alice.engine.abandoned or stage.bob.engine.abandoned:  # noqa: ASYNC110
            await asyncio.sleep(0)  # they end in the next rounds of the loop, now that they are let go

    cast: list[type[Strategy]] = [Direct, Stubborn]
    try:
        Subject(Direct).play(scenario, alice=lambda cls, diary: cast, bob=lambda cls, diary: cast)
    finally:
        Stubborn.release = None


def test_raising_hooks_and_a_race_do_not_know_of_each_other() -> None:
    async def scenario(stage: Stage) -> None:
        stage.alice.engine.registry.add(Raising)
        await connect_in_time(stage)
        assert stage.alice.engine.registry.call("warpgate_pipe_opened", pipe=stage.alice.pipes[0]) == []

    Subject(Direct).play(scenario)
