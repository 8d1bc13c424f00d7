"""The broker inside our own process."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tests.fixtures.brokers import Certificates, free_port
from tests.integration.signal_kit import Received, no_socket_is_left
from warpgate_core.errors import BrokerError, ConfigError
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker
from warpgate_core.signal.router import Router


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    with no_socket_is_left():
        yield


async def test_two_routers_meet_at_it() -> None:
    alice, bob, received = Identity.generate(), Identity.generate(), Received()
    async with EmbeddedBroker() as broker:
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        async with (
            Router(bob, received, time.time, servers=[broker.url]),
            Router(alice, get_time=time.time, servers=[broker.url]) as one,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            for number in range(20):
                assert await pipe.send(b"%d" % number) > 0
            assert [await received.get() for _ in range(20)] == [b"%d" % n for n in range(20)]
            assert await pipe.send(bytes(16_000)) == 16_000


async def test_over_tls_and_on_ipv6(tmp_path: Path) -> None:
    certificates, me = Certificates(tmp_path), Identity.generate()
    async with EmbeddedBroker("::1", tls=certificates.server_context()) as broker:
        assert broker.url == f"mqtts://[::1]:{broker.port}"
        tls = certificates.client_context()
        async with Router(me, Received(), time.time, servers=[broker.url], tls=tls) as one:
            assert await (await one.pipe(me.public_key_hex)).send(b"x") == 1


async def test_it_ends_with_clients_still_connected_and_quickly() -> None:
    """One that said CONNECT, one that never did, one in the middle of a packet."""
    async with EmbeddedBroker() as broker:
        silent = await asyncio.open_connection("127.0.0.1", broker.port)
        half = await asyncio.open_connection("127.0.0.1", broker.port)
        half[1].write(b"\x10\x20\x00")
        async with Router(Identity.generate(), None, time.time, servers=[broker.url]) as one:
            assert [row.state for row in one.brokers] == ["up"]
            began = time.monotonic()
            await broker.close()
            assert time.monotonic() - began < 2
            async with asyncio.timeout(5):
                assert await silent[0].read() == b""
        for _, writer in (silent, half):
            writer.close()
    await broker.close()  # twice is once


async def test_it_comes_back_on_the_same_port_and_routers_with_it() -> None:
    me, port = Identity.generate(), free_port()
    async with EmbeddedBroker(port=port) as broker:
        one = Router(me, Received(), time.time, servers=[broker.url])
        await one.start()
        assert await one.ready()
    async with EmbeddedBroker(port=port):
        pipe = await one.pipe(me.public_key_hex)
        assert await pipe.send(b"again", timeout=10) == 5
        await one.close()


async def test_a_port_in_use_is_a_broker_error() -> None:
    async with EmbeddedBroker() as broker:
        with pytest.raises(BrokerError, match="cannot listen"):
            await EmbeddedBroker(port=broker.port).start()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "amqtt" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigError, match=r"warpgate-core\[broker\]"):
        EmbeddedBroker()


async def test_nothing_of_amqtt_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with EmbeddedBroker() as broker:
            for junk in (b"GET / HTTP/1.1\r\n\r\n" + bytes(200), b"\x10\x04\x00\x09ab"):
                reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
                writer.write(junk)
                writer.write_eof()
                async with asyncio.timeout(5):
                    await reader.read()
                writer.close()
    assert not [r for r in caplog.records if r.name.startswith(("amqtt", "transitions", "asyncio"))]


def test_a_process_that_uses_it_prints_nothing_and_warns_of_nothing() -> None:
    program = """
import asyncio, time
from warpgate_core.identity import Identity
from warpgate_core.signal.embedded import EmbeddedBroker
from warpgate_core.signal.router import Router

async def main():
    me = Identity.generate()
    async with EmbeddedBroker() as broker, Router(me, lambda *a: None, time.time, None, [broker.url]) as one:
        assert await (await one.pipe(me.public_key_hex)).send(b"x") == 1

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    slow = [line for line in done.stderr.splitlines() if line and not line.startswith("Executing <")]
    assert (done.returncode, done.stdout, slow) == (0, "", [])
