"""STUN over TCP from a given port, against a real listener: held, reset, and no socket left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from tests.core.net.stun_fixture import stun_server
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.net.ports import bind_pair
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.stun_tcp import ask_over_tcp, tcp_binding
from warpgate_core.net.tcp import dial


def at(endpoint: Endpoint) -> Callable[[], Awaitable[Endpoint]]:
    async def lookup() -> Endpoint:
        return endpoint

    return lookup


def from_port(local: Endpoint) -> Callable[[Endpoint], Awaitable[StreamLink]]:
    return lambda remote: dial(remote, local=local)


def free_endpoint() -> Endpoint:
    pair = bind_pair("127.0.0.1")
    pair.close()
    return pair.endpoint


async def test_the_mapping_of_the_listeners_port_again_and_again() -> None:
    local = free_endpoint()
    async with stun_server() as server:
        for _ in range(3):  # without the reset the second would find the endpoints in TIME_WAIT
            async with tcp_binding(from_port(local), [at(server.endpoint)]) as mapped:
                assert mapped == local
        assert server.connections == 3


async def test_dead_and_broken_servers_cost_nothing() -> None:
    local = free_endpoint()
    dead = free_endpoint()

    async def unknown() -> Endpoint:
        raise NetworkError("the name nowhere.example was not resolved")

    async with (
        stun_server(raw=lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n") as garbage,
        stun_server(("127.0.0.3", "127.0.0.4")) as server,
        tcp_binding(
            from_port(local), [at(dead), unknown, at(garbage.endpoint), at(server.endpoint)]
        ) as mapped,
    ):
        assert mapped == local


async def test_if_nobody_answers_each_reason_is_told() -> None:
    local, dead = free_endpoint(), free_endpoint()
    async with stun_server(raw=lambda request: request) as echo:
        with pytest.raises(NetworkError, match="no STUN server answered over TCP") as caught:
            async with tcp_binding(from_port(local), [at(dead), at(echo.endpoint)]):
                pytest.fail("there is no answer")
    assert f"{dead} refused the connection" in str(caught.value)
    assert "class REQUEST" in str(caught.value)
    with pytest.raises(NetworkError, match="none is configured"):
        async with tcp_binding(from_port(local), []):
            pytest.fail("there is no server")


async def test_an_answer_to_another_question_is_refused() -> None:
    def other_id(request: bytes) -> bytes:
        return b"\x01\x01\x00\x00" + request[4:8] + bytes(12)

    async with stun_server(raw=other_id) as server:
        link = await dial(server.endpoint)
        with pytest.raises(ProtocolError, match="did not make"):
            await ask_over_tcp(link)
        link.abort()
        await link.wait_closed()


async def test_a_server_that_hangs_up_is_a_clear_error() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(20)
        writer.write(b"\x01\x01")
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    link = await dial(Endpoint.of(listener.sockets[0].getsockname()))
    with pytest.raises(NetworkError, match="hung up without an answer"):
        await ask_over_tcp(link)
    link.abort()
    await link.wait_closed()
    listener.close()


async def test_cancelling_while_asking_leaves_nothing() -> None:
    async with stun_server(silent=100) as server:
        before = len(os.listdir("/proc/self/fd"))
        binding = tcp_binding(dial, [at(server.endpoint)] * 3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(binding.__aenter__(), 0.1)
        assert server.connections == 3
        await server.all_hung_up()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_the_connection_stands_while_the_mapping_is_of_use() -> None:
    local = free_endpoint()
    async with stun_server() as server, tcp_binding(from_port(local), [at(server.endpoint)]):
        with pytest.raises(NetworkError, match="connected with it already"):
            await dial(server.endpoint, local=local)
