"""Calling the hooks of plugins: each on its own, within bounds, whatever they do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.fixtures.installed import Install, installed
from warpgate_core.errors import PluginError
from warpgate_core.hookspecs import NodeContext, hookimpl
from warpgate_core.pipe import Pipe
from warpgate_core.plugins.hooks import CANCEL_GRACE
from warpgate_core.registry import Registry


@pytest.fixture
def install() -> Iterator[Install]:
    with installed() as function:
        yield function


class Resolver:
    """Answers after a while, or with an error."""

    def __init__(self, answer: str | BaseException | None, after: asyncio.Event | None = None) -> None:
        self.answer = answer
        self.after = after
        self.started = asyncio.Event()
        self.cancelled = False

    @hookimpl
    async def warpgate_resolve(self, name: str) -> str | None:
        self.started.set()
        try:
            if self.after is not None:
                await self.after.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def registry_with(timeout: float = 30.0, **plugins: object) -> Registry:
    registry = Registry(discover=False, hook_timeout=timeout)
    for name, plugin in plugins.items():
        registry.add(plugin, name=name)
    return registry


def failures(registry: Registry) -> dict[str, str]:
    return {r.name: r.last_failure for r in registry.records if r.failures}


# -- installed ones ------------------------------------------------------------------------------


async def test_a_raising_hook_is_reported_and_the_others_are_called(install: Install) -> None:
    install("raising_hook", "watcher", "sound")
    registry = Registry(options={"watcher": {"label": "known"}})
    await asyncio.to_thread(registry.load)
    found = await registry.call_async("warpgate_resolve", name="sound-box")
    assert found == [("watcher", "known-sound-box"), ("sound", "resolved-sound-box")]
    assert failures(registry)["raising-hook"].startswith(
        "warpgate_resolve: LookupError: no idea who sound-box is (awkward_raising_hook.py line"
    )


def test_a_synchronous_hook_that_ends_programs_ends_nothing(install: Install) -> None:
    install("raising_hook", "watcher")
    registry = Registry()
    registry.load()
    assert registry.call("warpgate_pipe_opened", pipe="the pipe") == []
    watcher = registry._plugins["watcher"]
    assert watcher.hooks is not None
    (plugin,) = watcher.hooks._manager.get_plugins()
    assert plugin.seen == ["the pipe"]
    assert "sys.exit('a hook that ends programs')" in failures(registry)["raising-hook"]


# -- synchronous hooks ---------------------------------------------------------------------------


def test_a_hook_may_be_a_module_an_object_or_a_class() -> None:
    module = ModuleType("a_module")

    @hookimpl
    def warpgate_pipe_closed(error: BaseException | None) -> str:
        return f"module: {error}"

    module.warpgate_pipe_closed = warpgate_pipe_closed  # type: ignore[attr-defined]

    class Plugin:
        @hookimpl
        def warpgate_pipe_closed(self, pipe: Pipe, error: BaseException | None) -> str:
            return f"{pipe}: {error}"

    registry = Registry(discover=False)
    registry.add(module)
    registry.add(Plugin)
    registry.add(Plugin(), name="object")
    assert registry.call("warpgate_pipe_closed", pipe="p", error=None) == [
        ("a_module", "module: None"),
        ("Plugin", "p: None"),
        ("object", "p: None"),
    ]


def test_node_services_come_with_the_name_of_their_plugin() -> None:
    class Service:
        @hookimpl
        def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None] | None:
            @asynccontextmanager
            async def service() -> AsyncIterator[None]:
                yield

            return service()

    class Nothing:
        @hookimpl
        def warpgate_node_service(self, context: NodeContext) -> None:
            return None

    registry = registry_with(one=Service, two=Nothing)
    ((name, service),) = registry.call("warpgate_node_service", context=object())
    assert name == "one"
    assert hasattr(service, "__aenter__")


def test_what_plugins_say_of_themselves_comes_with_their_name() -> None:
    class Talker:
        @hookimpl
        def warpgate_node_status(self) -> list[str]:
            return ["all is well"]

    class Silent:
        @hookimpl
        def warpgate_node_status(self) -> None:
            return None

    registry = registry_with(talker=Talker, silent=Silent)
    assert registry.call("warpgate_node_status") == [("talker", ["all is well"])]


@pytest.mark.parametrize(
    ("hook", "kwargs", "text"),
    [
        ("warpgate_pipe_open", {"pipe": 1}, "Did you mean 'warpgate_pipe_opened'"),
        ("warpgate_pipe_opened", {}, "takes pipe, not nothing"),
        ("warpgate_pipe_opened", {"pipe": 1, "error": 2}, "takes pipe, not pipe, error"),
        ("warpgate_resolve", {"name": "x"}, "is asynchronous; use the other call"),
    ],
)
def test_calling_a_hook_wrongly_is_our_own_fault(hook: str, kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(PluginError, match=text):
        Registry(discover=False).call(hook, **kwargs)


async def test_a_synchronous_hook_cannot_be_awaited() -> None:
    with pytest.raises(PluginError, match="not asynchronous"):
        await Registry(discover=False).call_async("warpgate_pipe_opened", pipe=1)


# -- what is refused -----------------------------------------------------------------------------


class WithDefault:
    @hookimpl
    async def warpgate_resolve(self, name: str = "x") -> str | None:
        return name


class KeywordOnly:
    @hookimpl
    async def warpgate_resolve(self, *, name: str) -> str | None:
        return name


class Wrapper:
    @hookimpl(wrapper=True)
    def warpgate_pipe_opened(self, pipe: Pipe) -> Any:
        return (yield)


class GeneratorHook:
    @hookimpl
    def warpgate_pipe_opened(self, pipe: Pipe) -> Any:
        yield


class Unmarked:
    async def warpgate_resolv(self, name: str) -> None:
        return None


class WrongOptions:
    Options = {"a": 1}  # noqa: RUF012 - it is the mistake

    @hookimpl
    def warpgate_pipe_opened(self, pipe: Pipe) -> None:
        return None


class NeedsMore:
    def __init__(self, something: object) -> None:
        self.something = something

    @hookimpl
    def warpgate_pipe_opened(self, pipe: Pipe) -> None:
        return None


class Newer:
    api_version = 2

    @hookimpl
    def warpgate_pipe_opened(self, pipe: Pipe) -> None:
        return None


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        (WithDefault, "'name' would never be filled"),
        (KeywordOnly, "'name' would never be filled"),
        (Wrapper, "wrappers are not supported"),
        (GeneratorHook, "must return its result, not yield"),
        (Unmarked, "Did you mean 'warpgate_resolve'"),
        (WrongOptions, r"WrongOptions\.Options must be a dataclass"),
        (NeedsMore, "NeedsMore cannot be made: TypeError"),
        (Newer, "contract 2; this warpgate-core knows 1 to 1. Upgrade warpgate-core"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_would_never_work_is_refused_whole(plugin: type, text: str) -> None:
    registry = Registry(discover=False)
    with pytest.raises(PluginError, match=text):
        registry.add(plugin)
    assert registry.records == ()
    assert registry.call("warpgate_pipe_opened", pipe=1) == []


def test_functions_imported_into_a_module_are_not_its_hooks() -> None:
    module = ModuleType("importer")

    def warpgate_helper() -> None:
        return None

    @hookimpl
    def warpgate_pipe_opened(pipe: Pipe) -> str:
        return "called"

    module.warpgate_helper = warpgate_helper  # type: ignore[attr-defined]  # its __module__ is this file
    module.warpgate_pipe_opened = warpgate_pipe_opened  # type: ignore[attr-defined]
    registry = registry_with(importer=module)
    assert registry.call("warpgate_pipe_opened", pipe=1) == [("importer", "called")]


def test_looking_at_a_plugin_runs_none_of_its_properties() -> None:
    class Careful:
        @property
        def anything(self) -> None:
            raise AssertionError("a property was run")

        @hookimpl
        def warpgate_pipe_opened(self, pipe: Pipe) -> str:
            return "called"

    assert registry_with(careful=Careful()).call("warpgate_pipe_opened", pipe=1) == [("careful", "called")]


# -- asynchronous hooks --------------------------------------------------------------------------


async def test_results_come_in_the_order_of_plugins_not_of_time() -> None:
    gate = asyncio.Event()

    class Opener:
        @hookimpl
        async def warpgate_resolve(self, name: str) -> str:
            gate.set()
            return "second"

    registry = registry_with(one=Resolver("first", gate), two=Opener(), three=Resolver(None))
    assert await registry.call_async("warpgate_resolve", name="n") == [("one", "first"), ("two", "second")]
    assert failures(registry) == {}


async def test_a_hook_without_an_answer_is_cancelled_and_reported() -> None:
    slow = Resolver("late", asyncio.Event())
    registry = registry_with(0.05, slow=slow, quick=Resolver("here"))
    assert await registry.call_async("warpgate_resolve", name="n") == [("quick", "here")]
    assert slow.cancelled
    assert "no answer within 0.05 s" in failures(registry)["slow"]


async def test_first_takes_the_first_answer_and_cancels_the_rest() -> None:
    slow = Resolver("late", asyncio.Event())
    registry = registry_with(slow=slow, none=Resolver(None), quick=Resolver("here"))
    assert await registry.call_first("warpgate_resolve", name="n") == ("quick", "here")
    assert slow.cancelled
    assert failures(registry) == {}


async def test_first_of_nobody_is_none() -> None:
    assert await registry_with().call_first("warpgate_resolve", name="n") is None
    assert await registry_with(none=Resolver(None)).call_first("warpgate_resolve", name="n") is None


async def test_errors_that_end_an_event_loop_do_not() -> None:
    registry = registry_with(
        exits=Resolver(SystemExit(4)), cancels=Resolver(asyncio.CancelledError()), good=Resolver("here")
    )
    assert await registry.call_async("warpgate_resolve", name="n") == [("good", "here")]
    assert "sys.exit(4)" in failures(registry)["exits"]
    assert "cancelled itself" in failures(registry)["cancels"]


async def test_a_hook_that_ignores_cancelling_is_left_behind() -> None:
    release = asyncio.Event()
    swallowed = 0

    class Stubborn:
        @hookimpl
        async def warpgate_resolve(self, name: str) -> str | None:
            nonlocal swallowed
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    swallowed += 1
            raise ValueError("at last")

    registry = registry_with(0.02, stubborn=Stubborn(), good=Resolver("here"))
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await registry.call_async("warpgate_resolve", name="n") == [("good", "here")]
    assert loop.time() - start < 0.02 + CANCEL_GRACE + 1
    assert swallowed == 1
    assert "ignores cancelling" in failures(registry)["stubborn"]
    assert registry._calls.strays == 1
    (stray,) = registry._calls._strays
    release.set()
    await asyncio.wait([stray])
    assert registry._calls.strays == 0


async def test_cancelling_the_caller_cancels_the_hooks() -> None:
    slow = Resolver("late", asyncio.Event())
    registry = registry_with(slow=slow)
    task = asyncio.create_task(registry.call_async("warpgate_resolve", name="n"))
    await slow.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.cancelled
    assert failures(registry) == {}


def test_registries_do_not_share_hook_objects() -> None:
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        @hookimpl
        def warpgate_pipe_opened(self, pipe: Pipe) -> int:
            self.calls += 1
            return self.calls

    one, other = registry_with(counter=Counter), registry_with(counter=Counter)
    one.call("warpgate_pipe_opened", pipe=1)
    assert one.call("warpgate_pipe_opened", pipe=1) == [("counter", 2)]
    assert other.call("warpgate_pipe_opened", pipe=1) == [("counter", 1)]
    assert "stevedore" not in vars(sys.modules["warpgate_core.registry"])
