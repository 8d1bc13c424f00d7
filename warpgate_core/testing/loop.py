"""An event loop whose clock jumps: protocol timing is tested exactly, and in no time.

When nothing is ready, time goes straight to the next timer. Nothing is patched: it is an ordinary
asyncio loop without sockets, so the code under test is the code that ships. The same seed gives the same
run, down to the order in which sets of tasks are walked. `run_virtual` also says what was left behind.

Rejected: patching `asyncio.sleep` (misses every other timer), a selector loop with a patched clock (real
sockets would make the order of events depend on the machine), and a speed-up factor (still sleeps).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import math
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

from warpgate_core.clock import Clock

__all__ = ["Ambient", "DeadlockError", "LeakError", "VirtualLoop", "run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = 1_000.0  # s; not zero, so that "no time yet" and "at the start" cannot be confused
EPOCH: Final = 1_700_000_000.0  # s since 1970 at virtual time zero; any fixed date does
LIMIT: Final = 86_400.0  # s of virtual time; whoever is not done after a day will never be
SPIN_LIMIT: Final = 1_000_000  # rounds without time going on; 10,000 busy tasks stay well below
THREAD_LIMIT: Final = 60.0  # s of real time that a job in a thread may take


NO_SOCKETS: Final = "a loop with virtual time has no sockets of the operating system"


class DeadlockError(RuntimeError):
    """Nothing can ever happen any more, or nothing ever ends, and the main task is not done."""


class LeakError(AssertionError):
    """The main task is done, but something it began is not: a task, a timer, a socket, an error."""


class Ambient:
    """A timer's callback that belongs to the simulated world and not to the program under test.

    A packet still under way when the program ends is no leak.
    """

    __slots__ = ("_args", "_function")

    def __init__(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        self._function: Callable[..., object] = function
        self._args = args

    def __call__(self) -> None:
        self._function(*self._args)


class _Timer(asyncio.TimerHandle):
    """A timer that keeps its turn among those of the same instant."""

    __slots__ = ("order",)

    order: int

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        if isinstance(other, _Timer):
            return (self.when(), self.order) < (other.when(), other.order)
        return self.when() < other.when()


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address in memory."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[T]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class _Selector:
    """Where a real loop sleeps, this one jumps."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.woken = threading.Event()

    def select(self, timeout: float | None) -> list[Any]:
        if timeout == 0 or self.woken.is_set():
            self.woken.clear()
            self._loop.spin()
        elif self._loop.jobs:
            if not self.woken.wait(THREAD_LIMIT):
                self._loop.stuck(f"a job in a thread takes longer than {THREAD_LIMIT:g} s of real time")
            self.woken.clear()
        elif timeout is None:
            self._loop.stuck("nothing is scheduled, so nothing can ever happen")
        else:
            self._loop.jump()
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop with virtual time and without sockets.

    `run_in_executor` and `call_soon_threadsafe` work; while a job is in a thread, time stands still.
    Everything about sockets, signals and subprocesses raises `NotImplementedError`.

    Args:
        seed: for `random`, which simulated parts draw from.
        limit: seconds of virtual time after which the run counts as endless.

    Attributes:
        random: the one source of randomness of this run.
        jobs: how many jobs are in threads now.
        failures: what went to the loop's exception handler.
    """

    def __init__(self, seed: int = 0, limit: float = LIMIT) -> None:
        super().__init__()
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.jobs = 0
        self._now = START
        self._end = START + limit
        self._spins = 0
        self._numbers = itertools.count()
        self._resources: dict[int, object] = {}
        self.failures: list[str] = []
        self._clock_resolution = 0.0  # a timer runs when its time has come and never before
        self._selector = _Selector(self)
        self.set_task_factory(_make_task)
        self.set_exception_handler(_note_failure)

    # -- time --------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    @property
    def clock(self) -> Clock:
        """Both clocks of a node on this loop."""
        return Clock(now=self.time, time=lambda: EPOCH + self._now)

    def jump(self) -> None:
        """Go to the next timer. (For the loop itself.)"""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        self._spins = 0
        # The next number after it, because a timer must be due strictly before now to run.
        self._now = max(self._now, math.nextafter(scheduled[0].when(), math.inf))
        if self._now > self._end:
            self.stuck(f"not done after {self._end - START:g} s of virtual time")

    def spin(self) -> None:
        """Count a round in which time stands still. (For the loop itself.)"""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not self._ready and scheduled and scheduled[0].when() <= self._now:  # type: ignore[attr-defined]
            self.jump()  # due exactly now: one step of the clock, see there
            return
        self._spins += 1
        if self._spins > SPIN_LIMIT:
            self._spins = 0
            self.stuck(f"{SPIN_LIMIT} rounds went by and time stands still: something waits by spinning")

    def stuck(self, why: str) -> NoReturn:
        """Give up, and say who waits. (For the loop itself.)"""
        raise DeadlockError(
            f"{why} (virtual time {self._now - START:g} s, seed {self.seed}); waiting: "
            + ("; ".join(self._tasks()) or "nobody")
        )

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, but timers of the same instant run in the order in which they were set."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = _Timer(when, callback, args, self, context)
        timer.order = self.next_number()
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001  what BaseEventLoop does
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        """As asyncio's, with a place in sets that is the same in every run."""
        future: _Future[Any] = _Future(loop=self)
        future.number = self.next_number()
        return future

    def next_number(self) -> int:
        """Tells apart, in order, what was made in this run. (For the loop itself.)"""
        return next(self._numbers)

    # -- threads -----------------------------------------------------------------------------

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As asyncio's; time stands still until the job is done."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self.jobs -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As asyncio's, without a thread of its own."""
        executor = self._default_executor  # type: ignore[attr-defined]
        if executor is not None:
            executor.shutdown(wait=True)

    def _process_events(self, events: list[Any]) -> None:
        """There are no file descriptors, so there are no events."""

    def _write_to_self(self) -> None:
        """Another thread has something for us."""
        self._selector.woken.set()

    # -- sockets, of which there are none ----------------------------------------------------

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Refused at once; asyncio's own would open a socket first, and leave it open."""
        raise NotImplementedError(NO_SOCKETS)

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Refused at once, see `create_connection`."""
        raise NotImplementedError(NO_SOCKETS)

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Refused at once, see `create_connection`."""
        raise NotImplementedError(NO_SOCKETS)

    # -- what is left ------------------------------------------------------------------------

    def track(self, resource: object) -> None:
        """Remember something that must be untracked before the run ends."""
        self._resources[id(resource)] = resource

    def untrack(self, resource: object) -> None:
        """It was closed. Harmless twice."""
        self._resources.pop(id(resource), None)

    def settle(self) -> None:
        """Run what is ready, with time standing still, until nothing is."""
        while self._ready:  # type: ignore[attr-defined]
            self.call_soon(self.stop)
            self.run_forever()

    def leaks(self) -> list[str]:
        """Names of all tasks, timers, sockets and unhandled errors that there are now."""
        timers = [
            repr(handle)
            for handle in self._scheduled  # type: ignore[attr-defined]
            if not handle.cancelled() and not isinstance(handle._callback, Ambient)  # noqa: SLF001
        ]
        sockets = [repr(resource) for resource in self._resources.values()]
        return [*self._tasks(), *timers, *sockets, *self.failures]

    def _tasks(self) -> list[str]:
        tasks = sorted((task for task in asyncio.all_tasks(self)), key=hash)
        return [f"task {task.get_name()} at {_place(task)}" for task in tasks]


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.failures.append(f"unhandled: {context.get('message')}: {context.get('exception')!r}")


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    task: _Task[Any] = _Task.__new__(_Task)
    task.number = loop.next_number()  # before __init__, which puts the task into a set
    task.__init__(coro, loop=loop, **options)  # type: ignore[misc]
    return task


def _place(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    if not stack:
        return repr(task.get_coro())
    return f"{stack[-1].f_code.co_qualname} ({stack[-1].f_code.co_filename}:{stack[-1].f_lineno})"


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0, limit: float = LIMIT) -> T:
    """Run `main` on a loop with virtual time and see that it leaves nothing behind.

    Args:
        main: makes the coroutine to run.
        seed: of everything random in the run; the running loop's `random` and every `MemoryNetwork` use it.
        limit: seconds of virtual time.

    Returns:
        What `main` returned.

    Raises:
        DeadlockError: it can never end.
        LeakError: it ended, and left tasks, timers, in-memory sockets or unhandled errors.
    """
    loop = VirtualLoop(seed, limit)
    try:
        result = loop.run_until_complete(loop.create_task(main(), name="main"))
        loop.settle()
        leaks = loop.leaks()
        if leaks:
            raise LeakError(f"left behind (seed {seed}): " + "; ".join(leaks))
        return result
    except BaseException as error:
        error.add_note(f"in run_virtual with seed {seed}, after {loop.time() - START:g} s of virtual time")
        raise
    finally:
        _end(loop)


def _end(loop: VirtualLoop) -> None:
    """Cancel what is left, so that the failure is reported and not a warning about it."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    for task in tasks:
        task.cancel("the virtual run is over")
    if tasks:
        gathered = asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(DeadlockError):  # a task that ignores its cancellation was reported already
            loop.run_until_complete(gathered)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
