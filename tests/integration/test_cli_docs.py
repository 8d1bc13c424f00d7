"""docs/cli.md against the program: every command, option, exit code and event, and every example is run."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.cli.command import ADDRESS, LOOPBACK, PATIENCE, Warpgate, environment, run
from warpgate_core.cli.exits import MEANING
from warpgate_core.cli.parser import COMMANDS, build_parser
from warpgate_core.signal.embedded import EmbeddedBroker

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
DATA = os.urandom(100_000)
QUIET = {"WARPGATE_DISABLE": "upnp"}  # the examples use all network cards: no multicast from a test
NODE = ("address", "listen", "connect", "doctor")


def section(title: str) -> str:
    """What stands under a heading, to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """The cells of the table rows in a text, without its header."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if not set(line[0]) <= set("- ")][1:]


def options_in(text: str) -> set[str]:
    """The options that a section's table defines."""
    return {word for row in rows(text) for word in re.findall(r"`(--?[\w-]+)", row[0])}


def subparsers() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    (found,) = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {
        word
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for word in action.option_strings
    } - {"-h", "--help"}


def test_commands_are_those_of_the_program() -> None:
    assert {row[0].strip("`") for row in rows(section("Commands"))} == set(COMMANDS) == set(subparsers())


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_those_of_the_program(command: str) -> None:
    common = options_in(section("Options of every command"))
    of_node = options_in(section("Options of a node")) if command in NODE else set()
    own = options_in(section(command))
    assert own | common | of_node == options_of(subparsers()[command])
    assert not own & (common | of_node)


def test_common_options_are_those_of_the_program() -> None:
    assert options_in(section("Options of every command")) | {"--version"} == options_of(build_parser())


def test_exit_codes_are_those_of_the_program() -> None:
    assert {int(code): text for code, text in rows(section("Exit codes"))} == {
        code.value: text for code, text in MEANING.items()
    }


def test_environment_is_that_of_the_program() -> None:
    named = {
        word for row in rows(section("Options of a node")) for word in re.findall(r"WARPGATE_\w+", row[1])
    }
    assert named == set(re.findall(r"WARPGATE_\w+", build_parser().format_help()))


async def test_events_are_those_of_the_program(tmp_path: Path) -> None:
    documented = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row[1])))
        for row in rows(section("For programs"))
    }
    async with EmbeddedBroker() as broker:
        node = (*LOOPBACK, "--broker", broker.url, "--json")
        async with Warpgate("listen", "--echo", *node, home=tmp_path / "b") as b:
            address = (await b.event("listening"))["address"]
            one = await run("connect", address, *node, home=tmp_path / "a", data=b"x")
            other = await b.end()
        failed = await run("connect", address, *node, "--timeout", "1", home=tmp_path / "a")
    async with Warpgate("broker", "--port", "0", "--json", home=tmp_path) as server:
        await server.event("broker")
        server.interrupt()
        ended = await server.end()
    seen = set()
    for event in (*one.events, *other.events, *failed.events, *ended.events):
        name = event.pop("event")
        seen.add(name)
        if name == "result":
            assert set(event) <= documented[name]
        else:
            assert set(event) == documented[name], name
    assert seen == set(documented) - {"address", "log"}  # a change of network, a warning: tested elsewhere
    assert set(failed.events[-1]) | {"event"} <= documented["result"] | {"event"}
    assert set(failed.events[-1]["strategies"][0]) <= documented["result"]


# -- examples ------------------------------------------------------------------------------------


def _examples() -> tuple[list[str], list[tuple[str, str]]]:
    """Commands for one machine, and pairs for two: (B's, A's)."""
    alone: list[str] = []
    pairs: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        waiting = ""
        for line in block.splitlines():
            prompt, _, command = line.partition("$ ")
            if line.startswith("$"):
                alone.append(command)
            elif prompt == "B":
                waiting = command
            elif prompt == "A":
                assert waiting, line
                pairs.append((waiting, command))
                waiting = ""
            else:
                assert not line, f"an example that no test runs: {line}"
        assert not waiting, block
    return alone, pairs


ALONE, PAIRS = _examples()


def test_there_are_examples_of_every_command() -> None:
    everything = " ".join([*ALONE, *(command for pair in PAIRS for command in pair)])
    for command in COMMANDS:
        assert f"warpgate {command}" in everything


def shell(command: str) -> tuple[str, ...]:
    """As it is typed, with `warpgate` being the one of this checkout."""
    begins = command.startswith("warpgate")  # then the shell gives way to it, and signals reach it
    return (
        "/bin/sh",
        "-c",
        command.replace("warpgate", f"{'exec ' * begins}{sys.executable} -m warpgate_core", 1),
    )


@pytest.mark.parametrize("command", ALONE)
async def test_an_example_for_one_machine(command: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *shell(command),
        cwd=tmp_path,
        env=environment(tmp_path / "home", QUIET),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        if "warpgate broker" in command:  # which runs until it is told to end
            assert (await process.stdout.readline()).startswith(b"mqtt://")
            process.send_signal(2)
        _, said = await process.communicate()
    assert process.returncode == (130 if "warpgate broker" in command else 0), said.decode()
    assert b"Traceback" not in said


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Path, Path, int]]:
    """Two directories with what the examples need, and where B's standard error can be read."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        (folder / "docs").mkdir(parents=True)
        (folder / "docs" / "text").write_text("text")
    (a / "file").write_bytes(DATA)
    os.mkfifo(b / "events")
    events = os.open(b / "events", os.O_RDWR | os.O_NONBLOCK)
    yield a, b, events
    os.close(events)


async def until_address(events: int) -> str:
    """The address that the listener prints."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str] = loop.create_future()
    said = ""

    def look() -> None:
        nonlocal said
        said += os.read(events, 65_536).decode()
        match = re.search(ADDRESS.pattern + r"\b", said)
        if match and not found.done():
            found.set_result(match.group())

    loop.add_reader(events, look)
    try:
        async with asyncio.timeout(PATIENCE):
            return await found
    finally:
        loop.remove_reader(events)


async def start(command: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *shell(command),
        cwd=folder,
        env=environment(folder, QUIET | {"TOKEN": "secret"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize(("waiting", "calling"), PAIRS, ids=[f"{b} {a}"[9:60] for b, a in PAIRS])
async def test_an_example_for_two_machines(
    waiting: str, calling: str, machines: tuple[Path, Path, int]
) -> None:
    at_a, at_b, events = machines
    caller = await run("address", *LOOPBACK, home=at_a)
    waiting = waiting.replace("ADDRESS_OF_A", caller.text.strip())
    b = await start(waiting + ("" if "2>" in waiting else " 2> events"), at_b)
    try:
        a = await start(calling.replace("ADDRESS", await until_address(events)), at_a)
        async with asyncio.timeout(PATIENCE):
            sent, said = await a.communicate()
            if "--keep" in waiting:
                b.terminate()
            received, _ = await b.communicate()
    finally:
        if b.returncode is None:
            b.kill()
            await b.wait()
    assert (a.returncode, b.returncode) == (0, 143 if "--keep" in waiting else 0), said.decode()
    if "> received" in waiting:
        received += (at_b / "received").read_bytes()
    expected = {"< file": DATA, "TOKEN": b"secret\n"}
    assert received == next((data for word, data in expected.items() if word in calling), b"")
    if "--echo" in waiting:
        assert sent == b"are you there\n"
    if "tar" in waiting:
        with tarfile.open(at_a / "docs.tar.gz") as archive:
            assert "docs/text" in archive.getnames()
