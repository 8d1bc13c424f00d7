"""Datagrams in the in-memory network: lines, faults, seeds."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.testing.worlds import INSIDE, WAN, Peer, World, virtual
from warpgate_core.endpoint import Endpoint
from warpgate_core.testing.line import Line
from warpgate_core.testing.nat import (
    FIREWALL,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
)
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.testing.packet import PacketEvent

# -- lines ---------------------------------------------------------------------------------------


def test_delays_add_up_and_order_is_kept() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        times: list[float] = []
        one = network.host("one", "198.51.100.1/24", line=Line(delay=0.02))
        other = network.host("other", "198.51.100.2/24", line=Line(delay=0.03))
        got: list[bytes] = []
        arrived = asyncio.Event()

        def receive(data: bytes, source: Endpoint) -> None:
            got.append(data)
            times.append(network.now)
            arrived.set()

        other.bind(Endpoint("198.51.100.2", 1), receive)
        began = network.now
        for number in range(50):
            one.send(b"%d" % number, Endpoint("198.51.100.1", 1), Endpoint("198.51.100.2", 1))
        await arrived.wait()
        await asyncio.sleep(0.001)
        assert got == [b"%d" % number for number in range(50)]
        assert times[0] - began == pytest.approx(0.05)

    virtual(main)


def test_loss_duplication_jitter_and_reordering_are_what_was_asked_for() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        line = Line(delay=0.01, jitter=0.005, loss=0.1, duplicate=0.2, reorder=0.1)
        peer = Peer(network.host("peer", "198.51.100.2/24"), 1)
        one = Peer(network.host("one", "198.51.100.1/24", line=line), 1)
        for number in range(5000):
            one.send(number.to_bytes(2, "big"), peer.at[0])
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        numbers = [int.from_bytes(data, "big") for data, _, _ in peer.got]
        assert len(numbers) == pytest.approx(5000 * 1.2 * 0.9, rel=0.05)
        assert len(set(numbers)) == pytest.approx(5000 * (0.9 + 0.2 * 0.1 * 0.9), rel=0.03)
        assert numbers != sorted(numbers)
        assert network.fates["sent"] == 5000
        assert network.fates["delivered"] == len(numbers)

    virtual(main)


def test_the_same_seed_gives_the_same_packets() -> None:
    def events(seed: int) -> list[PacketEvent]:
        log: list[PacketEvent] = []

        async def main() -> None:
            world = World(SYMMETRIC, Line(delay=0.01, jitter=0.01, loss=0.2, duplicate=0.2, reorder=0.2))
            world.network.watch(log.append)
            for number in range(50):
                world.inside.send(b"%d" % number, world.x.at[number % 2])
            await asyncio.sleep(1)

        virtual(main, seed)
        return log

    assert events(1) == events(1)
    assert [event.destination for event in events(1)] != [event.destination for event in events(2)]


async def test_it_works_in_real_time_too() -> None:
    network = MemoryNetwork(seed=1)
    line = Line(delay=0.01)
    one = Peer(network.host("one", "198.51.100.1/24", line=line), 1)
    other = network.host("other", "198.51.100.2/24")
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    other.bind(Endpoint("198.51.100.2", 1), lambda data, source: got.set_result(data))
    began = network.now
    one.send(b"hello", Endpoint("198.51.100.2", 1))
    assert await asyncio.wait_for(got, 5) == b"hello"
    assert network.now - began >= 0.01


# -- faults --------------------------------------------------------------------------------------


def test_cut_mend_partition_and_heal() -> None:
    async def main() -> None:
        world = World(FULL_CONE)
        network, x, y = world.network, world.x, world.y
        inside = world.inside

        async def reaches(sender: Peer, receiver: Peer) -> bool:
            before = len(receiver.got)
            sender.send(b"?", receiver.at[0])
            await asyncio.sleep(1)
            return len(receiver.got) > before

        network.at(5, network.cut, inside.host, x.host)
        assert await reaches(inside, x)
        await asyncio.sleep(5)
        assert not await reaches(inside, x), "the NAT between them does not hide who it is"
        assert await reaches(inside, y)
        network.mend(inside.host, x.host)
        assert await reaches(inside, x)
        x.host.partition()
        assert not await reaches(x, y)
        assert not await reaches(y, x)
        x.host.heal()
        assert await reaches(x, y)
        assert network.fates["cut"] == 1
        assert network.fates["partition"] == 2

    virtual(main)


def test_a_machine_reaches_itself() -> None:
    async def main() -> None:
        world = World(PORT_RESTRICTED)
        second = Endpoint("192.168.1.2", 5001)
        got: list[Endpoint] = []
        world.inside.host.bind(second, lambda data, source: got.append(source))
        world.inside.send(b"?", second)
        await asyncio.sleep(0.001)
        assert got == [INSIDE]

    virtual(main)


def test_mistakes_in_building_are_told() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        host = network.host("one", "198.51.100.1/24")
        with pytest.raises(ValueError, match="already"):
            network.host("one")
        with pytest.raises(ValueError, match="taken"):
            network.host("two", "198.51.100.1/24")
        with pytest.raises(ValueError, match="firewall"):
            network.lan("home", None, PORT_RESTRICTED)
        with pytest.raises(ValueError, match="firewall"):
            network.lan("home", WAN, FIREWALL)
        with pytest.raises(ValueError, match="not appear to be"):
            host.plug("198.51.100.300/24")
        local = Endpoint("198.51.100.1", 1)
        host.bind(local, lambda data, source: None)
        with pytest.raises(OSError, match="in use"):
            host.bind(local, lambda data, source: None)
        host.unbind(local)
        host.unbind(local)
        host.bind(local, lambda data, source: None)
        assert "one" in repr(host)

    virtual(main)
