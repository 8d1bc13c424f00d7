"""Standard input and output of every kind, in a running loop."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from warpgate_core.cli.exits import OutputGone
from warpgate_core.cli.stdio import Sink, Source
from warpgate_core.errors import InputError, NetworkError

PATIENCE = 10.0  # s until a test gives up


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test has closed it
            continue


async def everything(source: Source) -> bytes:
    found = b""
    while data := await source.read():
        found += data
    return found


# -- input ---------------------------------------------------------------------------------------


async def test_a_pipe_is_read_as_it_comes(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    os.write(pipe[1], b"one")
    assert await source.read() == b"one"
    waiting = asyncio.create_task(source.read())
    os.write(pipe[1], b"two")
    assert await waiting == b"two"
    os.close(pipe[1])
    assert [await source.read(), await source.read()] == [b"", b""]
    assert os.get_blocking(pipe[0])  # others share the descriptor: it must stay as it was


async def test_a_cancelled_read_loses_nothing(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    waiting = asyncio.create_task(source.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    os.write(pipe[1], b"later")
    assert await source.read() == b"later"


async def test_a_file_of_many_chunks(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        assert await everything(Source(file.fileno())) == data


async def test_dev_null_and_a_directory(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert await everything(Source(null)) == b""
        with pytest.raises(InputError, match="directory"):
            await Source(folder).read()
    finally:
        os.close(null)
        os.close(folder)


async def test_a_socket_pair() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"data")
        source = Source(one.fileno())
        assert await source.read() == b"data"
        other.close()
        assert await source.read() == b""


async def test_a_terminal_until_it_goes_away() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        source = Source(slave)
        assert source.is_terminal
        os.write(master, b"typed")
        assert await source.read() == b"typed"
        os.close(master)
        assert await source.read() == b""
    finally:
        os.close(slave)


async def test_the_first_line_and_then_the_rest(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    os.write(pipe[1], b"add")
    reading = asyncio.create_task(source.read_line())
    os.write(pipe[1], b"ress\nrest")
    assert await reading == "address"
    assert await source.read() == b"rest"
    os.close(pipe[1])
    assert await source.read() == b""


async def test_a_first_line_without_an_end_is_bounded(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    os.write(pipe[1], b"x" * 500)
    assert await source.read_line(limit=100) == "x" * 500
    os.close(pipe[1])
    assert await source.read_line() == ""


async def test_somebody_else_reads_the_same_pipe(pipe: tuple[int, int]) -> None:
    """The descriptor was made non-blocking by whoever shares it, and emptied before we came."""
    os.set_blocking(pipe[0], False)
    source = Source(pipe[0])
    waiting = asyncio.create_task(source.read())
    os.write(pipe[1], b"x")
    os.read(pipe[0], 1)
    await asyncio.sleep(0)
    os.write(pipe[1], b"y")
    assert await waiting == b"y"


async def test_closing_ends_the_thread_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    with (tmp_path / "file").open("rb") as file:
        source = Source(file.fileno())
        await source.read()
        mine = [t for t in threading.enumerate() if t.name == "warpgate: standard input"]
        source.close()
        for thread in mine:
            await asyncio.to_thread(thread.join, PATIENCE)
            assert not thread.is_alive()
        assert await source.read() == b""


# -- output --------------------------------------------------------------------------------------


async def test_output_keeps_its_order_and_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1])
    data = os.urandom(2_000_000)

    async def write() -> None:
        for start in range(0, len(data), 100_000):
            await sink.write(data[start : start + 100_000])
        await sink.end()

    writing = asyncio.create_task(write())
    source, found = Source(pipe[0]), b""
    found += await source.read()
    assert not writing.done()  # two megabytes do not fit between the two
    while chunk := await source.read():
        found += chunk
    await writing
    assert found == data
    sink.close()


async def test_a_blocked_output_does_not_block_the_loop(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1])
    writing = asyncio.create_task(sink.write(bytes(1_000_000)))
    flushing = asyncio.create_task(sink.flush())
    await writing
    turns = 0
    for _ in range(100):
        await asyncio.sleep(0)
        turns += 1
    assert turns == 100
    assert not flushing.done()
    flushing.cancel()
    await asyncio.wait([flushing])
    sink.close()
    found = 0
    while found < 1_000_000:  # lets the thread go
        found += len(await asyncio.to_thread(os.read, pipe[0], 1_000_000))


async def test_nobody_reads_any_more(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1])
    os.close(pipe[0])
    await sink.write(b"x")
    with pytest.raises(OutputGone):
        await sink.flush()
    with pytest.raises(OutputGone):
        await sink.write(b"y")


async def test_a_full_disk_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = Sink(full)
        await sink.write(b"x")
        with pytest.raises(NetworkError, match="No space left"):
            await sink.flush()
    finally:
        os.close(full)


async def test_the_end_reaches_a_socket_of_which_others_hold_copies() -> None:
    one, other = socket.socketpair()
    with one, other, one.dup():
        sink = Sink(one.fileno())
        await sink.write(b"last words")
        await sink.end()
        source = Source(other.fileno())
        assert await everything(source) == b"last words"
        sink.close()


async def test_a_shared_non_blocking_output_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    sink, data = Sink(pipe[1]), os.urandom(500_000)
    await sink.write(data)
    ending = asyncio.create_task(sink.end())
    os.close(os.dup(pipe[1]))
    found, source = b"", Source(pipe[0])
    while len(found) < len(data):
        found += await source.read()
    await ending
    assert found == data
    sink.close()
