"""Ctrl-C and its kin at every moment: the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from tests.core.cli.command import LOOPBACK, PATIENCE, Warpgate, environment
from warpgate_core.address import NodeAddress
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker

NOBODY = str(NodeAddress(Identity.from_secret(bytes(range(1, 33))).public_key))
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
async def test_while_listening(tmp_path: Path, number: signal.Signals) -> None:
    async with Warpgate("listen", *LOOPBACK, "--json", home=tmp_path) as b:
        await b.event("listening")
        b.interrupt(number)
        ended = await b.end()
    assert ended.code == CODES[number]
    assert ended.events[-1] == {"event": "result", "exit_code": CODES[number]}


async def test_while_connecting(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("connect", NOBODY, *LOOPBACK, "--broker", broker.url, "--json")
        async with Warpgate(*words, home=tmp_path) as a:
            await a.line('"step": "signal"')
            a.interrupt()
            ended = await a.end()
    assert ended.code == 130
    assert ended.out == b""


async def test_while_the_node_starts(tmp_path: Path) -> None:
    """A broker that never says a word holds the start up for two seconds; Ctrl-C does not wait for it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        broker = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        for command in ("listen", "address", "connect"):
            more = (NOBODY,) if command == "connect" else ()
            words = (command, *more, *LOOPBACK, "--broker", broker, "--json")
            async with Warpgate(*words, home=tmp_path) as node:
                await node.event("starting")
                node.interrupt()
                ended = await node.end()
            assert ended.code == 130
            assert [event["event"] for event in ended.events] == ["starting", "result"]


async def test_while_bytes_pass_both_ends_hear_of_it(tmp_path: Path) -> None:
    async with (
        Warpgate("listen", *LOOPBACK, home=tmp_path / "b") as b,
        Warpgate("connect", await b.address(), *LOOPBACK, home=tmp_path / "a") as a,
    ):
        await a.write(b"x" * 100_000)
        assert b.process.stdout is not None
        await b.process.stdout.readexactly(100_000)
        a.interrupt()
        one, other = await asyncio.gather(a.end(), b.end(b""))
    assert (one.code, other.code) == (130, 0)


async def test_while_output_is_blocked(tmp_path: Path) -> None:
    """Nobody reads what it writes; it ends all the same."""
    async with (
        Warpgate("listen", *LOOPBACK, "--json", home=tmp_path / "b") as b,
        Warpgate("connect", (await b.event("listening"))["address"], *LOOPBACK, home=tmp_path / "a") as a,
    ):
        feeding = asyncio.create_task(a.end(bytes(30_000_000)))
        await b.event("pipe")
        b.interrupt()
        await b.gone()
        assert (await feeding).code == 5
        assert (await b.end()).code == 130


async def test_while_it_waits_for_an_address(tmp_path: Path) -> None:
    async with Warpgate("connect", "-", *LOOPBACK, "-v", home=tmp_path) as a:
        await a.line("reading the address")
        a.interrupt()
        assert (await a.end()).code == 130


async def test_over_udp(tmp_path: Path) -> None:
    async with Warpgate("listen", *LOOPBACK, home=tmp_path / "b") as b:
        words = ("connect", await b.address(), "--transport", "udp", *LOOPBACK, "--json")
        async with Warpgate(*words, home=tmp_path / "a") as a:
            await a.event("connected")
            a.interrupt()
            one, other = await asyncio.gather(a.end(), b.end())
    assert (one.code, other.code) == (130, 0)


async def test_while_doctor_looks(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        broker = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        async with Warpgate("doctor", *LOOPBACK, "--broker", broker, home=tmp_path) as doctor:
            await doctor.line("looking at the network")
            doctor.interrupt()
            ended = await doctor.end()
    assert (ended.code, ended.out) == (130, b"")


@pytest.mark.parametrize("after", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
async def test_at_any_moment_from_the_first_line_of_main(tmp_path: Path, after: float) -> None:
    """A sweep: imports, parsing, the loop's beginning. Here the time itself is what is tested."""
    program = (
        "import sys, signal\n"
        "from warpgate_core.cli import main\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "sys.stderr.write('now\\n'); sys.stderr.flush()\n"
        "sys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, "listen", *LOOPBACK),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(tmp_path),
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"now\n"
    await asyncio.sleep(after)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        said = (await process.stderr.read()).decode()
        code = await process.wait()
    assert code in (130, -signal.SIGINT)  # the latter before `main` has begun
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


async def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """A plugin's service that does not end would hold the first one up for seconds."""
    info = tmp_path / "site" / "stubborn-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stubborn\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[warpgate.plugins]\nstubborn = stubborn\n")
    (tmp_path / "site" / "stubborn.py").write_text(
        "import asyncio, contextlib, sys\n"
        "from warpgate_core import hookimpl\n"
        "@contextlib.asynccontextmanager\n"
        "async def service():\n"
        "    yield\n"
        "    sys.stderr.write('leaving\\n'); sys.stderr.flush()\n"
        "    await asyncio.sleep(1000)\n"
        "@hookimpl\n"
        "def warpgate_node_service(context):\n"
        "    return service()\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "site")}
    async with Warpgate("listen", *LOOPBACK, home=tmp_path / "h", env=env) as b:
        await b.address()
        loop = asyncio.get_running_loop()
        b.interrupt()
        await b.line("leaving")
        began = loop.time()
        b.interrupt()
        ended = await b.end()
    assert ended.code == 130
    assert loop.time() - began < 1.0  # and not the three seconds that services have


async def test_nohup_is_respected(tmp_path: Path) -> None:
    wrapper = ("/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    async with Warpgate("listen", *LOOPBACK, home=tmp_path, wrapper=wrapper) as b:
        await b.address()
        b.interrupt(signal.SIGHUP)
        b.interrupt(signal.SIGTERM)
        assert (await b.end()).code == 143


# -- the demo's processes ------------------------------------------------------------------------


def _family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def _all_gone(processes: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=PATIENCE)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("moment", ["waits for peers", "connects to B", "connected in", "message there"])
async def test_the_demo_takes_its_processes_with_it(tmp_path: Path, moment: str) -> None:
    env = {"TMPDIR": str(tmp_path)}
    async with Warpgate("demo", "--size", "200", home=tmp_path / "h", env=env) as demo:
        await demo.line(moment)
        family = _family(demo.process.pid)
        demo.interrupt()
        assert (await demo.end()).code == 130
    assert family
    await _all_gone(family)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("warpgate-demo-")]


async def test_the_demos_processes_end_when_it_is_killed(tmp_path: Path) -> None:
    async with Warpgate("demo", "--size", "1000", home=tmp_path / "h", env={"TMPDIR": str(tmp_path)}) as demo:
        await demo.line("message there")
        family = _family(demo.process.pid)
        assert len(family) == 2
        os.kill(demo.process.pid, signal.SIGKILL)
        await demo.process.wait()
        await _all_gone(family)
