"""The commands that only tell: id, address, plugins, doctor, broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from functools import partial
from pathlib import Path

import pytest

from tests.core.cli.command import ADDRESS, LOOPBACK, Warpgate, run
from tests.core.cli.pseudo import without
from tests.core.net.stun_fixture import stun_server
from tests.core.net.test_ntp import honest, ntp_server
from warpgate_core.address import NodeAddress
from warpgate_core.cli import main
from warpgate_core.endpoint import Endpoint
from warpgate_core.identity import Identity
from warpgate_core.registry import Registry
from warpgate_core.signal.embedded import EmbeddedBroker


async def test_id_makes_an_identity_once_and_says_so(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = await run("id", home=home)
    assert first.code == 0
    assert "a new identity was made" in first.err
    file = home / "identity"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    identity = Identity.load(file)
    rows = dict(row.split("  ", 1) for row in first.text.splitlines())
    assert {key: value.strip() for key, value in rows.items()} == {
        "node id": identity.node_id,
        "public key": identity.public_key_hex,
        "kept in": str(file),
    }
    second = await run("id", home=home)
    assert (second.out, second.err) == (first.out, "")
    third = await run("id", "--json", home=home)
    assert json.loads(third.out) == {
        "node_id": identity.node_id,
        "public_key": identity.public_key_hex,
        "file": str(file),
        "created": False,
    }


async def test_home_as_an_option_goes_before_the_environment(tmp_path: Path) -> None:
    await run("id", "--home", str(tmp_path / "other"), home=tmp_path / "home")
    assert (tmp_path / "other" / "identity").exists()
    assert not (tmp_path / "home").exists()


async def test_address_alone_on_standard_output(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("address", *LOOPBACK, "--broker", broker.url, "--port", "0")
        plain = await run(*words, home=tmp_path)
        structured = await run(*words, "--json", home=tmp_path)
    assert (plain.code, structured.code) == (0, 0)
    text = plain.text.removesuffix("\n")
    assert ADDRESS.fullmatch(text)
    address = NodeAddress.parse(text)
    assert [face.internal.host for face in address.interfaces] == ["127.0.0.1"]
    assert [str(hint) for hint in address.hints] == [broker.url]
    for word in (address.node_id, "127.0.0.1", broker.url, "--port N"):
        assert word in plain.err
    found = json.loads(structured.out)
    other = NodeAddress.parse(found["address"])
    assert bytes.fromhex(found["bytes"]) == other.encode()
    assert found["public_key"] == address.public_key.hex()
    assert found["brokers"] == [broker.url]
    assert found["interfaces"][0]["internal"] == str(other.interfaces[0].internal)
    assert structured.events[-1] == {"event": "result", "exit_code": 0}


async def test_address_with_a_port_stays_the_same(tmp_path: Path) -> None:
    first = await run("address", *LOOPBACK, home=tmp_path)
    port = str(NodeAddress.parse(first.text).interfaces[0].internal.port)
    fixed = [await run("address", *LOOPBACK, "--port", port, home=tmp_path) for _ in range(2)]
    assert first.out == fixed[0].out == fixed[1].out
    assert "--port N" not in fixed[0].err


async def test_plugins_as_a_table_and_as_json(tmp_path: Path) -> None:
    registry = Registry()
    registry.load()
    expected = {"direct", "reverse", *(record.name for record in registry.records)}
    table = await run("plugins", home=tmp_path)
    assert table.code == 0
    rows = [row.split() for row in table.text.splitlines()]
    assert rows[0][:4] == ["name", "kind", "state", "from"]
    assert {row[0] for row in rows[1:] if row} >= expected
    found = json.loads((await run("plugins", "--json", home=tmp_path)).out)
    assert {record["name"] for record in found} == expected
    assert all(
        set(record) >= {"name", "kind", "state", "distribution", "version", "error"} for record in found
    )


def _broken_plugin(folder: Path) -> dict[str, str]:
    """An installed distribution whose plugin cannot be imported."""
    info = folder / "broken_way-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-way\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[warpgate.plugins]\nbroken = broken_way:Broken\n")
    (folder / "broken_way.py").write_text("raise ImportError('no \\x1b[31mlibfoo here')\n")
    return {"PYTHONPATH": str(folder)}


async def test_a_broken_plugin_is_told_and_does_no_harm(tmp_path: Path) -> None:
    env = _broken_plugin(tmp_path / "site")
    table = await run("plugins", home=tmp_path, env=env)
    assert table.code == 0
    assert "broken-way 1.2" in table.text
    assert r"libfoo here" in table.text
    assert "\x1b" not in table.text
    assert table.err == ""
    found = json.loads((await run("plugins", "--json", home=tmp_path, env=env)).out)
    (record,) = [record for record in found if record["name"] == "broken"]
    assert (record["state"], record["version"]) == ("failed", "1.2")
    off = json.loads((await run("plugins", "--json", "--disable", "broken", home=tmp_path, env=env)).out)
    assert [record["state"] for record in off if record["name"] == "broken"] == ["disabled"]
    address = await run("address", *LOOPBACK, home=tmp_path, env=env)
    assert address.code == 0
    assert "broken" in address.err


def _mapping_plugin(folder: Path) -> dict[str, str]:
    """An installed plugin that gets a port mapping when SIGUSR1 comes, or at once if AT_ONCE is set."""
    info = folder / "mapper-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mapper\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[warpgate.plugins]\nmapper = mapper\n")
    (folder / "mapper.py").write_text(
        "import asyncio, contextlib, os, signal\n"
        "from warpgate_core import Endpoint, hookimpl\n"
        "@contextlib.asynccontextmanager\n"
        "async def service(context):\n"
        "    outside = Endpoint('203.0.113.9', 7000)\n"
        "    publish = lambda: context.publish(context.interfaces[0].internal, outside, 'tcp')\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, publish)\n"
        "    if 'AT_ONCE' in os.environ: publish()\n"
        "    yield\n"
        "@hookimpl\n"
        "def warpgate_node_service(context):\n"
        "    return service(context)\n"
        "@hookimpl\n"
        "def warpgate_node_status():\n"
        "    return ['holds \\x1b[1mone mapping']\n"
    )
    return {"PYTHONPATH": str(folder), "WARPGATE_DISABLE": "upnp"}


async def test_listen_tells_when_its_address_changes(tmp_path: Path) -> None:
    env = _mapping_plugin(tmp_path / "site")
    async with Warpgate("listen", *LOOPBACK, "--json", home=tmp_path, env=env) as b:
        before = NodeAddress.parse((await b.event("listening"))["address"])
        b.interrupt(signal.SIGUSR1)
        after = NodeAddress.parse((await b.event("address"))["address"])
        b.interrupt()
        await b.end()
    assert before.interfaces[0].tcp_external is None
    assert after.interfaces[0].tcp_external == ("203.0.113.9", 7000)


async def test_doctor_shows_port_mappings(tmp_path: Path) -> None:
    env = _mapping_plugin(tmp_path / "site") | {"AT_ONCE": "1"}
    plain = await run("doctor", *LOOPBACK, home=tmp_path, env=env)
    assert plain.code == 0, plain.err
    assert "tcp 203.0.113.9:7000 to 127.0.0.1:" in plain.text
    assert r"mapper: holds \x1b[1mone mapping" in plain.text
    structured = await run("doctor", *LOOPBACK, "--json", home=tmp_path, env=env)
    assert json.loads(structured.out)["interfaces"][0]["port_mappings"] == {"tcp": "203.0.113.9:7000"}


async def test_doctor_on_the_loopback(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        words = ("doctor", *LOOPBACK, "--broker", broker.url)
        plain = await run(*words, home=tmp_path)
        structured = await run(*words, "--json", home=tmp_path)
    assert (plain.code, structured.code) == (0, 0)
    assert "what this means" in plain.text
    assert f"{broker.url}: up" in plain.text
    found = json.loads(structured.out)
    (row,) = found["brokers"]
    assert row["is_up"]
    assert 0 < row["latency"] < 5
    assert [face["card"] for face in found["interfaces"]] == ["lo"]
    assert {one["level"] for one in found["advice"]} <= {"good", "hint"}
    assert set(found) >= {"addresses", "gateways", "stun", "turn", "clock", "plugins"}


async def test_doctor_says_what_is_dead(tmp_path: Path) -> None:
    words = ("doctor", *LOOPBACK, "--broker", "mqtt://user:hunter2@127.0.0.1:1", "--stun", "127.0.0.1:1")
    plain = await run(*words, home=tmp_path)
    assert plain.code == 4
    assert "connection refused" in plain.text
    assert "None of the configured brokers answers" in plain.text
    assert "127.0.0.1:1 over IPv4" in plain.text
    assert "hunter2" not in plain.text + plain.err


async def test_doctor_where_no_node_can_start(tmp_path: Path) -> None:
    found = await run("doctor", "--nic", "no-such-card", "--json", home=tmp_path)
    assert found.code == 4
    report = json.loads(found.out)
    assert "no-such-card" in report["network_error"]
    assert report["advice"][0]["level"] == "bad"


async def test_doctor_measures_stun_and_clock(tmp_path: Path) -> None:
    """Against servers of our own: the doctor's figures are theirs."""
    outside = Endpoint("203.0.113.7", 4000)
    with ntp_server(partial(honest, ahead=90.0)) as clock:
        async with stun_server(mapped=lambda *_: outside) as stun:
            words = ("doctor", *LOOPBACK, "--stun", stun.text, "--ntp", clock)
            found = json.loads((await run(*words, "--json", home=tmp_path)).out)
            plain = await run(*words, home=tmp_path)
    (row,) = found["stun"]
    assert (row["server"], row["mapped"]) == (stun.text, "203.0.113.7:4000")
    assert 0 < row["seconds"] < 5
    assert found["interfaces"][0]["external"] == "203.0.113.7:4000"
    assert found["clock"]["skew"] == pytest.approx(-90, abs=5)
    assert "90 s behind" in plain.text
    assert "sees 203.0.113.7:4000" in plain.text


async def test_broker_serves_until_interrupted(tmp_path: Path) -> None:
    async with Warpgate("broker", "--port", "0", home=tmp_path) as broker:
        url = (await broker.read_line()).decode().strip()
        assert url.startswith("mqtt://127.0.0.1:")
        address = await run("address", *LOOPBACK, "--broker", url, home=tmp_path / "n")
        assert [str(hint) for hint in NodeAddress.parse(address.text).hints] == [url]
        broker.interrupt()
        assert (await broker.end()).code == 130


async def test_broker_for_programs(tmp_path: Path) -> None:
    async with Warpgate("broker", "--port", "0", "--host", "::1", "--json", home=tmp_path) as broker:
        event = await broker.event("broker")
        assert event["url"] == f"mqtt://[::1]:{event['port']}"
        broker.interrupt()
        ended = await broker.end()
    assert ended.events[-1] == {"event": "result", "exit_code": 130}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--host", "localhost"), 2, "--host: 'localhost' is no numeric address"),
        (("--host", "203.0.113.1"), 4, "cannot listen at 203.0.113.1"),
    ],
)
async def test_broker_that_cannot_listen(
    tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    ended = await run("broker", *words, "--port", "0", home=tmp_path)
    assert ended.code == code
    assert text in ended.err


async def test_broker_and_demo_without_amqtt_say_what_to_install(tmp_path: Path) -> None:
    env = without(tmp_path / "site", "amqtt")
    for command in ("broker", "demo"):
        ended = await run(command, home=tmp_path, env=env)
        assert ended.code == 3
        assert "pip install 'warpgate-core[broker]'" in ended.err


async def test_a_taken_port(tmp_path: Path) -> None:
    async with Warpgate("broker", "--port", "0", "--json", home=tmp_path) as broker:
        port = str((await broker.event("broker"))["port"])
        for words in (("broker", "--port", port), ("address", *LOOPBACK, "--port", port)):
            ended = await run(*words, home=tmp_path)
            assert ended.code == 4
            assert port in ended.err
            assert len(ended.err.splitlines()) <= 2


async def test_output_that_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for words in (("id",), ("plugins", "--json"), ("address", *LOOPBACK), ("--help",), ("--version",)):
            async with Warpgate(*words, home=tmp_path, stdout=writing) as command:
                ended = await command.end(b"")
            assert ended.code == 141, words
            assert "BrokenPipe" not in ended.err
    finally:
        os.close(writing)


async def test_closed_standard_streams(tmp_path: Path) -> None:
    """A daemon's parent may have closed all three; sockets must not take their numbers."""
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        wrapper = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
        ended = await run("address", *LOOPBACK, home=tmp_path, wrapper=wrapper)
        assert ended.code == 0, (closed, ended.err)
        assert bool(ended.out) == (">&-" not in closed or closed == "2>&-")


async def test_everything_in_an_ascii_world(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for words in (("id",), ("plugins",), ("doctor", *LOOPBACK), ("address", *LOOPBACK), ("--help",)):
        ended = await run(*words, home=tmp_path / "höme", env=env)
        assert ended.code == 0, ended.err
        assert ended.out.isascii()
        assert ended.err.isascii()


async def test_many_at_once_make_one_identity(tmp_path: Path) -> None:
    ends = await asyncio.gather(*(run("id", "--json", home=tmp_path) for _ in range(4)))
    assert len({json.loads(end.out)["public_key"] for end in ends}) == 1


def test_main_can_be_called_by_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main(["id", "--home", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["created"] is True
    assert main(["plugins", "--nonsense"]) == 2
    assert main(["address", *LOOPBACK, "--home", str(tmp_path)]) == 0
    assert ADDRESS.search(capsys.readouterr().out)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
