"""NATs in the in-memory network behave by the book (RFC 4787), and holes are punched where they can be."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.testing.worlds import INSIDE, WAN, Peer, World, virtual
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.nat import Allocation, Filtering, Mapping
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.nat import (
    ADDRESS_RESTRICTED,
    FIREWALL,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
    NatRules,
)
from warpgate_core.testing.network import MemoryNetwork

# -- NATs ----------------------------------------------------------------------------------------

MAPPINGS = {  # who sees the same external endpoint: x:1, x:2, y:1
    Mapping.EIM: (True, True),
    Mapping.ADM: (True, False),
    Mapping.APDM: (False, False),
}
FILTERS = {  # who gets in after x:1 was sent to: x:1, x:2, y:1
    Filtering.EIF: (True, True, True),
    Filtering.ADF: (True, True, False),
    Filtering.APDF: (True, False, False),
}


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("allocation", [Allocation.PRESERVED, Allocation.SEQUENTIAL, Allocation.RANDOM])
def test_mapping(mapping: Mapping, allocation: Allocation) -> None:
    async def main() -> None:
        world = World(NatRules(mapping, allocation=allocation, step=3))
        for remote in (world.x.at[0], world.x.at[1], world.y.at[0]):
            world.inside.send(b"?", remote)
            world.inside.send(b"again", remote)
        await asyncio.sleep(1)
        (x1, x1_again, x2, *_), (y1, _) = world.x.sources(), world.y.sources()
        assert x1 == x1_again
        assert (x1 == x2, x1 == y1) == MAPPINGS[mapping]
        assert {x1.host, x2.host, y1.host} == {WAN}
        if allocation is Allocation.PRESERVED:
            assert x1.port == INSIDE.port
        if allocation is Allocation.SEQUENTIAL and mapping is Mapping.APDM:
            assert (x2.port - x1.port, y1.port - x2.port) == (3, 3)

    virtual(main)


@pytest.mark.parametrize("filtering", FILTERS)
def test_filtering(filtering: Filtering) -> None:
    async def main() -> None:
        world = World(NatRules(Mapping.EIM, filtering))
        external = Endpoint(WAN, INSIDE.port)
        world.x.send(b"too early", external)
        await asyncio.sleep(1)
        assert world.inside.got == [], "nobody gets in before something went out"
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(1)
        for peer, port in ((world.x, 0), (world.x, 1), (world.y, 0)):
            peer.send(b"in", external, port)
        await asyncio.sleep(1)
        allowed = zip((world.x.at[0], world.x.at[1], world.y.at[0]), FILTERS[filtering], strict=True)
        assert world.inside.sources() == [source for source, ok in allowed if ok]
        assert world.network.fates["filtered"] == 1 + FILTERS[filtering].count(False)

    virtual(main)


def test_a_mapping_dies_of_silence_from_inside_and_not_otherwise() -> None:
    async def main() -> None:
        world = World(NatRules(lifetime=60))
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(50)
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(50)
        world.x.send(b"kept", Endpoint(WAN, 5000))
        await asyncio.sleep(20)
        world.x.send(b"inbound packets do not keep it", Endpoint(WAN, 5000))
        await asyncio.sleep(1)
        assert [data for data, *_ in world.inside.got] == [b"kept"]

    virtual(main)


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin(hairpin: bool) -> None:
    async def main() -> None:
        world = World(NatRules(hairpin=hairpin))
        neighbour = Peer(world.network.host("neighbour", "192.168.1.3/24", zone=world.home), 6000)
        world.inside.send(b"?", world.x.at[0])
        neighbour.send(b"?", world.x.at[0])
        await asyncio.sleep(1)
        world.inside.send(b"out and back", Endpoint(WAN, 6000))
        await asyncio.sleep(1)
        neighbour.send(b"out and back", Endpoint(WAN, 5000))
        await asyncio.sleep(1)
        assert world.inside.sources() == ([Endpoint(WAN, 6000)] if hairpin else [])
        assert world.network.fates["no hairpin"] == (0 if hairpin else 2)
        neighbour.send(b"direct", INSIDE)
        await asyncio.sleep(1)
        assert world.inside.got[-1][0] == b"direct", "within the LAN no NAT is in the way"

    virtual(main)


def test_two_nats_in_series() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        carrier = network.lan("carrier", "203.0.113.9", SYMMETRIC)
        home = network.lan("home", "100.64.0.7", PORT_RESTRICTED, outer=carrier)
        inside = Peer(network.host("inside", "192.168.1.2/24", zone=home), 5000)
        x = Peer(network.host("x", "198.51.100.1/24"), 1)
        inside.send(b"?", x.at[0])
        await asyncio.sleep(1)
        (seen,) = x.sources()
        assert seen.host == "203.0.113.9"
        x.send(b"!", seen)
        await asyncio.sleep(1)
        assert inside.sources() == [x.at[0]]
        card = inside.host.cards[0]
        assert [nat.address for nat in network.gateways(card)] == ["100.64.0.7", "203.0.113.9"]
        observed = network.observe(card, INSIDE)
        assert observed is not None
        assert observed.host == "203.0.113.9"
        assert observed != seen, "a symmetric NAT shows every peer another port"

    virtual(main)


def test_two_homes_may_use_the_same_addresses() -> None:
    async def main() -> None:
        world = World(FULL_CONE)
        other = world.network.lan("other", "203.0.113.2", FULL_CONE)
        twin = Peer(world.network.host("twin", "192.168.1.2/24", zone=other), 5000)
        twin.send(b"?", world.x.at[0])
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(1)
        assert sorted(world.x.sources()) == [Endpoint(WAN, 5000), Endpoint("203.0.113.2", 5000)]
        world.inside.send(b"hello twin", Endpoint("203.0.113.2", 5000))
        await asyncio.sleep(1)
        assert twin.sources() == [Endpoint(WAN, 5000)]

    virtual(main)


@pytest.mark.parametrize("family", Family)
def test_a_firewall_translates_nothing_and_lets_answers_in(family: Family) -> None:
    addresses = {
        Family.IP4: ("198.51.100.77", "198.51.100.1", 24),
        Family.IP6: ("2001:db8:1::2", "2001:db8:2::1", 64),
    }
    mine, theirs, prefix = addresses[family]

    async def main() -> None:
        network = MemoryNetwork()
        zone = network.lan("zone", None, FIREWALL, family=family)
        host = network.host("inside", f"{mine}/{prefix}", zone=zone)
        inside = Peer(host, 5000)
        x = Peer(network.host("x", f"{theirs}/{prefix}"), 1, 2)
        x.send(b"unasked", inside.at[0])
        await asyncio.sleep(1)
        inside.send(b"?", x.at[0])
        await asyncio.sleep(1)
        assert x.sources() == inside.at
        x.send(b"answer", inside.at[0])
        x.send(b"from another port", inside.at[0], 1)
        await asyncio.sleep(1)
        assert [data for data, *_ in inside.got] == [b"answer"]
        assert network.observe(host.cards[0], inside.at[0]) == inside.at[0]
        host.unplug(host.cards[0])
        x.send(b"gone", inside.at[0])
        await asyncio.sleep(1)
        assert network.fates["no route"] == 1

    virtual(main)


def test_a_static_port_mapping_lets_everybody_in() -> None:
    async def main() -> None:
        world = World(SYMMETRIC)
        nat = world.home.gateways[Family.IP4]
        nat.forward("udp", 7777, INSIDE)
        world.x.send(b"in", Endpoint(WAN, 7777))
        await asyncio.sleep(1)
        assert world.inside.sources() == [world.x.at[0]]
        world.inside.send(b"out", world.x.at[0])
        await asyncio.sleep(1)
        assert world.x.sources() == [Endpoint(WAN, 7777)], "and answers come from the mapped port"
        assert nat.forwarded("udp", INSIDE) == Endpoint(WAN, 7777)
        assert nat.forwarded("tcp", INSIDE) is None

    virtual(main)


def test_a_rebooted_nat_has_forgotten_everything() -> None:
    async def main() -> None:
        world = World(FULL_CONE)
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(1)
        world.home.gateways[Family.IP4].reboot()
        world.x.send(b"in", Endpoint(WAN, 5000))
        await asyncio.sleep(1)
        assert world.inside.got == []

    virtual(main)


def test_udp_can_be_blocked() -> None:
    async def main() -> None:
        world = World(NatRules(udp=False))
        world.inside.send(b"?", world.x.at[0])
        await asyncio.sleep(1)
        assert world.x.got == []
        assert world.network.fates["blocked"] == 1
        assert world.network.observe(world.inside.host.cards[0], INSIDE) is None

    virtual(main)


@given(
    st.sampled_from(
        [SYMMETRIC, SYMMETRIC_SEQUENTIAL, NatRules(chunk=(40_000, 64), allocation=Allocation.CHUNKED)]
    )
)
def test_ports_are_never_given_twice(rules: NatRules) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        home = network.lan("home", WAN, rules)
        nat = home.gateways[Family.IP4]
        remote = Endpoint("198.51.100.1", 1)
        mapped = [nat.map("udp", Endpoint("192.168.1.2", port), remote) for port in range(64)]
        assert len(set(mapped)) == 64
        if rules.chunk:
            assert {endpoint.port for endpoint in mapped} == set(range(40_000, 40_064))
            with pytest.raises(RuntimeError, match="no free port"):
                nat.map("udp", Endpoint("192.168.1.2", 999), remote)

    virtual(main)


# -- what strategies live on -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "works"),
    [
        (PORT_RESTRICTED, PORT_RESTRICTED, True),
        (FULL_CONE, PORT_RESTRICTED, True),
        (ADDRESS_RESTRICTED, SYMMETRIC, True),
        (FULL_CONE, SYMMETRIC, True),
        (PORT_RESTRICTED, SYMMETRIC, False),
        (SYMMETRIC, SYMMETRIC, False),
    ],
)
def test_hole_punching_works_where_it_does_in_the_world(left: NatRules, right: NatRules, works: bool) -> None:
    """Both send to what STUN shows, then to whatever they hear from (RFC 5128 section 3.3)."""

    async def main() -> None:
        network = MemoryNetwork()
        ends: list[tuple[Host, Endpoint, Endpoint]] = []
        heard: list[set[Endpoint]] = [set(), set()]

        def hear(number: int, data: bytes, source: Endpoint) -> None:
            heard[number].add(source)

        for number, rules in enumerate((left, right)):
            zone = network.lan(f"home{number}", f"203.0.113.{number + 1}", rules, line=Line(delay=0.02))
            host = network.host(f"host{number}", "192.168.1.2/24", zone=zone)
            local = Endpoint("192.168.1.2", 5000)
            host.bind(local, partial(hear, number))
            external = network.observe(host.cards[0], local)
            assert external is not None
            ends.append((host, local, external))
        for _ in range(10):
            for number, (host, local, _) in enumerate(ends):
                for remote in {ends[1 - number][2], *heard[number]}:
                    host.send(b"probe", local, remote)
            await asyncio.sleep(0.05)
        assert (bool(heard[0]), bool(heard[1])) == (works, works)

    virtual(main)


def test_an_unexpected_packet_may_cost_the_mapping_to_its_sender_and_to_nobody_else() -> None:
    async def main() -> None:
        world = World(NatRules(unsolicited="punish"))
        world.inside.send(b"open", world.y.at[0])
        await asyncio.sleep(1)
        world.x.send(b"unexpected", Endpoint(WAN, INSIDE.port))
        await asyncio.sleep(1)
        for remote in (world.x.at[0], world.x.at[1], world.y.at[0]):
            world.inside.send(b"?", remote)
        await asyncio.sleep(1)
        spoiled, other = world.x.sources()
        assert spoiled.port != INSIDE.port == other.port
        assert {source.port for source in world.y.sources()} == {INSIDE.port}
        assert world.inside.got == []
        world.x.send(b"expected now", spoiled)
        await asyncio.sleep(1)
        assert [data for data, *_ in world.inside.got] == [b"expected now"]

    virtual(main)


@pytest.mark.parametrize(
    ("ttl", "filtering", "fate"),
    [
        (2, Filtering.APDF, "ttl"),  # beyond our own NAT
        (3, Filtering.APDF, "filtered"),  # at the other NAT
        (3, Filtering.EIF, "ttl"),  # behind it
        (4, Filtering.EIF, "delivered"),
    ],
)
def test_a_packet_gets_as_far_as_its_time_to_live(ttl: int, filtering: Filtering, fate: str) -> None:
    async def main() -> None:
        world = World(FULL_CONE)
        there = Endpoint("203.0.113.2", 6000)
        home = world.network.lan("theirs", there.host, NatRules(filtering=filtering))
        Peer(world.network.host("other", "192.168.1.2/24", zone=home), 6000).send(b"open", world.y.at[0])
        await asyncio.sleep(1)
        fates: list[str] = []
        world.network.watch(lambda event: fates.append(event.fate))
        world.inside.host.send(b"?", INSIDE, there, ttl)
        await asyncio.sleep(1)
        assert fates == ["sent", fate]
        world.x.send(b"unexpected", Endpoint(WAN, INSIDE.port))
        await asyncio.sleep(1)
        assert world.inside.sources() == [world.x.at[0]], "it got far enough to make a mapping"

    virtual(main)
