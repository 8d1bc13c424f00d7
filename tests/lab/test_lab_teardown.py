"""A lab leaves nothing behind: on a normal end, on an error, on SIGKILL, and when even the keeper dies."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, Nat
from tests.lab import lab as lab_module
from tests.lab.namespace import command
from tests.lab.sweep import MARK, owner_prefix, remnants, stale_prefixes, start_time, sweep

# A lab in a process of its own, with one of everything; it prints its mark and waits to be killed.
WHOLE_LAB = """
import signal
from tests.lab import Lab, Nat
with Lab() as lab:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED, delay=0.01)
    net.brokers(1)
    child = a.popen(["sleep", "1000"])
    print(lab.prefix, lab._keeper.pid, flush=True)
    signal.pause()
"""


def processes(word: str) -> list[str]:
    """Command lines that contain this word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if word in line:
                found.append(line)
    return found


def outside() -> list[str]:
    """Devices and nftables of the namespace that the tests run in."""
    return [command(argv) for argv in (["ip", "-br", "link"], ["nft", "list", "ruleset"])]


def test_a_lab_leaves_nothing() -> None:
    before = outside()
    with Lab() as lab:
        prefix = lab.prefix
        net = lab.internet()
        a = net.home("a", Nat.PORT_RESTRICTED, delay=0.01, loss=0.1)
        net.brokers(1)
        net.coturn()
        running = a.popen(["sleep", "1000"])
        inodes = {namespace.inode for namespace in lab._namespaces}
        assert len(remnants(prefix)) == 6  # internet, a, router, broker, stun, and the directory
        assert outside() == before
    assert running.returncode == -signal.SIGKILL
    assert remnants(prefix) == []
    assert outside() == before
    assert not inodes & namespaces_of_processes()


def namespaces_of_processes() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add((entry / "ns/net").stat().st_ino)
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
    return found


def test_an_error_leaves_nothing() -> None:
    prefixes = []

    def broken() -> None:
        with Lab() as lab:
            prefixes.append(lab.prefix)
            lab.internet().home("a", delay=0.01)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert remnants(prefixes[0]) == []


def test_a_failing_part_does_not_keep_the_rest() -> None:
    lab = Lab().__enter__()
    lab.internet()
    lab.on_close(failing)
    with pytest.raises(LabError, match="cannot end"):
        lab.close()
    assert remnants(lab.prefix) == []
    lab.close()


def failing() -> None:
    raise LabError("cannot end")


@pytest.fixture
def started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WHOLE_LAB],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def said(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    prefix, keeper = process.stdout.readline().split()
    assert len(remnants(prefix)) == 5
    return prefix, int(keeper)


def wait_for_end(pid: int) -> None:
    """Wait, bounded, until a process that is not our child is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0]
    finally:
        os.close(descriptor)


def test_the_keeper_cleans_up_after_a_kill(started: subprocess.Popen[str]) -> None:
    with started:
        prefix, keeper = said(started)
        started.kill()
        wait_for_end(keeper)
    assert remnants(prefix) == []
    assert processes(prefix) == []


def test_the_next_lab_cleans_up_when_nobody_did(started: subprocess.Popen[str]) -> None:
    with started:
        prefix, keeper = said(started)
        os.kill(keeper, signal.SIGKILL)
        wait_for_end(keeper)
        started.kill()
    assert remnants(prefix) != []
    assert prefix.rsplit(".", 2)[0] + "." in stale_prefixes()
    with Lab():
        assert remnants(prefix) == []
    assert processes(prefix) == []


def test_a_living_lab_is_not_stale(lab: Lab) -> None:
    lab.internet()
    assert owner_prefix() not in stale_prefixes()
    assert start_time(os.getpid()) is not None
    assert remnants(lab.prefix)


def test_a_recycled_process_id_protects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rubbish = tmp_path / f"{MARK}.{os.getpid()}.1.abc.x"  # this process, but another start time
    rubbish.mkdir()
    assert f"{MARK}.{os.getpid()}.1." in stale_prefixes()
    assert sweep(f"{MARK}.{os.getpid()}.1.") == [str(rubbish)]
    assert not rubbish.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("os.geteuid", lambda: 1000), "root, or a user namespace"),
        (("shutil.which", lambda name: None), "apt-get install iproute2 nftables"),
        (("os.access", lambda path, *_: path != "/dev/net/tun"), "/dev/net/tun"),
    ],
    ids=["no root", "no commands", "no tun"],
)
def test_a_machine_that_cannot_says_why(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, Callable[..., object]], reason: str
) -> None:
    monkeypatch.setattr(*change)
    answer = lab_module.unavailable()
    assert answer is not None
    assert reason in answer
