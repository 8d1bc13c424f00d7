"""One plugin's hooks in a pluggy manager of their own, and calling coroutines of plugins within bounds.

A manager per plugin instead of one for all: a plugin that is refused is thrown away with its manager,
whole (pluggy 1.6 leaves half of an invalid one registered), and a hook that raises has nobody behind it
whom that would stop. Rejected: one manager and ``subset_hook_caller`` per call, which builds a new
caller of all but one plugins each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pluggy

from warpgate_core.errors import PluginError
from warpgate_core.hookspecs import PROJECT, NodeHooks
from warpgate_core.plugins.checks import check_hooks
from warpgate_core.tasks import cancel_within

__all__ = ["CANCEL_GRACE", "BoundedCalls", "HookSet"]

CANCEL_GRACE = 0.5  # s that a cancelled plugin gets to release what it holds; a TLS close takes one RTT
log = logging.getLogger("warpgate.plugins")

_Call = tuple[str, Coroutine[Any, Any, Any]]  # plugin, what to await
_Tasks = dict[asyncio.Task[Any], str]  # task, plugin


class HookSet:
    """The hooks of one plugin.

    Args:
        name: the plugin's name.
        obj: module, object or strategy class that holds the implementations.

    Raises:
        PluginError: one of them breaks the contract; nothing stays registered.
    """

    def __init__(self, name: str, obj: object) -> None:
        implementations = check_hooks(obj)
        self.names = tuple(sorted(set(implementations.values())))
        self._manager = _Manager(frozenset(implementations))
        self._manager.add_hookspecs(NodeHooks)
        try:
            self._manager.register(obj, name)
            self._manager.check_pending()
        except Exception as error:  # pluggy saw something that our own checks did not
            raise PluginError(f"its hooks are refused: {error}") from error

    def call(self, hook: str, kwargs: Mapping[str, Any]) -> list[Any]:
        """Call one hook. Results that are None are left out; a coroutine function gives its coroutine."""
        results: list[Any] = getattr(self._manager.hook, hook)(**kwargs)
        return results


class _Manager(pluggy.PluginManager):
    """A manager that looks at the attributes we know to be hooks only: pluggy 1.6 runs properties."""

    def __init__(self, attributes: frozenset[str]) -> None:
        super().__init__(PROJECT)
        self._attributes = attributes

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name in self._attributes else None


class BoundedCalls:
    """Runs coroutines of plugins side by side, for a bounded time, whatever they do.

    One that neither ends nor obeys cancelling is reported and left behind: it may cost memory, it may
    not cost the node its answer.

    Args:
        report: called with plugin, what was called, and the error, for each that fails.
        timeout: seconds each may take.
    """

    def __init__(self, report: Callable[[str, str, BaseException], None], timeout: float) -> None:
        self._report = report
        self._timeout = timeout
        self._strays: set[asyncio.Task[Any]] = set()  # a task that nobody refers to may vanish mid-way

    @property
    def strays(self) -> int:
        """How many were left behind and still run."""
        return len(self._strays)

    async def all(self, what: str, calls: Sequence[_Call]) -> list[tuple[str, Any]]:
        """Wait for all of them.

        Args:
            what: what is called, for texts.
            calls: plugin and coroutine.

        Returns:
            Plugin and result of those that gave one, in the order of `calls`; None is left out.
        """
        return await self._run(what, calls, first_only=False)

    async def first(self, what: str, calls: Sequence[_Call]) -> tuple[str, Any] | None:
        """Wait for the first that gives something else than None, and cancel the others."""
        found = await self._run(what, calls, first_only=True)
        return found[0] if found else None

    async def _run(self, what: str, calls: Sequence[_Call], *, first_only: bool) -> list[tuple[str, Any]]:
        tasks = {
            asyncio.create_task(_contain(call), name=f"warpgate {what} of {plugin}"): plugin
            for plugin, call in calls
        }
        results: dict[asyncio.Task[Any], Any] = {}
        try:
            await self._collect(what, tasks, results, first_only)
        finally:
            await self._end(what, {task: tasks[task] for task in tasks if not task.done()})
        return [(tasks[task], results[task]) for task in tasks if task in results]

    async def _collect(
        self, what: str, tasks: _Tasks, results: dict[asyncio.Task[Any], Any], first_only: bool
    ) -> None:
        """Put results in as tasks end, until all have, the first has, or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        pending = set(tasks)
        while pending and not (first_only and results):
            done, pending = await asyncio.wait(
                pending, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            for task in (task for task in tasks if task in done):
                if (error := _error_of(task)) is not None:
                    self._report(tasks[task], what, error)
                elif task.result() is not None:
                    results[task] = task.result()
            if not done:
                for task in (task for task in tasks if task in pending):
                    self._report(tasks[task], what, TimeoutError(f"no answer within {self._timeout:g} s"))
                return

    async def _end(self, what: str, unfinished: _Tasks) -> None:
        """Cancel tasks and wait, but not for those that do not obey."""
        if not unfinished:
            return
        for task in unfinished:
            self._strays.add(task)
            task.add_done_callback(self._forget)
        for task in await cancel_within(set(unfinished), CANCEL_GRACE):
            self._report(unfinished[task], what, PluginError("it ignores cancelling and was left behind"))

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._strays.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("%s failed while it was cancelled", task.get_name(), exc_info=error)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return PluginError("it cancelled itself") if task.cancelled() else task.exception()


async def _contain(call: Coroutine[Any, Any, Any]) -> Any:
    """asyncio ends the whole loop when a task raises SystemExit."""
    try:
        return await call
    except SystemExit as error:
        raise PluginError(f"it called sys.exit({error.code!r})") from error
