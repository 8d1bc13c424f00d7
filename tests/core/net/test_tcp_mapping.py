"""The mapping of a TCP port, shared by all who want it at once, against real listeners on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.core.net.stun_fixture import stun_server
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net import tcp_mapping
from warpgate_core.net.ports import bind_pair
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.tcp import dial
from warpgate_core.net.tcp_mapping import TcpMapper

Seen = list[tuple[Endpoint, Endpoint]]


def mapper(seen: Seen | None = None) -> TcpMapper:
    async def from_port(remote: Endpoint, local: Endpoint) -> StreamLink:
        return await dial(remote, local=local)

    return TcpMapper(from_port, lambda *pair: None if seen is None else seen.append(pair))


def at(endpoint: Endpoint) -> Callable[[], Awaitable[Endpoint]]:
    async def lookup() -> Endpoint:
        return endpoint

    return lookup


@pytest.fixture
def local() -> Endpoint:
    pair = bind_pair("127.0.0.1")
    pair.close()
    return pair.endpoint


async def test_all_who_ask_at_once_share_one_connection(local: Endpoint) -> None:
    seen: Seen = []
    async with stun_server() as server:
        shared = mapper(seen)
        both_in, may_leave = asyncio.Barrier(3), asyncio.Event()

        async def user() -> None:
            async with shared.hold(local, [at(server.endpoint)]) as mapping:
                assert mapping.local == mapping.external == local
                await both_in.wait()
                await may_leave.wait()

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            first, _ = group.create_task(user()), group.create_task(user())
            await both_in.wait()
            first.cancel()
            await asyncio.wait([first])
            assert server.connections == 1
            async with shared.hold(local, [at(server.endpoint)]):
                assert server.connections == 1, "the other one still holds it"
            may_leave.set()
        for count in (2, 3):
            async with shared.hold(local, [at(server.endpoint)]):
                assert server.connections == count
    assert seen == [(local, local)] * 3


async def test_who_comes_while_it_ends_gets_one_of_its_own(local: Endpoint) -> None:
    async with stun_server() as server:
        shared = mapper()

        async def once() -> None:
            async with shared.hold(local, [at(server.endpoint)]) as mapping:
                assert mapping.external == local

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(once())
                await asyncio.sleep(0)
        await once()


async def test_a_fresh_port_is_not_shared(local: Endpoint) -> None:
    anywhere = Endpoint(local.host, 0)
    async with stun_server() as server:
        shared = mapper()
        async with (
            shared.hold(anywhere, [at(server.endpoint)]) as one,
            shared.hold(anywhere, [at(server.endpoint)]) as two,
        ):
            assert one.local == one.external
            assert one.local.port not in (0, two.local.port)
            with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
                stranger.bind(one.local)
        with pytest.raises(NetworkError, match="no free TCP port"):
            async with shared.hold(Endpoint("192.0.2.1", 0), [at(server.endpoint)]):
                pytest.fail("that is no address of this machine")


async def test_a_question_that_was_lost_is_put_again(
    local: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_mapping, "PATIENCE", (0.05, 10.0))
    dialled: list[Endpoint] = []

    async def lossy(remote: Endpoint, own: Endpoint) -> StreamLink:
        dialled.append(remote)
        if len(dialled) == 1:
            await asyncio.get_running_loop().create_future()
        return await dial(remote, local=own)

    async with stun_server() as server:
        shared = TcpMapper(lossy, lambda *pair: None)
        async with asyncio.timeout(10), shared.hold(local, [at(server.endpoint)]) as mapping:
            assert mapping.external == local
    assert len(dialled) == 2


async def test_everybody_hears_of_failure_and_the_next_may_try_again(
    local: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_mapping, "PATIENCE", (0.05, 0.05))

    async def silent(remote: Endpoint, own: Endpoint) -> StreamLink:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("cancelled before")

    shared = TcpMapper(silent, lambda *pair: None)

    async def user() -> str:
        with pytest.raises(NetworkError) as caught:
            async with shared.hold(local, [at(local)]):
                pytest.fail("nobody answers")
        return str(caught.value)

    async with asyncio.timeout(10):
        for text in await asyncio.gather(user(), user()):
            assert text == "no STUN server answered over TCP within 0.1 s"
        assert "within 0.1 s" in await user()
