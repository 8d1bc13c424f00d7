"""Sets of tasks that end with their owner."""

from __future__ import annotations

import asyncio
import logging

import pytest

from warpgate_core.tasks import TaskSet, cancel_within


class Worker:
    """Runs until it is cancelled, and then as long as it is told to."""

    def __init__(self, *, stubborn: int = 0) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = 0
        self._stubborn = stubborn

    async def run(self) -> None:
        self.started.set()
        while True:
            try:
                await self.release.wait()
                return
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self._stubborn:
                    raise


async def test_close_cancels_all_and_waits_for_them() -> None:
    tasks, workers = TaskSet("owner"), [Worker(stubborn=n) for n in (0, 0, 0)]
    started = [tasks.start(worker.run(), f"w{n}") for n, worker in enumerate(workers)]
    for worker in workers:
        await worker.started.wait()
    assert len(tasks) == 3
    await tasks.close()
    assert all(task.cancelled() for task in started)
    assert [worker.cancelled for worker in workers] == [1, 1, 1]
    assert len(tasks) == 0


async def test_close_waits_for_cleaning_up() -> None:
    tasks, cleaned = TaskSet("owner"), asyncio.Event()

    async def careful() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.set()

    tasks.start(careful(), "careful")
    await asyncio.sleep(0)
    await tasks.close()
    assert cleaned.is_set()


async def test_tasks_that_end_are_forgotten_and_have_names() -> None:
    tasks, worker = TaskSet("owner"), Worker()
    task = tasks.start(worker.run(), "w")
    assert task.get_name() == "owner: w"
    worker.release.set()
    await task
    await asyncio.sleep(0)
    assert len(tasks) == 0
    await tasks.close()


async def test_nothing_starts_after_close() -> None:
    tasks, worker = TaskSet("owner"), Worker()
    await tasks.close()
    with pytest.raises(RuntimeError, match="owner is closed"):
        tasks.start(worker.run(), "late")  # and no warning of a coroutine that was never awaited
    assert not worker.started.is_set()
    await tasks.close()


async def test_close_from_one_of_them() -> None:
    tasks, worker, ended = TaskSet("owner"), Worker(), asyncio.Event()

    async def closer() -> None:
        await worker.started.wait()
        await tasks.close()
        ended.set()

    tasks.start(worker.run(), "other")
    task = tasks.start(closer(), "closer")
    await task
    assert ended.is_set()
    assert worker.cancelled == 1


async def test_a_failure_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    tasks, worker = TaskSet("owner"), Worker()

    async def defect() -> None:
        raise ZeroDivisionError("a defect of ours")

    tasks.start(worker.run(), "other")
    with caplog.at_level(logging.ERROR, "warpgate"):
        task = tasks.start(defect(), "broken")
        await asyncio.wait([task])
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "owner: broken failed"
    assert record.exc_info is not None
    assert "a defect of ours" in str(record.exc_info[1])
    assert len(tasks) == 1
    await tasks.close()


async def test_being_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks, worker = TaskSet("owner"), Worker()
    tasks.start(worker.run(), "w")
    await worker.started.wait()
    with caplog.at_level(logging.ERROR, "warpgate"):
        await tasks.close()
    assert not caplog.records


async def test_a_disowned_task_is_left_alone() -> None:
    tasks, worker = TaskSet("owner"), Worker()
    task = tasks.start(worker.run(), "w")
    await worker.started.wait()
    tasks.disown(task)
    await tasks.close()
    assert not task.done()
    worker.release.set()
    await task


async def test_cancel_within_returns_who_ignores_it() -> None:
    willing, stubborn = Worker(), Worker(stubborn=1)
    loop = asyncio.get_running_loop()
    tasks = {loop.create_task(worker.run()) for worker in (willing, stubborn)}
    for worker in (willing, stubborn):
        await worker.started.wait()
    left = await cancel_within(tasks, 0.01)
    assert [task in left for task in tasks].count(True) == 1
    assert (willing.cancelled, stubborn.cancelled) == (1, 1)
    assert await cancel_within(left, 5.0) == set(), (
        "the second time it obeys, and nobody waits the five seconds"
    )


async def test_cancel_within_of_nothing() -> None:
    assert await cancel_within(set(), 5.0) == set()
    task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await task
    assert await cancel_within({task}, 5.0) == set()
