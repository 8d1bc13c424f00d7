"""Attempts one after the other: on a virtual clock, so every time is exact."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from warpgate_core import NetworkError
from warpgate_core.testing.loop import run_virtual
from warpgate_turn.race import Race

Plan = dict[str, tuple[float, object]]  # name: seconds it takes, and its result or error


class Stage:
    """Runners that take a given time, and a diary."""

    def __init__(self, plan: Plan, starts: list[tuple[float, str]]) -> None:
        self.plan = plan
        self.began: dict[str, float] = {}
        self.cancelled: list[str] = []
        self.discarded: list[object] = []
        self.start = asyncio.get_running_loop().time()
        self.race: Race[str, object] = Race(starts, self.run, self.discard)

    def now(self) -> float:
        return round(asyncio.get_running_loop().time() - self.start, 6)

    async def run(self, name: str) -> object:
        self.began[name] = self.now()
        seconds, outcome = self.plan[name]
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def discard(self, result: object) -> None:
        self.discarded.append(result)


def play(plan: Plan, starts: list[tuple[float, str]], then: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage(plan, starts)
        try:
            await then(stage)
        finally:
            await stage.race.close()

    run_virtual(main)


STARTS = [(0.0, "a"), (0.25, "b"), (0.5, "c")]
DEAD = NetworkError("dead")


def test_the_first_success_counts_and_the_others_are_cancelled() -> None:
    async def then(stage: Stage) -> None:
        assert await stage.race.first() == "B"
        assert stage.now() == 0.35
        assert stage.began == {"a": 0.0, "b": 0.25}
        await stage.race.close()
        assert stage.cancelled == ["a"]

    play({"a": (9, "A"), "b": (0.1, "B"), "c": (0, "C")}, STARTS, then)


def test_a_failure_starts_the_next_at_once() -> None:
    async def then(stage: Stage) -> None:
        assert await stage.race.first() == "C"
        assert stage.began == {"a": 0.0, "b": 0.01, "c": 0.02}
        assert set(stage.race.failures) == {"a", "b"}

    play({"a": (0.01, DEAD), "b": (0.01, DEAD), "c": (0.01, "C")}, STARTS, then)


def test_all_failed_is_none() -> None:
    async def then(stage: Stage) -> None:
        assert await stage.race.first() is None
        assert list(stage.race.failures.values()) == [DEAD] * 3

    play(dict.fromkeys("abc", (0.01, DEAD)), STARTS, then)


def test_nobody_to_run_is_none() -> None:
    async def then(stage: Stage) -> None:
        assert await stage.race.first() is None

    play({}, [], then)


def test_signs_of_life_hold_the_others_back() -> None:
    async def then(stage: Stage) -> None:
        asyncio.get_running_loop().call_later(0.2, stage.race.hold, 0.5)
        assert await stage.race.first() == "A"
        assert stage.began == {"a": 0.0}
        assert stage.now() == 0.6

    play({"a": (0.6, "A"), "b": (0, "B"), "c": (0, "C")}, STARTS, then)


def test_a_hold_ends_with_a_failure() -> None:
    async def then(stage: Stage) -> None:
        asyncio.get_running_loop().call_later(0.1, stage.race.hold, math.inf)
        assert await stage.race.first() == "B"
        assert stage.began["b"] == 2.0

    play({"a": (2, DEAD), "b": (0.1, "B"), "c": (0, "C")}, STARTS, then)


def test_a_success_that_comes_second_is_discarded() -> None:
    async def then(stage: Stage) -> None:
        assert await stage.race.first() in ("A", "B")
        await stage.race.close()
        assert len(stage.discarded) == 1
        await stage.race.close()
        assert len(stage.discarded) == 1

    play({"a": (0.5, "A"), "b": (0.5, "B")}, [(0.0, "a"), (0.0, "b")], then)


def test_cancelling_first_leaves_the_rest_to_close() -> None:
    async def then(stage: Stage) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await stage.race.first()
        await stage.race.close()
        assert stage.cancelled == ["a"]

    play({"a": (9, "A"), "b": (9, "B"), "c": (9, "C")}, STARTS, then)


def test_a_defect_is_not_taken_for_a_failure() -> None:
    async def then(stage: Stage) -> None:
        with pytest.raises(ZeroDivisionError):
            await stage.race.first()

    play({"a": (0.1, ZeroDivisionError())}, [(0.0, "a")], then)


def test_types_are_kept() -> None:
    async def runner(number: int) -> str:
        return str(number)

    async def discard(text: str) -> None:
        raise AssertionError(text)

    make: Callable[[int], Coroutine[object, object, str]] = runner

    async def main() -> None:
        race = Race([(0.0, 7)], make, discard)
        assert await race.first() == "7"
        await race.close()

    run_virtual(main)
