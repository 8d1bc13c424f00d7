"""The in-memory edge: what a node sees of the network through the same interface as on a real machine."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.testing.worlds import virtual
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import NetworkError
from warpgate_core.nat import Filtering, Mapping
from warpgate_core.net.edge import DatagramSocket, LocalInterface
from warpgate_core.net.stream import StreamLink
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import LeakError
from warpgate_core.testing.nat import FIREWALL, PORT_RESTRICTED, SYMMETRIC, NatRules
from warpgate_core.testing.network import MemoryNetwork


def test_interfaces_show_cards_nats_and_mapped_endpoints() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        home = network.lan("home", "203.0.113.1", PORT_RESTRICTED)
        network.add_gateway(home, None, FIREWALL, family=Family.IP6)
        host = network.host("alice", "192.168.1.2/24", "2001:db8:1::2/64", zone=home)
        host.plug("198.51.100.5/24", nic=1)
        alice = network.edge(host, port=5000)
        await alice.start()
        behind, firewalled, open_ = alice.interfaces
        assert [face.nic for face in alice.interfaces] == [0, 0, 1]
        assert [face.name for face in alice.interfaces] == ["eth0", "eth0", "eth1"]
        assert [face.prefix for face in alice.interfaces] == [24, 64, 24]
        assert behind.internal == Endpoint("192.168.1.2", 5000)
        assert behind.external == Endpoint("203.0.113.1", 5000)
        assert behind.nat == PORT_RESTRICTED.profile
        assert behind.tcp_external is None
        assert firewalled.external == firewalled.internal
        assert firewalled.nat.mapping is Mapping.NONE
        assert firewalled.nat.filtering is Filtering.APDF
        assert firewalled.tcp_external is None
        assert open_.external == open_.tcp_external == open_.internal
        assert open_.nat.label == "open"
        home.gateways[Family.IP4].forward("tcp", 443, behind.internal)
        assert alice.interfaces[0].tcp_external == Endpoint("203.0.113.1", 443)
        assert [sock.local for sock in alice.sockets] == [face.internal for face in alice.interfaces]
        await alice.close()
        assert alice.interfaces == ()
        assert alice.sockets == ()

    virtual(main)


def test_behind_two_nats_the_strictest_counts() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        carrier = network.lan("carrier", "203.0.113.9", SYMMETRIC)
        home = network.lan("home", "100.64.0.7", NatRules(filtering=Filtering.EIF), outer=carrier)
        island = network.lan("island", "10.0.0.9", PORT_RESTRICTED, outer=network.lan("x", "203.0.113.8"))
        island.gateways[Family.IP4].outer.gateways.clear()  # its provider has lost the internet
        faces: list[LocalInterface] = []
        for zone in (home, island):
            edge = network.edge(network.host(zone.name, "192.168.1.2/24", zone=zone))
            await edge.start()
            faces += edge.interfaces
            await edge.close()
        assert faces[0].nat.mapping is Mapping.APDM
        assert faces[0].nat.filtering is Filtering.APDF
        assert faces[0].external is not None
        assert faces[0].external.host == "203.0.113.9"
        assert faces[1].external is None

    virtual(main)


def test_the_mapping_that_was_learnt_is_the_one_that_is_used_and_is_kept_alive() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        home = network.lan("home", "203.0.113.1", NatRules(filtering=Filtering.EIF, lifetime=30))
        alice = network.edge(network.host("alice", "192.168.1.2/24", zone=home))
        bob = network.edge(network.host("bob", "198.51.100.7/24"))
        await asyncio.gather(alice.start(), bob.start())
        got: list[tuple[bytes, Endpoint, DatagramSocket]] = []
        alice.on_datagram = lambda *args: got.append(args)
        await asyncio.sleep(3600)
        external = alice.interfaces[0].external
        assert external is not None
        bob.sockets[0].send(b"hello", external)
        await asyncio.sleep(1)
        assert got == [(b"hello", bob.sockets[0].local, alice.sockets[0])]
        await alice.close()
        await asyncio.sleep(31)
        bob.sockets[0].send(b"hello", external)
        await asyncio.sleep(1)
        assert network.fates["filtered"] == 1, "after it closed, the mapping dies"
        await bob.close()

    virtual(main)


def test_datagrams_go_to_who_is_attached_and_else_to_the_edge() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        alice = network.edge(network.host("alice", "198.51.100.1/24"))
        bob = network.edge(network.host("bob", "198.51.100.2/24"))
        await asyncio.gather(alice.start(), bob.start())
        here, there = alice.sockets[0], bob.sockets[0]
        attached: list[bytes] = []
        rest: list[bytes] = []
        here.attach(there.local, attached.append)
        with pytest.raises(ValueError, match="already"):
            here.attach(there.local, attached.append)
        there.send(b"1", here.local)
        await asyncio.sleep(1)
        here.detach(there.local)
        here.detach(there.local)
        there.send(b"nobody listens", here.local)
        await asyncio.sleep(1)
        alice.on_datagram = lambda data, remote, sock: rest.append(data)
        there.send(b"2", here.local)
        await asyncio.sleep(1)
        assert (attached, rest) == ([b"1"], [b"2"])
        await bob.close()
        there.send(b"from a closed socket", here.local)
        await asyncio.sleep(1)
        assert rest == [b"2"]
        await alice.close()

    virtual(main)


def test_dialling_and_accepting() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        alice = network.edge(network.host("alice", "198.51.100.1/24"))
        bob = network.edge(network.host("bob", "198.51.100.2/24"))
        await asyncio.gather(alice.start(), bob.start())
        accepted: asyncio.Queue[StreamLink] = asyncio.Queue()
        bob.on_stream = accepted.put_nowait
        target = bob.interfaces[0].internal
        link = await alice.dial(target)
        shared = await alice.dial(target, local=alice.interfaces[0].internal)
        assert shared.local == alice.interfaces[0].internal, "from the port that the listener is on"
        assert link.local.port != shared.local.port
        for dialled in (link, shared):
            other = await accepted.get()
            assert other.remote == dialled.local
            other.abort()
            dialled.abort()
        with pytest.raises(NetworkError, match="refused") as caught:
            await alice.dial(Endpoint("198.51.100.2", 1))
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        with pytest.raises(NetworkError, match="unreachable"):
            await alice.dial(Endpoint("2001:db8::1", 1))
        with pytest.raises(NetworkError, match="unreachable"):
            await alice.dial(target, local=Endpoint("10.9.9.9", 0))
        bob.on_stream = None
        unwanted = await alice.dial(target)
        assert await unwanted.read_some() == b"", "nobody wants it"
        unwanted.abort()
        await asyncio.gather(alice.close(), bob.close())
        with pytest.raises(NetworkError, match="not open"):
            await alice.dial(target)

    virtual(main)


def test_an_edge_that_is_closed_while_dialling() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        line = Line(delay=0.1)
        alice = network.edge(network.host("alice", "198.51.100.1/24", line=line))
        bob = network.edge(network.host("bob", "198.51.100.2/24", line=line))
        await asyncio.gather(alice.start(), bob.start())
        accepted: list[StreamLink] = []
        bob.on_stream = accepted.append
        dial = asyncio.create_task(alice.dial(bob.interfaces[0].internal))
        await asyncio.sleep(0.1)
        await alice.close()
        with pytest.raises(NetworkError, match="not open"):
            await dial
        await asyncio.sleep(1)
        for link in accepted:
            assert await link.read_some() == b""
            link.abort()
        await bob.close()

    virtual(main)


def test_a_taken_port_and_a_machine_without_a_card_are_told() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        host = network.host("alice", "198.51.100.1/24")
        first, second = network.edge(host, port=5000), network.edge(host, port=5000)
        await first.start()
        with pytest.raises(NetworkError, match="port 5000"):
            await second.start()
        assert len(first.sockets) == 1
        third = network.edge(host)
        await third.start()
        assert third.interfaces[0].internal.port != 5000
        await asyncio.gather(first.close(), second.close(), third.close())
        with pytest.raises(NetworkError, match="no network card"):
            await network.edge(network.host("bare")).start()

    virtual(main)


def test_a_failed_second_edge_does_not_take_the_first_ones_port() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        host = network.host("alice", "198.51.100.1/24")
        first, second = network.edge(host, port=5000), network.edge(host, port=5000)
        await first.start()
        with pytest.raises(NetworkError):
            await second.start()
        peer = network.edge(network.host("bob", "198.51.100.2/24"))
        await peer.start()
        accepted: asyncio.Queue[StreamLink] = asyncio.Queue()
        got: list[bytes] = []
        first.on_stream = accepted.put_nowait
        first.on_datagram = lambda data, remote, sock: got.append(data)
        peer.sockets[0].send(b"x", Endpoint("198.51.100.1", 5000))
        link = await peer.dial(Endpoint("198.51.100.1", 5000))
        assert got == [b"x"]
        link.abort()
        (await accepted.get()).abort()
        await asyncio.gather(first.close(), peer.close())

    virtual(main)


def test_a_port_that_is_half_taken_is_given_back() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        host = network.host("alice", "198.51.100.1/24", "198.51.100.2/24")
        taken = Endpoint("198.51.100.2", 5000)
        host.bind(taken, lambda data, source: None)
        with pytest.raises(NetworkError, match="in use"):
            await network.edge(host, port=5000).start()
        host.unbind(taken)
        edge = network.edge(host, port=5000)
        await edge.start()
        await edge.close()

    virtual(main)


def test_a_change_of_network_is_followed() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        host = network.host("alice", "198.51.100.1/24")
        edge = network.edge(host)
        changes: list[int] = []
        edge.on_change = lambda: changes.append(len(edge.interfaces))
        await edge.start()
        old = host.cards[0]
        wifi = host.plug("203.0.113.7/24", nic=1, name="wlan0")
        edge.refresh()
        host.unplug(old)
        edge.refresh()
        assert changes == [2, 1]
        assert [face.name for face in edge.interfaces] == ["wlan0"]
        assert [sock.local.host for sock in edge.sockets] == [wifi.address]
        await edge.close()

    virtual(main)


def test_socket_for_prefers_the_same_lan() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        home = network.lan("home", "203.0.113.1")
        host = network.host("alice", "192.168.1.2/24", zone=home)
        host.plug("10.0.0.2/8", network.lan("office", "203.0.113.2"), nic=1)
        host.plug("2001:db8::2/64", nic=2)
        edge = network.edge(host)
        await edge.start()
        chosen = {}
        for remote in ("192.168.1.9", "10.3.3.3", "198.51.100.1", "2001:db8:9::1"):
            sock = edge.socket_for(Endpoint(remote, 1))
            assert sock is not None
            chosen[remote] = sock.local.host
        assert chosen == {
            "192.168.1.9": "192.168.1.2",
            "10.3.3.3": "10.0.0.2",
            "198.51.100.1": "192.168.1.2",
            "2001:db8:9::1": "2001:db8::2",
        }
        await edge.close()

    virtual(main)


def test_an_edge_that_nobody_closed_is_a_leak() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        await network.edge(network.host("alice", "198.51.100.1/24")).start()

    with pytest.raises(LeakError, match="MemorySocket alice"):
        virtual(main)
