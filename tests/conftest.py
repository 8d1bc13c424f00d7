"""What holds for every test of the repository.

- Each test has its own ``WARPGATE_HOME`` and sees no ``WARPGATE_*`` of the person who runs it.
- A coroutine test function runs under `asyncio.run`; no plugin is needed for that.
- A test that leaves a task behind, in whatever event loop, fails: `asyncio.run` would cancel it in silence.
- What a marker needs and the machine lacks is a skip that says what to install; where ``CI=true``, such a
  skip is a failure, because there it would hide that nothing was tested.
- Property tests are the same in every CI run, and never fail for being slow.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab import Lab, unavailable

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")  # what the common CI services set
MUST_RUN = ("lab", "broker")  # markers whose skip is a failure in CI
FIXTURE_MARKERS = {"lab": "lab"}  # whoever asks for this fixture has this marker

_passed = pytest.StashKey[bool]()
_lack = pytest.StashKey[dict[str, str | None]]()


def pytest_configure(config: pytest.Config) -> None:
    """Set up what is the same for all tests."""
    settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
    settings.register_profile("here", deadline=None)  # a busy machine is no falsified property
    settings.load_profile("ci" if IN_CI else "here")
    config.stash[_lack] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark lab tests as such, by their folder or by the fixture they use, before ``-m`` selects."""
    folder = Path(__file__).parent / "lab"
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.lab)
        for fixture, marker in FIXTURE_MARKERS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine cannot run."""
    for marker, reason in (("lab", unavailable), ("broker", _no_broker)):
        if item.get_closest_marker(marker) and (why := _once(item.config, marker, reason)):
            pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a lab or broker test that skips has failed. One that fails as it is known to did run."""
    report = yield
    if report.when == "call":
        item.stash[_passed] = report.passed
    known = hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not known and any(item.get_closest_marker(name) for name in MUST_RUN):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure where CI=true: {why}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test function to its end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def warpgate_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test keeps identities and caches; not made yet."""
    for name in [name for name in os.environ if name.startswith("WARPGATE_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "warpgate-home"
    monkeypatch.setenv("WARPGATE_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test whose event loop still has tasks when its main coroutine has returned.

    Tasks that were cancelled and have not ended yet do not count: some tests have such on purpose.
    """
    left: list[str] = []
    cancel_all: Callable[[asyncio.AbstractEventLoop], None] = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def look_then_cancel(loop: asyncio.AbstractEventLoop) -> None:
        left.extend(repr(task) for task in asyncio.all_tasks(loop) if not task.cancelling())
        cancel_all(loop)

    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", look_then_cancel)
    yield
    if left and request.node.stash.get(_passed, False):  # a failed test has said enough already
        pytest.fail("tasks were left running:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of this test alone; a test that asks for it is a lab test."""
    with Lab() as made:
        yield made


def _no_broker() -> str | None:
    if shutil.which("mosquitto") is None:
        return "mosquitto is not installed: apt-get install mosquitto"
    return None


def _once(config: pytest.Config, key: str, call: Callable[[], str | None]) -> str | None:
    found = config.stash[_lack]
    if key not in found:
        found[key] = call()
    return found[key]
