"""The driver against a real (if small) server of RFC 5780, one NAT after the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import pytest

from tests.core.net.stun_fixture import StunFixture, stun_server
from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.net import nat_discovery
from warpgate_core.net.nat_classify import Diagnosis
from warpgate_core.net.nat_discovery import FRESH_SOCKETS, alternate_of, discover, fresh_client
from warpgate_core.net.stun_client import Binding

OUTSIDE = "203.0.113.9"
Mapper = Callable[[Endpoint, Endpoint], Endpoint]


def preserving(source: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(OUTSIDE, source.port)


def allocating(ports: Callable[[], int], key: Callable[[Endpoint, Endpoint], object]) -> Mapper:
    """A NAT that gives out a port per `key` and keeps it."""
    table: dict[object, int] = {}

    def mapped(source: Endpoint, server: Endpoint) -> Endpoint:
        place = key(source, server)
        if place not in table:
            table[place] = ports()
        return Endpoint(OUTSIDE, table[place])

    return mapped


def random_port() -> int:
    return 1_024 + int.from_bytes(os.urandom(4), "big") % 64_512


def per_source(source: Endpoint, server: Endpoint) -> object:
    return source


def per_address(source: Endpoint, server: Endpoint) -> object:
    return source, server.host


def per_endpoint(source: Endpoint, server: Endpoint) -> object:
    return source, server


@asynccontextmanager
async def fresh() -> AsyncIterator:  # type: ignore[type-arg]
    async with fresh_client("127.0.0.1", "lo") as client:
        yield client


async def look(*servers: Endpoint) -> Diagnosis:
    """Both rounds, from a socket of its own."""
    async with fresh_client("127.0.0.1", "lo") as main:
        answers = [await main.binding(server) for server in servers]
        return await discover(main, answers, fresh)


@pytest.mark.parametrize("filtering", [Filtering.EIF, Filtering.ADF, Filtering.APDF])
@pytest.mark.parametrize(
    ("mapper", "expected"),
    [
        (lambda: lambda source, server: source, (Mapping.NONE, Allocation.PRESERVED, 0)),
        (lambda: preserving, (Mapping.EIM, Allocation.PRESERVED, 0)),
        (lambda: allocating(random_port, per_source), (Mapping.EIM, Allocation.RANDOM, 0)),
        (lambda: allocating(random_port, per_address), (Mapping.ADM, Allocation.RANDOM, 0)),
        (lambda: allocating(random_port, per_endpoint), (Mapping.APDM, Allocation.RANDOM, 0)),
        (
            lambda: allocating(partial(next, count(5000, 2)), per_endpoint),
            (Mapping.APDM, Allocation.SEQUENTIAL, 2),
        ),
        (
            lambda: allocating(partial(next, count(5000, -1)), per_source),
            (Mapping.EIM, Allocation.SEQUENTIAL, -1),
        ),
    ],
)
async def test_every_nat_is_recognised(
    mapper: Callable[[], Mapper], expected: tuple[Mapping, Allocation, int], filtering: Filtering
) -> None:
    async with stun_server(mapped=mapper(), filtering=filtering) as server:
        diagnosis = await look(server.endpoint)
    mapping, allocation, step = expected
    assert diagnosis.profile == NatProfile(mapping, filtering, allocation, step)


async def test_a_block_of_ports() -> None:
    def within() -> int:
        return 40_960 + int.from_bytes(os.urandom(2), "big") % 1_024

    async with stun_server(mapped=allocating(within, per_endpoint)) as server:
        profile = (await look(server.endpoint)).profile
    assert profile.allocation is Allocation.CHUNKED
    assert profile.chunk is not None
    assert profile.chunk[0] in range(39_000, 41_984)


async def test_it_takes_two_rounds_and_the_filter_is_asked_before_anything_opens_it() -> None:
    async with stun_server() as server:
        await look(server.endpoint)
        by_socket: dict[Endpoint, list[tuple[Endpoint, int]]] = {}
        for source, at, change in server.requests:
            by_socket.setdefault(source, []).append((at, change))
    main, *others = by_socket.values()
    assert len(main) == 4, "round 1, then the three further combinations"
    assert len({at for at, _ in main}) == 4
    testers = [asked for asked in others if any(change for _, change in asked)]
    assert len(testers) == 1
    assert {at for at, _ in testers[0]} == {server.endpoint}, "it sent to one address and port only"
    assert sorted(change for _, change in testers[0]) == [0, 2, 6]
    assert len(others) == FRESH_SOCKETS + 1
    plain = [asked for asked in others if asked not in testers]
    assert all(asked == [(server.endpoint, 0)] for asked in plain)


async def test_plain_servers_tell_the_mapping_but_not_the_filter() -> None:
    async with (
        stun_server(rfc5780=False, mapped=preserving) as one,
        stun_server(("127.0.0.3", "127.0.0.4"), rfc5780=False, mapped=preserving) as two,
    ):
        assert (await look(one.endpoint)).profile.mapping is Mapping.UNKNOWN
        diagnosis = await look(one.endpoint, two.endpoint)
    assert diagnosis.profile == NatProfile(Mapping.EIM, Filtering.UNKNOWN, Allocation.PRESERVED)
    assert any("filtering is unknown" in note for note in diagnosis.notes)


async def test_a_server_that_ignores_change_request_is_not_taken_for_an_open_nat() -> None:
    """It names another address, but answers from the one that was asked."""

    class Ignorant(StunFixture):
        def answer(self, data: bytes, source: Endpoint, at: Endpoint) -> tuple[bytes, Endpoint] | None:
            answer = super().answer(data, source, at)
            return None if answer is None else (answer[0], at)

    async with stun_server(filtering=Filtering.EIF) as server:
        server.__class__ = Ignorant
        assert (await look(server.endpoint)).profile.filtering is Filtering.APDF


async def test_lost_packets_are_sent_again() -> None:
    async with (
        stun_server(mapped=preserving) as server,
        fresh_client("127.0.0.1", "lo") as main,
    ):
        first = await main.binding(server.endpoint)
        server.silent = 9  # all of the first volley but three
        profile = (await discover(main, [first], fresh)).profile
    assert profile == NatProfile(Mapping.EIM, Filtering.EIF, Allocation.PRESERVED)


async def test_a_server_that_dies_in_between_costs_little() -> None:
    async with (
        stun_server(mapped=preserving) as server,
        fresh_client("127.0.0.1", "lo") as main,
    ):
        first = await main.binding(server.endpoint)
        server.silent = 1_000
        async with asyncio.timeout(5):
            diagnosis = await discover(main, [first], fresh)
    assert diagnosis.profile == NatProfile(Mapping.UNKNOWN, Filtering.UNKNOWN, Allocation.PRESERVED)
    assert diagnosis.external == Endpoint(OUTSIDE, main.local.port)


async def test_a_liar_is_outvoted_and_not_asked_further() -> None:
    async with (
        stun_server(("127.0.0.5", "127.0.0.6"), mapped=lambda source, at: Endpoint("10.6.6.6", 6)) as liar,
        stun_server(mapped=preserving) as one,
        stun_server(("127.0.0.3", "127.0.0.4"), mapped=preserving) as two,
    ):
        diagnosis = await look(liar.endpoint, one.endpoint, two.endpoint)
        assert diagnosis.doubtful == (liar.endpoint,)
        assert diagnosis.external is not None
        assert diagnosis.external.host == OUTSIDE
        assert diagnosis.profile.mapping is Mapping.EIM
        assert len(liar.requests) == 1


async def test_no_socket_is_left_also_when_cancelled() -> None:
    async with stun_server() as server, fresh_client("127.0.0.1", "lo") as main:
        first = await main.binding(server.endpoint)
        before = len(os.listdir("/proc/self/fd"))
        await discover(main, [first], fresh)
        assert len(os.listdir("/proc/self/fd")) == before
        server.silent = 1_000
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(discover(main, [first], fresh), 0.05)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_too_many_open_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(host: str, port: int = 0) -> object:
        raise OSError(24, "Too many open files")

    async with stun_server() as server, fresh_client("127.0.0.1", "lo") as main:
        first = await main.binding(server.endpoint)
        monkeypatch.setattr(nat_discovery, "bind_udp", none_left)
        with pytest.raises(OSError, match="Too many"):
            await discover(main, [first], fresh)


@pytest.mark.parametrize(
    ("server", "other", "allowed"),
    [
        ("198.51.100.1:3478", "198.51.100.2:3479", True),
        ("[2001:db8::1]:3478", "[2001:db8::2]:3479", True),
        ("10.0.0.1:3478", "10.0.0.2:3479", True),
        ("10.0.0.1:3478", "198.51.100.2:3479", True),
        ("127.0.0.1:3478", "127.0.0.2:3479", True),
        ("198.51.100.1:3478", None, False),
        ("198.51.100.1:3478", "198.51.100.2:3478", False),  # both must differ
        ("198.51.100.1:3478", "198.51.100.1:3479", False),
        ("198.51.100.1:3478", "127.0.0.1:22", False),
        ("198.51.100.1:3478", "192.168.1.1:53", False),
        ("198.51.100.1:3478", "100.64.0.1:53", False),
        ("198.51.100.1:3478", "169.254.169.254:80", False),
        ("198.51.100.1:3478", "224.0.0.1:1900", False),
        ("198.51.100.1:3478", "0.0.0.0:5", False),
        ("198.51.100.1:3478", "[2001:db8::2]:3479", False),
        ("[2001:db8::1]:3478", "[fd00::1]:80", False),
        ("[2001:db8::1]:3478", "[::1]:80", False),
        ("[2001:db8::1]:3478", "[fe80::1]:80", False),
    ],
)
def test_a_server_cannot_point_us_at_strangers(server: str, other: str | None, allowed: bool) -> None:
    at = Endpoint.parse(server)
    named = Endpoint.parse(other) if other else None
    answer = Binding(Endpoint("192.0.2.2", 5), at, at, Endpoint(OUTSIDE, 5), named)
    assert alternate_of(answer) == (named if allowed else None)
