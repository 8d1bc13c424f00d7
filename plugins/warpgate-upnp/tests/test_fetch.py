"""One HTTP exchange with servers that are slow, endless, broken, or send us elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest
from upnp_servers import HERE, http_answer, streams, write_and_end

from warpgate_core import Endpoint, NetworkError, ProtocolError
from warpgate_upnp.fetch import fetch
from warpgate_upnp.http import Url, request

BOUND = 0.4  # s


def question(endpoint: Endpoint) -> bytes:
    return request("GET", Url(endpoint, "/x"))


async def ask(endpoint: Endpoint) -> object:
    return await fetch(HERE, endpoint, question(endpoint), BOUND)


async def test_an_answer() -> None:
    async with streams(lambda data, writer: write_and_end(writer, http_answer(b"hello", A="b"))) as server:
        found = await fetch("127.0.0.2", server.endpoint, question(server.endpoint), BOUND)
        assert (found.status, found.body, found.headers["a"]) == (200, b"hello", "b")
        assert server.requests == [question(server.endpoint)]


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with streams(lambda data, writer: write_and_end(writer, http_answer(b"trap"))) as trap:

        async def redirect(data: bytes, writer: asyncio.StreamWriter) -> None:
            await write_and_end(writer, http_answer(b"", "302 Found", Location=f"http://{trap.endpoint}/"))

        async with streams(redirect) as server:
            found = await fetch(HERE, server.endpoint, question(server.endpoint), BOUND)
        assert found.status == 302
        assert trap.requests == []


async def silent(data: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def trickling(data: bytes, writer: asyncio.StreamWriter) -> None:
    for byte in itertools.cycle(http_answer(b"x" * 1_000)):
        await write_and_end(writer, bytes((byte,)))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behaviour", [silent, trickling])
async def test_slowness_is_bounded(behaviour: object) -> None:
    async with streams(behaviour) as server:  # type: ignore[arg-type]
        began = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError, match=r"within 0\.4 s"):
            await ask(server.endpoint)
        assert asyncio.get_running_loop().time() - began < BOUND + 0.2


def endless(start: bytes, more: bytes) -> object:
    async def serve(data: bytes, writer: asyncio.StreamWriter) -> None:
        await write_and_end(writer, start)
        while True:
            await write_and_end(writer, more)

    return serve


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 0x1000 + b"\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\0" * 10_000),
    ],
)
async def test_endlessness_is_bounded(start: bytes, more: bytes) -> None:
    async with streams(endless(start, more)) as server:  # type: ignore[arg-type]
        with pytest.raises(ProtocolError):
            await ask(server.endpoint)


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 200 OK\r\n", http_answer(b"hello")[:-1], b"rubbish\r\n\r\n"]
)
async def test_an_answer_that_breaks_off(data: bytes) -> None:
    async with streams(lambda _, writer: write_and_end(writer, data)) as server:
        with pytest.raises(ProtocolError):
            await ask(server.endpoint)


async def test_a_reset_and_nobody() -> None:
    async def reset(data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with streams(reset) as server:
        with pytest.raises((NetworkError, ProtocolError)):
            await ask(server.endpoint)
        gone = server.endpoint
    with pytest.raises(NetworkError, match="cannot be asked"):
        await ask(gone)
    with pytest.raises(NetworkError, match="no TCP socket"):
        await fetch("203.0.113.1", gone, question(gone), BOUND)


async def test_nothing_stays_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with streams(silent) as server:
        task = asyncio.create_task(ask(server.endpoint))
        await server.got.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        early = asyncio.create_task(ask(server.endpoint))
        await asyncio.sleep(0)  # in the middle of connecting
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        with pytest.raises(NetworkError):
            await ask(server.endpoint)
    await asyncio.sleep(0)  # the listener closes in the next turn of the loop
    assert descriptors() == before
