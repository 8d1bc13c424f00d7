"""One blocking call in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from warpgate_core.net.threads import in_thread


async def test_the_result_comes_back() -> None:
    assert await in_thread("sum", lambda: 2 + 2) == 4
    assert await in_thread("where", threading.current_thread) is not threading.current_thread()


async def test_the_failure_comes_back() -> None:
    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await in_thread("fail", fail)


async def test_whoever_stops_waiting_hears_nothing_more() -> None:
    release, done = threading.Event(), threading.Event()

    def slow() -> None:
        release.wait(30)
        done.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_thread("slow", slow)
    release.set()
    assert await in_thread("watch", lambda: done.wait(10))
    await asyncio.sleep(0)


def test_a_call_that_ends_after_the_loop_is_gone_harms_nobody() -> None:
    """An exception in the thread would be a failure of this test (warnings are errors)."""
    release = threading.Event()
    before = set(threading.enumerate())

    async def leave() -> list[threading.Thread]:
        task = asyncio.create_task(in_thread("late", lambda: release.wait(30)))
        await asyncio.sleep(0)
        task.cancel()
        return [thread for thread in threading.enumerate() if thread not in before]

    (late,) = asyncio.run(leave())
    assert late.daemon
    release.set()
    late.join(10)
    assert not late.is_alive()
