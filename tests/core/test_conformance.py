"""The conformance kit itself: ours pass, and each way of being wrong is found and named."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.plugins.blocking.awkward_blocking import Blocking
from tests.fixtures.plugins.huge_section.awkward_huge_section import Huge
from tests.fixtures.plugins.incompatible.awkward_incompatible import Future
from tests.fixtures.plugins.uncancellable.awkward_uncancellable import Stubborn
from warpgate_core.address import NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import StrategyError
from warpgate_core.strategies import BUILT_IN
from warpgate_core.strategy import Attempt, Role, Strategy, register
from warpgate_core.testing.checks import CHECKS, Check, ConformanceError
from warpgate_core.testing.conformance import main, run_checks
from warpgate_core.testing.loop import LeakError
from warpgate_core.testing.stage import Subject

BY_NAME = {check.name: check for check in CHECKS}


@register("meeting", rank=30, transports={"tcp"})
class Meeting(Strategy):
    """Dials the listener that the responder names: the smallest thing that works."""

    async def contribute(self, attempt: Attempt) -> bytes:
        return str(attempt.interfaces[0].internal).encode()

    async def run(self, attempt: Attempt) -> None:
        if attempt.role is Role.RESPONDER:
            await attempt.settled()
        else:
            section = await attempt.peer_section()
            await attempt.dial(Endpoint.parse(section.decode("ascii", "replace")))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The engine says what is wrong with a strategy at length; here it is meant to be."""
    logging.getLogger("warpgate").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("warpgate").setLevel(logging.NOTSET)


# -- what is right passes ------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("cls", [*BUILT_IN, Meeting], ids=lambda cls: cls.spec.name)
def test_right_strategies_pass_in_memory(cls: type[Strategy], check: Check) -> None:
    check.bind(Subject(cls))()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.spec.name)
def test_built_in_strategies_pass_on_loopback(cls: type[Strategy], check: Check) -> None:
    check.bind(Subject(cls, network="loopback"))()


# -- what is wrong is found ----------------------------------------------------------------------


@register("silent")
class Undescribed(Meeting):
    pass


@register("hopeful")
class BadPlausible(Meeting):
    """Says yes instead of by what."""

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> Any:
        return True


@register("slow-start", transports={"tcp"})
class LateSection(Meeting):
    """Thinks for a long time."""

    async def contribute(self, attempt: Attempt) -> bytes:
        await asyncio.sleep(6)
        return await super().contribute(attempt)


@register("texter", transports={"tcp"})
class TextSection(Meeting):
    """Contributes a text."""

    async def contribute(self, attempt: Attempt) -> Any:
        return str(attempt.interfaces[0].internal)


@register("claims-udp")
class ClaimsUdp(Meeting):
    """Claims two transports and has one."""


@register("gives-up", transports={"tcp"})
class GivesUp(Meeting):
    """Fails as it may, but always."""

    async def run(self, attempt: Attempt) -> None:
        raise StrategyError(attempt.name, "starting", "not today")


@register("trusting", transports={"tcp"})
class Trusting(Meeting):
    """Believes that a section is what it sent itself."""

    async def contribute(self, attempt: Attempt) -> bytes:
        own = attempt.interfaces[0].internal
        return socket.inet_aton(own.host) + struct.pack("!H", own.port)

    async def run(self, attempt: Attempt) -> None:
        section = await attempt.peer_section()
        host, port = struct.unpack("!4sH", section)
        if attempt.role is Role.INITIATOR:
            await attempt.dial(Endpoint(socket.inet_ntoa(host), port))
        else:
            await attempt.settled()


@register("lonely", transports={"tcp"})
class Lonely(Meeting):
    """Takes a peer without it for a defect."""

    async def run(self, attempt: Attempt) -> None:
        try:
            await super().run(attempt)
        except StrategyError as error:
            raise KeyError("nobody there") from error


@register("spawner", transports={"tcp"})
class Spawner(Meeting):
    """Starts a task that nobody ends."""

    tasks: list[asyncio.Task[Any]] = []  # noqa: RUF012 - a global, as such strategies have

    async def run(self, attempt: Attempt) -> None:
        self.tasks.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))
        await super().run(attempt)


@register("timer", transports={"tcp"})
class Timer(Meeting):
    """Sets a timer and leaves."""

    async def run(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_later(300, print)
        await super().run(attempt)


@register("opener", transports={"tcp"})
class Opener(Meeting):
    """Opens a socket and leaves."""

    sockets: list[socket.socket] = []  # noqa: RUF012 - see above

    async def contribute(self, attempt: Attempt) -> bytes:
        self.sockets.append(socket.socket())
        return await super().contribute(attempt)


@register("only-one", transports={"tcp"})
class OnlyOne(Meeting):
    """Has one place for all attempts of the process."""

    busy = False

    async def run(self, attempt: Attempt) -> None:
        if attempt.role is Role.RESPONDER:
            await super().run(attempt)
            return
        if OnlyOne.busy:
            raise StrategyError(attempt.name, "starting", "there is an attempt already")
        OnlyOne.busy = True
        try:
            await super().run(attempt)
        finally:
            OnlyOne.busy = False


@register("bad-close", transports={"tcp"})
class BadClose(Meeting):
    """Releases what it never had."""

    async def close(self) -> None:
        raise AttributeError("no server")


WRONG: list[tuple[type[Strategy], str, str]] = [
    (Undescribed, "spec", "no docstring"),
    (BadPlausible, "spec", "plausible.. returned True"),
    (Future, "spec", "written for plugin contract 99"),
    (Huge, "contribution", "returned 513 bytes"),
    (LateSection, "contribution", r"took 6\.0 s"),
    (TextSection, "contribution", "returned str"),
    (BadClose, "contribution", r"close\(\) raised AttributeError"),
    (ClaimsUdp, "connects", "a TCP path was made, and the initiator accepts UDP only"),
    (GivesUp, "connects", "not today"),
    (Trusting, "rubbish", r"run\(\) raised error\('unpack requires"),
    (Lonely, "alone", r"run\(\) raised KeyError"),
    (Spawner, "connects", "left behind.*task forgotten"),
    (Timer, "connects", "left behind.*_Timer when=.*print"),
    (OnlyOne, "two-at-once", "of two attempts at once one failed: .*there is an attempt already"),
    (Blocking, "blocking", r"contribute\(\) held up the event loop for 3"),
    (Stubborn, "cancelling", "let CancelledError pass"),
    (Stubborn, "blocked", "as alice it went on half a second after it was cancelled"),
]


@pytest.mark.parametrize(("cls", "name", "text"), WRONG, ids=[f"{c.__name__}-{n}" for c, n, _ in WRONG])
def test_wrong_strategies_are_found(cls: type[Strategy], name: str, text: str) -> None:
    with pytest.raises((ConformanceError, LeakError), match=text):
        BY_NAME[name].bind(Subject(cls))()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not list a program's open files")
def test_a_socket_left_open_is_found_on_loopback() -> None:
    try:
        with pytest.raises(LeakError, match="file descriptor"):
            BY_NAME["connects"].bind(Subject(Opener, network="loopback"))()
    finally:
        for sock in Opener.sockets:
            sock.close()


def test_a_stubborn_strategy_is_found_on_loopback_too() -> None:
    """And does not keep the program from ending."""
    with pytest.raises(ConformanceError, match="let CancelledError pass"):
        BY_NAME["contribution"].bind(Subject(Stubborn, network="loopback", timeout=0.5))()


def test_a_subject_plays_in_memory_or_on_loopback() -> None:
    with pytest.raises(ValueError, match="'memory' or 'loopback'"):
        Subject(Meeting, network="mars")  # type: ignore[arg-type]


# -- without a test runner -----------------------------------------------------------------------


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warpgate_core.strategies.direct:Direct"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n  ok ") == len(CHECKS)
    assert out.endswith(f"{len(CHECKS)} passed, 0 failed, 0 not run\n")


def test_a_failure_in_the_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{__name__}:ClaimsUdp"]) == 1
    out = capsys.readouterr().out
    assert "FAILED connects" in out
    assert "the initiator accepts UDP only" in out
    assert main([f"{__name__}:ClaimsUdp", "--json"]) == 1
    found = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(found) == set(BY_NAME)
    assert not found["connects"]["passed"]
    assert found["spec"]["passed"]


@pytest.mark.parametrize("name", ["nowhere:X", "warpgate_core.strategies:X", "json:JSONDecoder", "", "json"])
def test_what_is_no_strategy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert (
        "is not there: write package.module:Class" in (err := capsys.readouterr().err)
        or "not a strategy" in err
    )


def test_a_strategy_that_is_not_registered_gets_no_further_than_the_first_check() -> None:
    (only,) = run_checks(Subject(Future))
    assert only.check.name == "spec"
    assert "Upgrade warpgate-core" in only.error


def test_a_strategy_with_sockets_of_its_own_is_told_of_loopback() -> None:
    @register("own-socket", transports={"tcp"})
    class OwnSocket(Meeting):
        """Opens a server of its own."""

        async def contribute(self, attempt: Attempt) -> bytes:
            await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
            return b""

    outcomes = {o.check.name: o.error for o in run_checks(Subject(OwnSocket))}
    assert "use --network loopback" in outcomes["contribution"]


def test_as_a_program(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "warpgate_core.testing.conformance",
        "warpgate_core.strategies.direct:Direct",
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CHECKS)} passed" in run.stdout
    assert run.stderr == ""


# -- with pytest ---------------------------------------------------------------------------------

USER = """
import sys
import pytest
from warpgate_core.strategies.direct import Direct

{marker}
def test_direct(warpgate_check):
    warpgate_check()

def test_nothing_was_imported_for_others():
    assert "pytest" in sys.modules
"""


def run_pytest(folder: Path, text: str, *arguments: str) -> str:
    (folder / "test_user.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-v", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100, check=False)
    return run.stdout + run.stderr


def test_one_test_per_check_for_a_user_of_pytest(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, USER.format(marker="@pytest.mark.warpgate_strategy(cls=Direct)"))
    assert f"{len(CHECKS) + 1} passed" in out
    for check in CHECKS:
        assert f"test_direct[{check.name}] PASSED" in out


def test_a_missing_marker_is_explained(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, USER.format(marker=""))
    assert "uses warpgate_check but has no @pytest.mark.warpgate_strategy(cls=...)" in out


def test_pytest_without_the_kit_imports_none_of_it(tmp_path: Path) -> None:
    text = "import sys\ndef test_it():\n    assert 'warpgate_core.testing.stage' not in sys.modules\n"
    assert "1 passed" in run_pytest(tmp_path, text)
