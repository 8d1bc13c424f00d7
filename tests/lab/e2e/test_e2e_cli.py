"""The main job by the command line: ``warpgate listen`` at one machine, ``warpgate connect`` at the other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Client, Nat
from tests.lab.e2e.program import contents
from tests.lab.e2e.world import World, make_world

WARPGATE = str(Path(sys.executable).with_name("warpgate"))
WITHIN = 30.0  # s for a command to end; the longest here need 8
SIZE = 1_000_000  # bytes of the file


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        made.home("a")
        made.home("b")
        made.home("nat", Nat.SYMMETRIC_RANDOM)
        yield made


@pytest.fixture(autouse=True)
def repaired(world: World) -> Iterator[None]:
    yield
    world.repair()


@dataclass(frozen=True)
class Listening:
    """A ``warpgate listen --json`` that has told its address.

    Args:
        process: it.
        address: what it told.
        received: the file that its standard output goes to.
    """

    process: subprocess.Popen[str]
    address: str
    received: Path

    def events(self) -> list[dict[str, Any]]:
        """Wait for its end and give what else it told."""
        _, err = self.process.communicate(timeout=WITHIN)
        return [json.loads(line) for line in err.splitlines()]


def listen(
    world: World, host: Client, *options: str, sends: Path | None = None, **environment: str
) -> Listening:
    received = host.directory / "received"
    with received.open("wb") as out, Path(sends or "/dev/null").open("rb") as source:
        process = host.popen(
            [WARPGATE, "listen", "--json", *options],
            env=host.environment(**world.environment() | environment),
            stdin=source.fileno(),
            stdout=out.fileno(),
        )
    assert process.stderr is not None
    for line in process.stderr:
        told = json.loads(line)
        if told["event"] == "listening":
            return Listening(process, told["address"], received)
    raise AssertionError(f"listen ended with {process.wait()} and told no address")


def connect(
    world: World, host: Client, address: str, *options: str, sends: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    with Path(sends or "/dev/null").open("rb") as source:
        return subprocess.run(
            host.command([WARPGATE, "connect", *options, "--json", address]),
            env=host.environment(**world.environment() | environment),
            stdin=source,
            capture_output=True,
            timeout=WITHIN,
            check=False,
        )


def connected(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What ``connect`` told of the pipe."""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0, events
    (told,) = (event for event in events if event["event"] == "connected")
    assert isinstance(told, dict)
    return told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(contents(SIZE, 1))
    return path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("plugin", ["direct", "reverse"])
@pytest.mark.parametrize("family", ["-4", "-6", None], ids=["IPv4", "IPv6", "both families"])
def test_files_both_ways(world: World, file: Path, tmp_path: Path, family: str | None, plugin: str) -> None:
    a, b = world.hosts["a"], world.hosts["b"]
    answer = tmp_path / "answer"
    answer.write_bytes(contents(SIZE // 2, 2))
    only = [family] if family else []
    listening = listen(world, b, *only, sends=answer)
    done = connect(world, a, listening.address, *only, "--plugin", plugin, sends=file)
    told = connected(done)
    assert (told["strategy"], told["transport"]) == (plugin, "tcp")
    if family:
        assert ("[" in told["remote"]) == (family == "-6")
    assert digest(done.stdout) == digest(answer.read_bytes())
    events = listening.events()
    assert [event["event"] for event in events if event["event"] == "pipe"] == ["pipe"]
    assert listening.process.returncode == 0
    assert digest(listening.received.read_bytes()) == digest(file.read_bytes())


def test_a_file_over_lossy_lines(world: World, file: Path) -> None:
    for name in ("a", "b"):
        world.hosts[name].home.line.set_loss(0.05)
    file.write_bytes(contents(100_000, 3))
    listening = listen(world, world.hosts["b"], "-4")
    connected(connect(world, world.hosts["a"], listening.address, "-4", sends=file))
    listening.events()
    assert digest(listening.received.read_bytes()) == digest(file.read_bytes())


def test_a_message_over_udp(world: World, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text("hello over UDP\n")
    listening = listen(world, world.hosts["b"])
    done = connect(world, world.hosts["a"], listening.address, "--transport", "udp", sends=message)
    assert connected(done)["transport"] == "udp"
    listening.events()
    assert listening.received.read_text() == "hello over UDP\n"


def test_out_of_a_symmetric_nat_and_into_it(world: World, file: Path) -> None:
    for caller, callee, plugin in (("nat", "b", "direct"), ("a", "nat", "reverse")):
        listening = listen(world, world.hosts[callee], "-4")
        done = connect(world, world.hosts[caller], listening.address, "-4", sends=file)
        assert connected(done)["strategy"] == plugin
        listening.events()
        assert digest(listening.received.read_bytes()) == digest(file.read_bytes())


def test_all_brokers_die_between_listen_and_connect(world: World, file: Path) -> None:
    listening = listen(world, world.hosts["b"])
    for broker in world.brokers:
        broker.kill()
    told = connected(connect(world, world.hosts["a"], listening.address, sends=file))
    assert told["seconds"] < 5
    listening.events()
    assert digest(listening.received.read_bytes()) == digest(file.read_bytes())


def test_the_other_one_is_not_there(world: World) -> None:
    listening = listen(world, world.hosts["b"])
    listening.process.kill()
    listening.process.wait()
    done = connect(world, world.hosts["a"], listening.address)
    assert done.returncode == 1
    result = json.loads(done.stderr.splitlines()[-1])
    assert (result["event"], result["kind"]) == ("result", "ConnectError")
    assert "could not be told that we are calling" in result["error"]
    assert {one["strategy"] for one in result["strategies"]} == {"direct", "reverse"}


def test_the_other_one_is_killed(world: World) -> None:
    """Nothing was lost that had arrived, and the exit code says that there was no orderly end."""
    listening = listen(world, world.hosts["b"], "--echo")
    a = world.hosts["a"]
    process = a.popen(
        [WARPGATE, "connect", "--json", listening.address], env=a.environment(**world.environment())
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == "hello\n"
    listening.process.kill()
    process.communicate(timeout=WITHIN)
    assert process.returncode in (0, 5), "a kernel ends a dead process's connection by FIN or by RST"


@pytest.mark.parametrize("url", ["gopher://203.0.113.11", "mqtt://", "203.0.113.11:99999"])
def test_a_broker_url_that_is_wrong(world: World, url: str) -> None:
    b = world.hosts["b"]
    done = b.run([WARPGATE, "listen"], env=b.environment(WARPGATE_BROKERS=url), check=False)
    assert done.returncode == 3
    assert "WARPGATE_BROKERS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_does_not_answer_is_said(world: World) -> None:
    b = world.hosts["b"]
    env = b.environment(**world.environment() | {"WARPGATE_BROKERS": "mqtt://203.0.113.199"})
    done = b.run([WARPGATE, "address"], env=env)
    assert done.stdout.startswith("wg1")
    assert "203.0.113.199" in done.stderr


def test_doctor_knows_the_nat(world: World) -> None:
    nat = world.hosts["nat"]
    done = nat.run([WARPGATE, "doctor"], env=nat.environment(**world.environment()), check=False)
    assert "symmetric" in done.stdout + done.stderr
