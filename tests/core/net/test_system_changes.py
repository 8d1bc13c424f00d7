"""The edge when addresses come and go: real sockets on loopback, told of by a machine that we make up.

The same with a real kernel's addresses is in `test_lab_watch`.
"""

from __future__ import annotations

import os

import pytest

from tests.core.net.edges import Watched, running
from tests.core.net.stun_fixture import stun_server
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net import system
from warpgate_core.net.interfaces import LocalAddress
from warpgate_core.net.ports import bind_pair


def preserving(source: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint("203.0.113.9", source.port)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def address(host: str, name: str = "lo", **fields: object) -> LocalAddress:
    return LocalAddress(name, 1, host, 8, is_loopback=True, **fields)  # type: ignore[arg-type]


class Machine:
    """What `enumerate_addresses` finds; a test changes it and tells the edge to look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: LocalAddress) -> None:
        self.addresses = addresses
        monkeypatch.setattr(system, "enumerate_addresses", lambda: self.addresses)

    def become(self, watched: Watched, *addresses: LocalAddress) -> None:
        self.addresses = addresses
        watched.edge._look()


def hosts(watched: Watched) -> list[str]:
    return [face.internal.host for face in watched.edge.interfaces]


async def test_addresses_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, address("127.0.0.1"))
    async with stun_server(mapped=preserving) as server:
        before = files()
        async with running(nics=None, stun=[server.text]) as watched:
            first = watched.face
            one, two = address("127.0.0.1"), address("127.0.0.2", "lo2")
            machine.become(watched, one, two)
            await watched.until(lambda: hosts(watched) == ["127.0.0.1", "127.0.0.2"])
            second = watched.edge.interfaces[1]
            assert second.internal.port == first.internal.port, "the same number if it is free"
            assert (first.nic, second.nic) == (0, 1)
            await watched.until(lambda: watched.edge.interfaces[1].external is not None)
            link = await watched.edge.dial(server.endpoint, local=Endpoint("127.0.0.2", 0))
            machine.become(watched, two)
            await watched.until(lambda: hosts(watched) == ["127.0.0.2"])
            assert watched.face.nic == 1, "a card keeps its number"
            with pytest.raises(NetworkError, match="refused"):
                await watched.edge.dial(first.internal)
            machine.become(watched)
            await watched.until(lambda: hosts(watched) == [])
            assert watched.edge.socket_for(server.endpoint) is None
            machine.become(watched, one)
            await watched.until(lambda: hosts(watched) == ["127.0.0.1"])
            link.abort()
            await link.wait_closed()
        assert files() <= before + 1  # the server's end of that link


async def test_what_stays_keeps_its_socket_and_what_moved_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = address("127.0.0.1", metric=100, gateway="127.0.0.9")
    machine = Machine(monkeypatch, one)
    async with stun_server(mapped=preserving) as server, running(nics=None, stun=[server.text]) as watched:
        await watched.profiled()
        sock = watched.edge.sockets[0]
        server.mapped = lambda source, at: Endpoint("203.0.113.10", source.port)
        machine.become(watched, address("127.0.0.1", metric=100, gateway="127.0.0.8"))
        await watched.until(lambda: watched.face.external and watched.face.external.host == "203.0.113.10")
        assert watched.edge.sockets[0] is sock


async def test_after_a_change_without_any_answer_the_old_endpoint_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, address("127.0.0.1", metric=1))
    async with stun_server(mapped=preserving) as server, running(nics=None, stun=[server.text]) as watched:
        await watched.profiled()
        server.silent = 7
        machine.become(watched, address("127.0.0.1", metric=2))
        await watched.until(lambda: watched.face.external is None)
        assert "no STUN server answers" in watched.edge.diagnosis(watched.face.internal).notes[0]
        await watched.until(lambda: watched.face.external is not None)


async def test_a_taken_port_is_no_obstacle_for_an_address_that_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, address("127.0.0.1"))
    async with running(nics=None) as watched:
        other = bind_pair("127.0.0.2", watched.face.internal.port)
        try:
            machine.become(watched, address("127.0.0.1"), address("127.0.0.2", "lo2"))
            await watched.until(lambda: len(watched.edge.interfaces) == 2)
            assert watched.edge.interfaces[1].internal.port != other.endpoint.port
        finally:
            other.close()


async def test_an_address_that_cannot_be_bound_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, address("192.0.2.77", "gone"), address("127.0.0.1"))
    async with running(nics=None) as watched:
        assert hosts(watched) == ["127.0.0.1"]
        machine.become(watched, address("192.0.2.77", "gone"), address("127.0.0.2", "lo2"))
        await watched.until(lambda: hosts(watched) == ["127.0.0.2"])
