"""Whatever is wrong: a sentence or two for people, a JSON line for programs, the right exit code for both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.core.cli.command import LOOPBACK, Ended, Warpgate, run
from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker

NOBODY = NodeAddress(Identity.from_secret(bytes(range(1, 33))).public_key)
DAMAGED = str(NOBODY)[:-2] + ("aa" if not str(NOBODY).endswith("aa") else "bb")


def tells(ended: Ended, code: int, *words: str) -> None:
    """Insist on the code, the words, and on being short."""
    assert ended.code == code, ended.err
    for word in words:
        assert word in ended.err, ended.err
    assert ended.out == b""
    errors = [row for row in ended.err.splitlines() if row.startswith("warpgate: ")]
    assert len(errors) == 1
    assert len(errors[0]) < 500


USAGE = [
    (("connect", "hello"), "an address begins with 'wg1'"),
    (("connect", DAMAGED), "checksum"),
    (("connect", str(NOBODY)[:30]), "too short"),
    (("connect", "wg1!", "x"), "cannot stand in an address"),
    (("connect", ""), "ADDRESS is empty"),
    (("connect", "-"), "the first line of standard input is empty"),
    (("connect", "@no-such-file"), "'no-such-file' cannot be read: No such file"),
    (("connect", "@."), "directory"),
    (("connect", "@/dev/null"), "is empty"),
    (("connect", str(NOBODY), "--plugin", "nonsense"), "--plugin: there is no strategy 'nonsense'"),
    (("connect", str(NOBODY), "--plugin", "turn", "--disable", "turn"), "--plugin"),
    (("address", "--broker", "http://x"), "--broker"),
    (("address", "--broker", "mqtt://user:hunter2@host:port"), "--broker"),
    (("address", "--broker", "mqtt://user:hunter2@/"), "--broker"),
    (("address", "--stun", "turn:x"), "--stun"),
    (("address", "--stun", "host:99999"), "--stun"),
    (("address", "--turn", "stun:x"), "--turn"),
    (("address", "--turn", "turn:user:hunter2@"), "--turn"),
    (("address", "--port", "70000"), "--port"),
    (("listen", "--accept", "nonsense"), "--accept: 'nonsense' is no public key"),
    (("listen", "--accept", "00" * 33), "--accept"),
    (("listen", "--accept", DAMAGED), "--accept"),
]


@pytest.mark.parametrize(("words", "text"), USAGE, ids=[" ".join(words)[:60] for words, _ in USAGE])
async def test_wrong_input(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    more = () if words[0] == "connect" and len(words) == 1 else LOOPBACK
    ended = await run(*words, *more, home=tmp_path)
    tells(ended, 2, text)
    assert "hunter2" not in ended.err


async def test_a_mistake_for_programs_is_one_json_line(tmp_path: Path) -> None:
    for words in (("connect", "hello", *LOOPBACK, "--json"), ("--json", "nonsense"), ("id", "--json", "--x")):
        ended = await run(*words, home=tmp_path)
        assert ended.code == 2
        result = ended.events[-1]
        assert (result["event"], result["exit_code"]) == ("result", 2)
        assert result["error"]


SETUP = [
    ({"WARPGATE_BROKERS": "http://user:hunter2@x"}, "WARPGATE_BROKERS"),
    ({"WARPGATE_STUN": "stun:"}, "WARPGATE_STUN"),
    ({"WARPGATE_TURN": "turn:user:hunter2@"}, "WARPGATE_TURN"),
]


@pytest.mark.parametrize(("env", "text"), SETUP, ids=[text for _, text in SETUP])
async def test_wrong_environment(tmp_path: Path, env: dict[str, str], text: str) -> None:
    ended = await run("address", *LOOPBACK, home=tmp_path, env=env)
    tells(ended, 3, text)
    assert "hunter2" not in ended.err


async def test_a_damaged_identity_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    file.write_bytes(b"not a key")
    file.chmod(0o600)
    for words in (("id",), ("address", *LOOPBACK), ("listen", *LOOPBACK), ("doctor", *LOOPBACK)):
        tells(await run(*words, home=tmp_path), 3, str(file))
    assert file.read_bytes() == b"not a key"


async def test_a_home_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tells(await run("id", home=tmp_path / "file" / "home"), 3, "file")


async def test_no_such_card_and_no_such_family(tmp_path: Path) -> None:
    tells(await run("address", "--nic", "no-such-card", home=tmp_path), 4, "no-such-card")
    tells(await run("address", *LOOPBACK, "-6", home=tmp_path), 4, "127.0.0.1")


# -- nobody answers ------------------------------------------------------------------------------


def listening_nowhere() -> str:
    """The address of a node at a port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        face = InterfaceAddress(0, Endpoint(*sock.getsockname()))
    return str(NodeAddress(NOBODY.public_key, (face,)))


async def test_no_broker_and_nobody_there(tmp_path: Path) -> None:
    ended = await run("connect", listening_nowhere(), *LOOPBACK, "--timeout", "5", home=tmp_path)
    tells(ended, 1, "could not be told", "no broker is configured", "direct", "reverse", "--transport any")


async def test_the_peer_is_offline(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("connect", listening_nowhere(), *LOOPBACK, "--broker", broker.url, "--timeout", "2")
        plain = await run(*words, home=tmp_path)
        structured = await run(*words, "--json", "--transport", "any", home=tmp_path)
    tells(plain, 1, NOBODY.node_id)
    result = structured.events[-1]
    assert (result["exit_code"], result["kind"], result["notes"]) == (1, "ConnectError", [])
    assert {row["strategy"] for row in result["strategies"]} >= {"direct", "reverse"}
    assert all(row["detail"] for row in result["strategies"])
    assert any(event["event"] == "trace" for event in structured.events)


async def test_a_dead_broker_is_named_and_direct_still_works(tmp_path: Path) -> None:
    dead = "mqtt://user:hunter2@127.0.0.1:1"
    async with Warpgate("listen", "--echo", *LOOPBACK, "--broker", dead, home=tmp_path / "b") as b:
        words = ("connect", await b.address(), *LOOPBACK, "--broker", dead)
        one = await run(*words, home=tmp_path / "a", data=b"all the same")
        other = await b.end()
    assert (one.code, other.code, one.out) == (0, 0, b"all the same")
    for ended in (one, other):
        assert "no broker answers" in ended.err
        assert "127.0.0.1:1" in ended.err
        assert "hunter2" not in ended.err


@contextmanager
def black_hole() -> Iterator[str]:
    """A broker that accepts connections and never says a word."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        yield f"mqtt://127.0.0.1:{sock.getsockname()[1]}"


async def test_a_silent_broker_holds_nothing_up_for_long(tmp_path: Path) -> None:
    with black_hole() as silent:
        loop = asyncio.get_running_loop()
        began = loop.time()
        words = ("connect", listening_nowhere(), *LOOPBACK, "--broker", silent, "--timeout", "1")
        ended = await run(*words, home=tmp_path)
    tells(ended, 1, NOBODY.node_id)
    assert loop.time() - began < 12


async def test_connecting_to_oneself(tmp_path: Path) -> None:
    own = await run("address", *LOOPBACK, home=tmp_path)
    tells(await run("connect", own.text.strip(), *LOOPBACK, home=tmp_path), 2, "own")


async def test_a_strategy_by_name(tmp_path: Path) -> None:
    async with Warpgate("listen", "--echo", *LOOPBACK, home=tmp_path / "b") as b:
        words = ("connect", await b.address(), *LOOPBACK, "--plugin", "direct", "--json")
        one = await run(*words, home=tmp_path / "a", data=b"x")
        assert one.event("connected")["strategy"] == "direct"
        assert (await b.end()).code == 0


async def test_vv_shows_where_and_still_hides_secrets(tmp_path: Path) -> None:
    words = ("address", "--broker", "mqtt://user:hunter2@host:port", "-vv")
    async with Warpgate(*words, home=tmp_path) as command:
        code = await command.process.wait()
        await command.line("Traceback")
    assert code == 2
    assert "hunter2" not in command.said
