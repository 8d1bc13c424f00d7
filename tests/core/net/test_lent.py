"""Further sockets for strategies: what closes them, what they hear, and how they are mapped."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest

from tests.core.net.edges import running
from tests.core.net.stun_fixture import stun_server
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net.edge import DatagramSocket, LentSocket
from warpgate_core.net.lent import LentUdpSocket

REMOTE = Endpoint("127.0.0.1", 9)


async def rounds() -> None:
    """Let the loop close what was told to."""
    for _ in range(3):
        await asyncio.sleep(0)


def closed(sock: LentUdpSocket) -> bool:
    return sock.is_closed


def files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_it_closes_when_the_strategy_lets_go() -> None:
    async with running() as here:
        before = files()
        sock = await here.edge.open_socket(here.face.internal)
        assert isinstance(sock, LentUdpSocket)
        assert sock.local.host == here.face.internal.host
        assert sock.local.port != here.face.internal.port
        assert files() == before + 1
        sock.let_go()
        sock.let_go()
        await rounds()
        assert closed(sock)
        assert files() == before


async def test_it_lives_as_long_as_somebody_is_attached() -> None:
    async with running() as here:
        sock = await here.edge.open_socket(here.face.internal)
        assert isinstance(sock, LentUdpSocket)
        released: list[str] = []
        sock.attach(REMOTE, lambda data: None)
        sock.on_released(lambda: released.append("not held by nobody"))
        sock.let_go()
        await rounds()
        assert not closed(sock)
        released.clear()
        sock.detach(REMOTE)
        sock.on_released(lambda: released.append("now"))
        assert released == []
        await rounds()
        assert closed(sock)
        assert released == ["now"]


async def test_a_user_that_comes_and_goes_does_not_close_what_is_held() -> None:
    async with running() as here:
        sock = await here.edge.open_socket(here.face.internal)
        assert isinstance(sock, LentUdpSocket)
        sock.attach(REMOTE, lambda data: None)
        sock.detach(REMOTE)
        await rounds()
        assert not closed(sock)
        sock.let_go()
        await sock.wait_closed()


async def test_what_comes_in_goes_where_the_nodes_own_datagrams_go() -> None:
    heard: asyncio.Queue[tuple[bytes, Endpoint, DatagramSocket]] = asyncio.Queue()
    async with running() as here, running(nics="127.0.0.2") as there:
        here.edge.on_datagram = lambda *what: heard.put_nowait(what)
        sock: LentSocket = await here.edge.open_socket(here.face.internal)
        there.edge.sockets[0].send(b"\xe3hello", sock.local)
        async with asyncio.timeout(5):
            data, remote, by = await heard.get()
        assert (data, remote) == (b"\xe3hello", there.face.internal)
        assert by is sock
        sock.let_go()


async def test_how_it_is_mapped() -> None:
    mapped = Endpoint("203.0.113.9", 5_000)
    async with stun_server(mapped=lambda source, _: mapped) as server, running(stun=[server.text]) as here:
        sock = await here.edge.open_socket(here.face.internal)
        assert await here.edge.mapped(sock) == mapped
        assert server.requests[-1][0] == sock.local
        sock.let_go()


async def test_without_a_server_that_is_said() -> None:
    async with running() as here:
        sock = await here.edge.open_socket(here.face.internal)
        with pytest.raises(NetworkError, match="no STUN server"):
            await here.edge.mapped(sock)
        sock.let_go()


async def test_an_address_that_is_not_ours_is_refused() -> None:
    async with running() as here:
        with pytest.raises(NetworkError, match="none of our interfaces"):
            await here.edge.open_socket(Endpoint("192.0.2.1", 0))


async def test_no_descriptor_left_is_a_network_error_and_leaves_none() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with running() as here:
        before = files()
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            with pytest.raises(NetworkError, match="no further UDP socket"):
                await here.edge.open_socket(here.face.internal)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert files() == before
