"""How STUN servers are written, and how their names become addresses."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from warpgate_core.endpoint import IP4, IP6, Endpoint
from warpgate_core.errors import ConfigError, NetworkError
from warpgate_core.net import stun_server
from warpgate_core.net.stun_server import MAX_SERVERS, StunServer, read_servers, resolve


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("203.0.113.20:3479", "203.0.113.20", 3479),
        ("203.0.113.20", "203.0.113.20", 3478),
        ("stun:stun.example.org:19302", "stun.example.org", 19302),
        ("STUN:stun.example.org", "stun.example.org", 3478),
        ("stun://stun.example.org", "stun.example.org", 3478),
        ("stun.example.org.", "stun.example.org", 3478),
        (" host ", "host", 3478),
        ("[2001:db8::1]:5", "2001:db8::1", 5),
        ("stun:[2001:db8::1]", "2001:db8::1", 3478),
        ("2001:db8::1", "2001:db8::1", 3478),
    ],
)
def test_ways_to_write_a_server(text: str, host: str, port: int) -> None:
    assert StunServer.parse(text) == StunServer(host, port)
    assert StunServer.parse(str(StunServer(host, port))) == StunServer(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "stun:",
        "host:0",
        "host:65536",
        "host:port",
        "host:999999999999999999999",
        "turn:host:3478",
        "https://host",
        "300.1.1.1",
        "a..b",
        "-" * 64,
        "spa ce",
        "a\0b",
        "höst",
        "[2001:db8::1",
        "x" * 300,
    ],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ConfigError, match="is no STUN server"):
        StunServer.parse(text)


def test_lists() -> None:
    one, two = StunServer("a"), StunServer("b", 5)
    assert read_servers("a, b:5 ,a") == (one, two)
    assert read_servers(["a", two]) == (one, two)
    assert read_servers([]) == read_servers("") == ()
    with pytest.raises(ConfigError, match="too many"):
        read_servers([f"host{number}" for number in range(MAX_SERVERS + 1)])
    with pytest.raises(ConfigError, match="as a list"):
        read_servers(7)


async def test_numeric_addresses_need_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert await resolve(StunServer("192.0.2.1", 9), IP4) == Endpoint("192.0.2.1", 9)
    assert await resolve(StunServer("2001:db8::1", 9), IP6) == Endpoint("2001:db8::1", 9)
    with pytest.raises(NetworkError, match="no IPv6 address"):
        await resolve(StunServer("192.0.2.1", 9), IP6)


async def test_names_are_looked_up() -> None:
    assert await resolve(StunServer("localhost", 9), IP4) == Endpoint("127.0.0.1", 9)


async def test_an_unknown_name_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NetworkError, match=r"no-such\.example has no IPv4 address we can find"):
        await resolve(StunServer("no-such.example"), IP4)


def test_a_name_server_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the caller nor the end of the program waits for it."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: release.wait(30))
    monkeypatch.setattr(stun_server, "LOOKUP_TIMEOUT", 0.05)

    async def ask() -> None:
        with pytest.raises(NetworkError, match="not resolved within"):
            await resolve(StunServer("slow.example"), IP4)

    begun = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - begun < 5
    release.set()
