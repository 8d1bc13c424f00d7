"""The loop whose clock jumps: exact, repeatable, and it tells what hangs and what was left behind."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.testing.loop import (
    START,
    Ambient,
    DeadlockError,
    LeakError,
    VirtualLoop,
    run_virtual,
)


def loop_of() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


# -- time ----------------------------------------------------------------------------------------


def test_an_hour_takes_no_time() -> None:
    async def main() -> float:
        began = loop_of().time()
        await asyncio.sleep(3600)
        return loop_of().time() - began

    began = time.perf_counter()
    assert run_virtual(main) == pytest.approx(3600)
    assert time.perf_counter() - began < 1


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1.0]), max_size=30))
def test_timers_run_in_order_and_never_early(delays: list[float]) -> None:
    async def main() -> None:
        loop = loop_of()
        ran: list[tuple[float, int]] = []
        for number, delay in enumerate(delays):
            due = loop.time() + delay

            def run(due: float = due, number: int = number) -> None:
                assert loop.time() >= due
                ran.append((due, number))

            loop.call_at(due, run)
        await asyncio.sleep(2)
        assert ran == sorted(ran), "by time, and in the order of asking within one instant"
        assert len(ran) == len(delays)

    run_virtual(main)


def test_a_timer_that_asks_for_now_again_and_again_does_not_stop_time() -> None:
    """Sans-I/O code answers `next_at` and is called with the time: it must never be called too early."""

    async def main() -> int:
        loop = loop_of()
        due = loop.time() + 0.1 + 0.2
        calls = 0

        def tick() -> None:
            nonlocal calls
            calls += 1
            if loop.time() < due:
                loop.call_at(due, tick)

        loop.call_at(loop.time() + 0.3, lambda: None)
        loop.call_at(due, tick)
        await asyncio.sleep(1)
        return calls

    assert run_virtual(main) == 1


def test_both_clocks_go_together() -> None:
    async def main() -> None:
        clock = loop_of().clock
        now, wall = clock.now(), clock.time()
        await asyncio.sleep(10)
        assert clock.now() - now == pytest.approx(10)
        assert clock.time() - wall == pytest.approx(10)
        assert wall > 1_600_000_000

    run_virtual(main)


def test_timeouts_and_groups_work_as_on_any_loop() -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def note(name: str, delay: float) -> None:
            await asyncio.sleep(delay)
            log.append(name)

        async def all_of_it() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(5):
                    group.create_task(note(str(number), number * 0.5))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(all_of_it(), 1.6)
        return log

    assert run_virtual(main) == ["0", "1", "2", "3"]


# -- the same seed, the same run -------------------------------------------------------------------


def _order(seed: int) -> list[str]:
    async def main() -> list[str]:
        rng = loop_of().random
        log: list[str] = []

        async def work(name: str) -> None:
            try:
                await asyncio.sleep(rng.random())
                log.append(name)
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                log.append(f"{name} cancelled")
                raise

        tasks = {asyncio.create_task(work(str(number))) for number in range(20)}
        await asyncio.sleep(0.5)
        for task in tasks:  # a set: its order depends on hashes
            task.cancel()
        await asyncio.wait(tasks)
        return log

    return run_virtual(main, seed=seed)


def test_the_same_seed_gives_the_same_run() -> None:
    padding = [object() for _ in range(1000)]  # moves what is allocated next
    first = _order(3)
    del padding
    assert _order(3) == first
    assert _order(4) != first


# -- threads -------------------------------------------------------------------------------------


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> None:
        loop = loop_of()
        began = loop.time()
        loop.call_later(0.001, log.append, "timer")
        release = threading.Event()
        loop.call_soon(release.set)

        def job() -> str:
            release.wait(5)
            return "job"

        log.append(await asyncio.to_thread(job))
        assert loop.time() - began < 0.001
        await asyncio.sleep(0.01)

    log: list[str] = []
    run_virtual(main)
    assert log == ["job", "timer"]


def test_a_thread_may_call_in() -> None:
    async def main() -> str:
        loop = loop_of()
        future = loop.create_future()
        await asyncio.to_thread(loop.call_soon_threadsafe, future.set_result, "hello")
        result: str = await future
        return result

    assert run_virtual(main) == "hello"


async def test_there_are_no_sockets() -> None:
    async def main() -> None:
        with pytest.raises(NotImplementedError):
            loop_of().add_reader(0, print)
        with pytest.raises(NotImplementedError):
            await asyncio.open_connection("127.0.0.1", 1)

    await asyncio.to_thread(run_virtual, main)


# -- what never ends -----------------------------------------------------------------------------


async def forgotten() -> None:
    await asyncio.get_running_loop().create_future()


async def spinning() -> None:
    for _ in itertools.count():
        await asyncio.sleep(0)


async def ticking() -> None:
    for _ in itertools.count():
        await asyncio.sleep(100)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (forgotten, "nothing is scheduled"),
        (spinning, "time stands still"),
        (ticking, "not done after 3600 s of virtual time"),
    ],
)
def test_what_never_ends_is_named(main: Callable[[], Coroutine[Any, Any, None]], words: str) -> None:
    with pytest.raises(DeadlockError, match=words) as caught:
        run_virtual(main, seed=7, limit=3600)
    assert f"task main at {main.__name__}" in str(caught.value)
    assert "seed 7" in str(caught.value)


# -- what is left behind ---------------------------------------------------------------------------


class Door:
    def __repr__(self) -> str:
        return "<open door>"


def left(leave: Callable[[VirtualLoop], object]) -> str:
    kept: list[object] = []

    async def main() -> None:
        kept.append(leave(loop_of()))

    with pytest.raises(LeakError) as caught:
        run_virtual(main, seed=5)
    assert "seed 5" in str(caught.value)
    assert any("after 0 s" in note for note in caught.value.__notes__)
    return str(caught.value)


def fail() -> None:
    raise RuntimeError("in a callback")


def test_leaks_are_named() -> None:
    assert "task lost" in left(lambda loop: loop.create_task(asyncio.sleep(9), name="lost"))
    assert "print()" in left(lambda loop: loop.call_later(9, print))
    assert "<open door>" in left(lambda loop: loop.track(Door()))
    assert "RuntimeError('in a callback')" in left(lambda loop: loop.call_soon(fail))


def test_what_is_no_leak() -> None:
    async def ends() -> None:
        await asyncio.sleep(0)

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        loop = loop_of()
        door = Door()
        loop.track(door)
        loop.untrack(door)
        loop.untrack(door)
        loop.call_later(9, print).cancel()
        loop.call_at(loop.time() + 9, Ambient(print))  # the world's
        loop.ending = loop.create_task(ends())  # type: ignore[attr-defined]
        async for _ in numbers():
            break

    run_virtual(main)


def test_an_error_of_main_comes_through_with_the_seed_and_leftovers_are_cancelled() -> None:
    cancelled: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            cancelled.append("yes")

    async def main() -> None:
        task = asyncio.create_task(leftover())
        await asyncio.sleep(1)
        assert not task.done()
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run_virtual(main, seed=11)
    assert caught.value.__notes__ == ["in run_virtual with seed 11, after 1 s of virtual time"]
    assert cancelled == ["yes"]


def test_it_starts_at_a_time_that_is_not_zero() -> None:
    async def main() -> float:
        return loop_of().time()

    assert run_virtual(main) == START
