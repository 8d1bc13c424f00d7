"""What a person sees and types in a real (pseudo-)terminal, wide and narrow, with rich and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.core.cli.command import ADDRESS, LOOPBACK, Warpgate
from tests.core.cli.pseudo import Screen, without
from warpgate_core.address import NodeAddress
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker

NOBODY = str(NodeAddress(Identity.from_secret(bytes(range(1, 33))).public_key))
COLOUR = re.compile(r"\x1b\[[0-9;]*3[1-7]m")


async def test_two_people_talk(tmp_path: Path) -> None:
    async with Screen("listen", *LOOPBACK, home=tmp_path / "b") as b:
        address = ADDRESS.search(await b.until(ADDRESS.pattern + r"\s"))
        assert address is not None
        async with Screen("connect", address.group(), *LOOPBACK, home=tmp_path / "a") as a:
            await a.until(r"connected to \S+ by direct, tcp")
            a.type("hello from a\n")
            await b.until("hello from a")
            b.type("hello from b\n")
            await a.until("hello from b")
            a.type("\x04")
            assert [await a.end(), await b.end()] == [0, 0]


async def test_ctrl_c_restores_the_terminal_in_the_middle_of_the_race(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("connect", NOBODY, *LOOPBACK, "--broker", broker.url)
        async with Screen(*words, home=tmp_path) as a:
            await a.until(r"connecting to \S+ +\d+ ms.*signal .*sending the offer")
            a.type("\x03")
            assert await a.end() == 130


async def test_the_live_picture_gives_way_to_the_result(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("connect", NOBODY, *LOOPBACK, "--broker", broker.url, "--timeout", "1")
        async with Screen(*words, home=tmp_path) as a:
            assert await a.end() == 1
    assert "\x1b[?25l" in a.raw  # it was live
    assert COLOUR.search(a.raw)
    last = a.text[a.text.rindex("warpgate: ") :].splitlines()
    assert NOBODY.startswith("wg1")
    assert len(last) < 12
    assert [row.split()[0] for row in last if row.startswith("  ") and not row.startswith("   ")]


@pytest.mark.parametrize(
    ("env", "has_colour", "is_live"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
        ({"without": "rich"}, False, False),
    ],
    ids=["rich", "NO_COLOR", "dumb", "without rich"],
)
async def test_kinds_of_terminals(
    tmp_path: Path, env: dict[str, str], has_colour: bool, is_live: bool
) -> None:
    if "without" in env:
        env = without(tmp_path / "site", env["without"])
    words = ("connect", NOBODY, *LOOPBACK, "--timeout", "1")
    async with Screen(*words, home=tmp_path, env=env) as a:
        assert await a.end() == 1
    assert bool(COLOUR.search(a.raw)) is has_colour
    assert ("\x1b[?25l" in a.raw) is is_live
    assert ("\x1b" in a.raw) is (has_colour or is_live)
    assert "no broker is configured" in a.text


async def test_no_color_as_an_option(tmp_path: Path) -> None:
    async with Screen("plugins", "--no-color", home=tmp_path) as plain:
        assert await plain.end() == 0
    async with Screen("plugins", home=tmp_path) as coloured:
        assert await coloured.end() == 0
    assert not COLOUR.search(plain.raw)
    assert COLOUR.search(coloured.raw)
    assert plain.text == coloured.text


@pytest.mark.parametrize("columns", [30, 80, 200])
async def test_every_width(tmp_path: Path, columns: int) -> None:
    for words, code in ((("doctor", *LOOPBACK), 0), (("plugins",), 0), (("connect", NOBODY, *LOOPBACK), 1)):
        async with Screen(*words, home=tmp_path, columns=columns) as screen:
            assert await screen.end() == code
        rows = screen.text.replace("\r", "\n").splitlines()
        if columns >= 80:
            assert [row for row in rows if len(row) > columns] == []
        elif words[0] == "doctor":
            assert all(len(row) <= columns or " " not in row.strip() for row in rows)
        assert "Only the loopback" in screen.text or words[0] != "doctor"


async def test_udp_only_between_two_terminals(tmp_path: Path) -> None:
    """Without --transport a redirected output takes TCP or nothing; a person takes what there is."""
    async with Warpgate("listen", "--keep", *LOOPBACK, home=tmp_path / "b") as b:
        words = ("connect", await b.address(), *LOOPBACK, "--json")
        async with Screen(*words, home=tmp_path / "a") as person:
            await person.until('"event": "connected"')
            assert "only TCP" not in person.text
            person.type("\x03")
            assert await person.end() == 130
        async with Warpgate(*words, home=tmp_path / "a") as script:
            assert (await script.event("connected"))["transport"] == "tcp"
            script.interrupt()
            await script.end()
        b.interrupt()
        assert (await b.end()).code == 130


async def test_a_long_line_is_passed_whole_and_a_prompt_is_shown(tmp_path: Path) -> None:
    async with Warpgate("listen", *LOOPBACK, home=tmp_path / "b") as b:
        address = await b.address()
        async with Screen("connect", "-", *LOOPBACK, home=tmp_path / "a") as a:
            await a.until("the address, please")
            a.type(address + "\n")
            await a.until("connected to")
            a.type("x" * 3000 + "\n")
            assert await b.read_line() == b"x" * 3000 + b"\n"
            await b.write(b"bye\n", end=True)
            await a.until("bye")
            assert await a.end() == 0  # at a terminal the peer's end is the end
        assert (await b.end()).code == 0


async def test_the_demo_in_a_terminal(tmp_path: Path) -> None:
    async with Screen("demo", "--size", "1", home=tmp_path) as demo:
        assert await demo.end() == 0
    assert "✓" in demo.text
    assert "nothing is left behind" in demo.text
