"""`warpgate listen` and `warpgate connect`: real processes, real bytes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import psutil
import pytest

from tests.core.cli.command import LOOPBACK, Ended, Warpgate, run
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker

BIG = 5_000_000  # bytes; far more than all buffers on the way together


def living(group: int) -> list[psutil.Process]:
    """The processes of a process group that have not ended (zombies of a lazy init have)."""
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group
    ]


def noise(count: int) -> bytes:
    return os.urandom(count)


async def test_a_message_each_way_and_half_close(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        node = (*LOOPBACK, "--broker", broker.url, "--json")
        async with Warpgate("listen", *node, home=tmp_path / "b") as b:
            address = (await b.event("listening"))["address"]
            async with Warpgate("connect", address, *node, home=tmp_path / "a") as a:
                await a.write(b"question\n", end=True)
                assert await b.read_line() == b"question\n"
                await b.write(b"answer after the end of the question\n", end=True)
                one, other = await asyncio.gather(a.end(), b.end())
    assert (one.code, other.code) == (0, 0)
    assert one.out == b"answer after the end of the question\n"
    assert other.out == b""
    closed = one.event("closed")
    assert (closed["sent"], closed["received"]) == (9, 37)
    assert one.event("connected")["strategy"] == "direct"
    assert one.events[-1] == {"event": "result", "exit_code": 0}
    assert other.event("pipe")["peer"] == Identity.load(tmp_path / "a" / "identity").public_key_hex
    assert other.events[-1] == {"event": "result", "exit_code": 0}


@pytest.mark.parametrize("source", ["pipe", "file"])
async def test_files_both_ways_at_once(tmp_path: Path, source: str) -> None:
    there, back = noise(BIG), noise(BIG + 1)
    (tmp_path / "back").write_bytes(back)
    with (tmp_path / "back").open("rb") as back_file:
        stdin = back_file if source == "file" else asyncio.subprocess.PIPE
        async with (
            Warpgate("listen", *LOOPBACK, home=tmp_path / "b", stdin=stdin) as b,
            Warpgate("connect", await b.address(), *LOOPBACK, home=tmp_path / "a") as a,
        ):
            one, other = await asyncio.gather(a.end(there), b.end(back))
    assert (one.code, other.code) == (0, 0)
    assert hashlib.sha256(other.out).digest() == hashlib.sha256(there).digest()
    assert hashlib.sha256(one.out).digest() == hashlib.sha256(back).digest()


async def test_output_to_a_file_and_input_from_dev_null(tmp_path: Path) -> None:
    data = noise(BIG)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        async with Warpgate(
            "listen", *LOOPBACK, home=tmp_path / "b", stdin=asyncio.subprocess.DEVNULL, stdout=target
        ) as b:
            words = ("connect", await b.address(), *LOOPBACK)
            async with Warpgate(*words, home=tmp_path / "a", stdin=source) as a:
                ends = await asyncio.gather(a.end(), b.end())
    assert [end.code for end in ends] == [0, 0]
    assert (tmp_path / "out").read_bytes() == data


async def test_the_peers_end_does_not_cut_off_what_we_still_send(tmp_path: Path) -> None:
    """B's input is at its end from the beginning; A's file must come through all the same."""
    data = noise(BIG)
    async with (
        Warpgate("listen", *LOOPBACK, home=tmp_path / "b", stdin=asyncio.subprocess.DEVNULL) as b,
        Warpgate("connect", await b.address(), *LOOPBACK, home=tmp_path / "a") as a,
    ):
        await a.write(data[:100])
        assert a.process.stdout is not None
        assert await a.process.stdout.read() == b""  # B's end reaches whoever reads from A, at once
        one, other = await asyncio.gather(a.end(data[100:]), b.end())
    assert (one.code, other.code) == (0, 0)
    assert other.out == data


async def test_slow_reader_holds_the_sender_up_and_gets_everything(tmp_path: Path) -> None:
    data = noise(BIG)
    async with Warpgate("listen", *LOOPBACK, home=tmp_path / "b", stdin=asyncio.subprocess.DEVNULL) as b:
        words = ("connect", await b.address(), *LOOPBACK, "--json")
        async with Warpgate(*words, home=tmp_path / "a") as a:
            await a.event("connected")
            feeding = asyncio.create_task(a.write(data, end=True))
            assert b.process.stdout is not None
            head = await b.process.stdout.readexactly(1)
            assert not feeding.done()  # nobody reads: the sender has to wait
            one, other = await asyncio.gather(a.end(), b.end())
            await feeding
    assert (one.code, other.code) == (0, 0)
    assert head + other.out == data


async def test_keep_serves_one_after_the_other(tmp_path: Path) -> None:
    async with Warpgate("listen", "--keep", *LOOPBACK, home=tmp_path / "b") as b:
        address = await b.address()
        for number in range(3):
            words = ("connect", address, *LOOPBACK)
            async with Warpgate(*words, home=tmp_path / "a") as a:
                await a.write(b"from %d\n" % number)
                assert await b.read_line() == b"from %d\n" % number
                await b.write(b"to %d\n" % number)
                assert await a.read_line() == b"to %d\n" % number
                b_has_more = b.process.stdin
                assert b_has_more is not None
                a.interrupt()
                assert (await a.end()).code == 130
        b.interrupt()
        assert (await b.end()).code == 130


async def test_without_keep_a_second_peer_is_refused(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        node = (*LOOPBACK, "--broker", broker.url)
        async with Warpgate("listen", *node, home=tmp_path / "b") as b:
            address = await b.address()
            async with Warpgate("connect", address, *node, "--json", home=tmp_path / "a") as a:
                await a.event("connected")
                third = await run("connect", address, *node, home=tmp_path / "c")
                assert third.code == 1
                assert "refused" in third.err
                one, _ = await asyncio.gather(a.end(b""), b.end(b""))
                assert one.code == 0


async def test_echo_serves_many_at_once(tmp_path: Path) -> None:
    data = noise(300_000)
    async with Warpgate("listen", "--echo", "--keep", *LOOPBACK, home=tmp_path / "b") as b:
        address = await b.address()
        words = ("connect", address, *LOOPBACK)
        ends = await asyncio.gather(
            *(run(*words, home=tmp_path / str(n), data=data + bytes([n])) for n in range(3))
        )
        assert [end.code for end in ends] == [0, 0, 0]
        assert [end.out for end in ends] == [data + bytes([n]) for n in range(3)]
        b.interrupt()
        assert (await b.end()).code == 130


async def _exec(tmp_path: Path, command: str, data: bytes, *more: str) -> tuple[Ended, Ended]:
    async with Warpgate("listen", "--exec", command, *more, *LOOPBACK, home=tmp_path / "b") as b:
        async with Warpgate("connect", await b.address(), *more, *LOOPBACK, home=tmp_path / "a") as a:
            one = await a.end(data)
        return one, await b.end()


async def test_exec_joins_a_command(tmp_path: Path) -> None:
    data = noise(BIG)
    one, other = await _exec(tmp_path, "sha256sum", data)
    assert (one.code, other.code) == (0, 0)
    assert one.text.split()[0] == hashlib.sha256(data).hexdigest()
    assert "can run that command" in other.err


async def test_exec_tells_the_command_who_calls_and_ends_with_it(tmp_path: Path) -> None:
    """The command ends before its input does, and so does the pipe."""
    async with (
        Warpgate("listen", "--exec", "echo $WARPGATE_PEER", *LOOPBACK, home=tmp_path / "b") as b,
        Warpgate("connect", await b.address(), *LOOPBACK, home=tmp_path / "a") as a,
    ):
        peer = await a.read_line()
        listener = await b.end()
        assert listener.code == 0
        assert (await a.end(b"")).code == 0
    assert peer.decode().strip() == Identity.load(tmp_path / "a" / "identity").public_key_hex


async def test_exec_that_fails_is_told(tmp_path: Path) -> None:
    one, other = await _exec(tmp_path, "exit 3", b"")
    assert "status 3" in other.err
    assert (one.code, other.code) == (0, 0)


async def test_exec_leaves_no_process_when_the_listener_is_interrupted(tmp_path: Path) -> None:
    command = "echo $$; sleep 1000 & wait"
    async with (
        Warpgate("listen", "--exec", command, *LOOPBACK, home=tmp_path / "b") as b,
        Warpgate("connect", await b.address(), *LOOPBACK, home=tmp_path / "a") as a,
    ):
        group = int(await a.read_line())
        b.interrupt()
        assert (await b.end()).code == 130
        assert (await a.end(b"")).code == 0
    assert living(group) == []


async def test_accept_admits_the_named_key_only(tmp_path: Path) -> None:
    friend = Identity.load_or_create(tmp_path / "friend" / "identity")
    async with EmbeddedBroker() as broker:
        node = (*LOOPBACK, "--broker", broker.url)
        words = ("listen", "--echo", "--accept", friend.public_key_hex, *node)
        async with Warpgate(*words, home=tmp_path / "b") as b:
            address = await b.address()
            stranger = await run("connect", address, *node, home=tmp_path / "stranger")
            assert stranger.code == 1
            assert "refused" in stranger.err
            known = await run("connect", address, *node, home=tmp_path / "friend", data=b"it is me")
            assert (known.code, known.out) == (0, b"it is me")
            assert (await b.end()).code == 0


async def test_accept_takes_an_address_for_a_key(tmp_path: Path) -> None:
    friend = await run("address", *LOOPBACK, home=tmp_path / "friend")
    words = ("listen", "--echo", "--accept", friend.text.strip(), *LOOPBACK)
    async with Warpgate(*words, home=tmp_path / "b") as b:
        known = await run("connect", await b.address(), *LOOPBACK, home=tmp_path / "friend", data=b"hi")
        assert (known.code, known.out) == (0, b"hi")
        assert (await b.end()).code == 0


@pytest.mark.parametrize("form", ["broken by spaces", "file", "standard input"])
async def test_the_address_in_other_forms(tmp_path: Path, form: str) -> None:
    async with Warpgate("listen", "--echo", *LOOPBACK, home=tmp_path / "b") as b:
        address = await b.address()
        data = b"over"
        match form:
            case "broken by spaces":
                words: tuple[str, ...] = (address[:30], address[30:60], address[60:])
            case "file":
                (tmp_path / "address").write_text(f"> {address[:40]}\n> {address[40:]}\n")
                words = (f"@{tmp_path / 'address'}",)
            case _:
                words, data = ("-",), address.encode() + b"\nover"
        end = await run("connect", *words, *LOOPBACK, home=tmp_path / "a", data=data)
        assert (end.code, end.out) == (0, b"over")
        assert (await b.end()).code == 0


# -- UDP -----------------------------------------------------------------------------------------


async def test_lines_over_udp_and_the_end_after_silence(tmp_path: Path) -> None:
    async with Warpgate("listen", *LOOPBACK, home=tmp_path / "b", stdin=asyncio.subprocess.DEVNULL) as b:
        words = ("connect", await b.address(), "--transport", "udp", "--linger", "0.1", *LOOPBACK)
        one = await run(*words, home=tmp_path / "a", data=b"one\ntwo\nlast without an end")
        other = await b.end()
    assert (one.code, other.code) == (0, 0)
    assert sorted(other.out.splitlines()) == [b"last without an end", b"one", b"two"]
    assert one.err.count("may be lost") == 1
    assert other.err.count("may be lost") == 1


async def test_an_answer_over_udp_comes_through_after_the_end_of_input(tmp_path: Path) -> None:
    async with Warpgate("listen", "--echo", *LOOPBACK, home=tmp_path / "b") as b:
        words = ("connect", await b.address(), "--transport", "udp", *LOOPBACK, "--json")
        one = await run(*words, home=tmp_path / "a", data=b"ping\n")
        assert (one.code, one.out) == (0, b"ping\n")
        assert one.event("connected")["transport"] == "udp"
        assert (await b.end()).code == 0


# -- broken --------------------------------------------------------------------------------------


async def test_a_killed_peer_breaks_the_pipe(tmp_path: Path) -> None:
    async with (
        Warpgate("listen", *LOOPBACK, home=tmp_path / "b") as b,
        Warpgate("connect", await b.address(), *LOOPBACK, "--json", home=tmp_path / "a") as a,
    ):
        await a.event("connected")
        feeding = asyncio.create_task(a.end(noise(20 * BIG)))
        assert b.process.stdout is not None
        await b.process.stdout.readexactly(100)
        b.process.kill()
        one = await feeding
    assert one.code == 5
    result = one.events[-1]
    assert (result["exit_code"], result["kind"]) == (5, "PeerLostError")


async def test_a_reader_that_has_enough_ends_the_program(tmp_path: Path) -> None:
    """`warpgate listen | head -c 5`: the program ends as others do by SIGPIPE, and the peer hears of it."""
    wrapper = ("/bin/sh", "-c", '"$@" | head -c 5', "sh")
    async with Warpgate(
        "listen", "--json", *LOOPBACK, home=tmp_path / "b", wrapper=wrapper, stdin=asyncio.subprocess.DEVNULL
    ) as b:
        address = (await b.event("listening"))["address"]
        one = await run("connect", address, *LOOPBACK, home=tmp_path / "a", data=noise(10 * BIG))
        other = await b.end()
    assert one.code == 5
    assert len(other.out) == 5
    assert other.events[-1] == {"event": "result", "exit_code": 141}
