"""The corrected clock: whom it believes, and that nobody who hangs or lies can harm it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from warpgate_core.errors import ConfigError, NetworkError
from warpgate_core.net.ntp import NtpClock, query_offset

NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970, RFC 5905 section 6


def stamp(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("!II", (whole + NTP_EPOCH) & 0xFFFFFFFF, int((seconds - whole) * 2**32))


def honest(request: bytes, ahead: float = 0.0) -> bytes:
    now = time.time() + ahead
    head = struct.pack("!BBBbII4s", 0 << 6 | 4 << 3 | 4, 2, 6, -20, 0, 0, b"TEST")
    return head + stamp(now) + request[40:48] + stamp(now) + stamp(now)


@contextmanager
def ntp_server(answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A real UDP server in a thread; yields how it is configured."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()

        def serve() -> None:
            while True:
                request, source = sock.recvfrom(512)
                if request == b"stop":
                    return
                if (reply := answer(request)) is not None:
                    sock.sendto(reply, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            sock.sendto(b"stop", (host, port))
            thread.join(5)


def offsets(**by_server: float | Exception) -> NtpClock:
    def query(server: str, timeout: float) -> float:
        outcome = by_server[server]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return NtpClock(list(by_server), query=query)


async def test_real_servers_are_asked_and_believed() -> None:
    with ntp_server(partial(honest, ahead=90.0)) as one, ntp_server(partial(honest, ahead=90.2)) as two:
        clock = NtpClock([one, two])
        assert await clock.sync()
    assert clock.is_synchronised
    assert clock.offset == pytest.approx(90.1, abs=0.15)
    assert clock.time() - time.time() == pytest.approx(90.1, abs=0.2)
    assert "2 NTP servers agree; the system's clock is -90." in clock.reason


async def test_before_it_was_synchronised_it_is_the_systems_clock() -> None:
    clock = NtpClock(["nowhere.example"])
    assert clock.time() == pytest.approx(time.time(), abs=0.1)
    assert "no NTP server was asked yet" in clock.reason


@pytest.mark.parametrize(
    ("given", "offset", "words"),
    [
        ({"a": 1.0, "b": 1.1, "c": 1.2}, 1.1, "3 NTP servers agree"),
        ({"a": 1.0, "b": 1.1, "c": 31_536_000.0}, 1.05, "2 NTP servers agree"),
        ({"a": -5.0, "b": -5.0, "c": NetworkError("dead")}, -5.0, "2 NTP servers agree"),
        ({"a": 3.0}, 3.0, "1 NTP servers agree"),
        (
            {"a": 3.0, "b": NetworkError("b is dead")},
            None,
            "1 of 2 NTP servers answered, 2 needed (b is dead)",
        ),
        ({"a": 3.0, "b": 90.0}, None, "contradict each other by 87.0 s"),
        ({"a": 0.0, "b": 0.1, "c": 50.0, "d": 50.1}, None, "contradict each other by 50.1 s"),
        ({"a": NetworkError("dead")}, None, "0 of 1 NTP servers answered, 1 needed (dead)"),
        ({}, None, "no NTP server is configured"),
    ],
)
async def test_whom_to_believe(given: dict[str, float | Exception], offset: float | None, words: str) -> None:
    clock = offsets(**given)
    assert await clock.sync() is (offset is not None)
    assert words in clock.reason
    assert clock.offset == pytest.approx(offset or 0.0)
    assert clock.time() - time.time() == pytest.approx(offset or 0.0, abs=0.1)


async def test_a_confirmed_time_outlives_a_failed_attempt() -> None:
    servers: dict[str, float | Exception] = {"a": 7.0, "b": 7.0}

    def query(server: str, timeout: float) -> float:
        outcome = servers[server]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    clock = NtpClock(["a", "b"], query=query)
    assert await clock.sync()
    servers.update(a=NetworkError("gone"), b=NetworkError("gone"))
    assert await clock.sync(), "still confirmed"
    assert "the earlier correction" in clock.reason
    assert clock.time() - time.time() == pytest.approx(7.0, abs=0.1)


async def test_a_server_that_hangs_delays_nobody_and_blocks_no_loop() -> None:
    release = threading.Event()

    def query(server: str, timeout: float) -> float:
        if server == "hangs":
            release.wait(30)
        return 2.0

    clock = NtpClock(["hangs", "a", "b"], query=query)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    begun = time.monotonic()
    assert await clock.sync(timeout=0.3)
    assert time.monotonic() - begun < 2
    assert ticks > 5
    assert clock.offset == 2.0
    release.set()
    ticker.cancel()
    await asyncio.wait([ticker])


async def test_cancelling_leaves_no_task() -> None:
    release = threading.Event()
    clock = NtpClock(["a", "b"], query=lambda server, timeout: float(release.wait(30)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(clock.sync(timeout=10), 0.05)
    release.set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def no_answer(request: bytes) -> None:
    return None


def not_in_time(request: bytes) -> bytes:
    return bytes([3 << 6 | 4 << 3 | 4, 0]) + honest(request)[2:]


def wrong_origin(request: bytes) -> bytes:
    answer = honest(request)
    return answer[:24] + stamp(5.0) + answer[32:]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (no_answer, "No response"),
        (not_in_time, "is not in time itself"),
        (wrong_origin, "did not ask"),
        (lambda request: b"", "Invalid"),
        (lambda request: request[:20], "Invalid"),
    ],
)
def test_what_is_no_answer(answer: Callable[[bytes], bytes | None], words: str) -> None:
    with ntp_server(answer) as server, pytest.raises(NetworkError, match=words):
        query_offset(server, 0.2)


@pytest.mark.parametrize("server", ["127.0.0.1:no-port", "a b"])
def test_names_that_are_none(server: str) -> None:
    with pytest.raises(NetworkError, match="NTP server"):
        query_offset(server, 0.2)


def test_the_list_of_servers_is_checked() -> None:
    with pytest.raises(ConfigError, match="list"):
        NtpClock("pool.ntp.org")
    with pytest.raises(ConfigError, match="at most 8"):
        NtpClock(["a"] * 9)
