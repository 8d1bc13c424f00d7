"""Every NAT of the lab does what its entry says, measured with plain sockets, UDP and TCP."""

from __future__ import annotations

import socket
import time

import pytest

from tests.lab import Lab, LabError, Nat
from tests.lab.nat_rules import SEQUENCE, chunk_of
from tests.lab.proof import (
    Measured,
    gets_out,
    measure_tcp,
    measure_udp,
    reach_by_outer_endpoint,
    simultaneous_open,
)
from warpgate_core.nat import Allocation, Filtering, Mapping

FEW = [Nat.PORT_RESTRICTED, Nat.SYMMETRIC_RANDOM]
CONES = [nat for nat in Nat if nat.behaviour.mapping is Mapping.EIM and not nat.behaviour.blocked]


def every(nats: list[Nat]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("nat", [pytest.param(nat, id=nat.slug) for nat in nats])


def check(nat: Nat, seen: Measured) -> None:
    what = nat.behaviour
    expected = (what.mapping, what.filtering, what.allocation)
    assert (seen.mapping, seen.filtering, seen.allocation) == expected, seen


@every([nat for nat in Nat if nat.behaviour.udp])
def test_udp_behaves_as_the_entry_says(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    check(nat, measure_udp(net.home("a", nat), net.server("prober", addresses=2)))


@every(FEW)
def test_a_delayed_line_changes_nothing(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    a, prober = net.home("a", nat, delay=0.005), net.server("prober", addresses=2)
    check(nat, measure_udp(a, prober))
    check(nat, measure_tcp(a, prober))


@every([nat for nat in Nat if not nat.behaviour.tcp_ports])
def test_tcp_behaves_as_the_entry_says(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    check(nat, measure_tcp(net.home("a", nat), net.server("prober", addresses=2)))


@every(list(Nat))
def test_only_what_is_not_blocked_gets_out(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    a, server = net.home("a", nat), net.server("server")
    assert gets_out(a, server, socket.SOCK_DGRAM, 443, allowed=443) is nat.behaviour.udp
    assert gets_out(a, server, socket.SOCK_DGRAM, 3478, allowed=443) is nat.behaviour.udp
    assert gets_out(a, server, socket.SOCK_STREAM, 1883, allowed=443) is (not nat.behaviour.tcp_ports)
    assert gets_out(a, server, socket.SOCK_STREAM, 443, allowed=443)


@every([nat for nat in Nat if nat.behaviour.udp])
def test_the_outside_sees_the_outer_address(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    a, server = net.home("a", nat), net.server("server")
    with a.socket(host=a.ip4) as inner, server.socket(host=server.ip4) as outer:
        inner.sendto(b"x", outer.getsockname())
        source = outer.recvfrom(10)[1][0]
    assert source == (a.home.outer4 if nat.behaviour.translates else a.ip4)
    assert (source == a.home.site.wan4) is (nat.behaviour.translates and not nat.behaviour.carrier)


@every([nat for nat in Nat if nat.behaviour.udp and nat.behaviour.translates])
def test_unsolicited_packets_do_not_disturb_the_mapping(lab: Lab, nat: Nat) -> None:
    """A peer's probe that comes too early must not cost the mapping its port."""
    net = lab.internet((4,))
    a, server = net.home("a", nat), net.server("prober", addresses=2)
    with (
        a.socket(host=a.ip4) as inner,
        server.socket(host=server.ip4, port=4000) as known,
        server.socket(host=server.ip4, port=4001) as early,
    ):
        inner.sendto(b"x", known.getsockname())
        mapped = known.recvfrom(10)[1]
        early.sendto(b"too early", mapped)
        known.sendto(b"fence", mapped)
        while inner.recv(100) != b"fence":
            pass  # where anybody may send in, the early packet is here, and no harm is done
        inner.sendto(b"x", early.getsockname())
        port = early.recvfrom(10)[1][1]
    assert (port == mapped[1]) is (nat.behaviour.mapping is Mapping.EIM)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
def test_ports_of_a_sequence_and_of_a_chunk(lab: Lab, kind: socket.SocketKind) -> None:
    net = lab.internet((4,))
    measure = measure_udp if kind == socket.SOCK_DGRAM else measure_tcp
    prober = net.server("prober", addresses=2)
    outer = [port for _, port in measure(net.home("a", Nat.SYMMETRIC_SEQUENTIAL), prober).ports]
    assert outer == list(range(outer[0], outer[0] + len(outer)))
    assert set(outer) <= set(SEQUENCE)
    b = net.home("b", Nat.PORT_CHUNKED)
    assert {port for _, port in measure(b, prober).ports} <= set(chunk_of(b.home.site.wan4))


@every([nat for nat in CONES if not nat.behaviour.carrier])
@pytest.mark.parametrize("hairpin", [True, False], ids=["hairpin", "none"])
def test_hairpin(lab: Lab, nat: Nat, hairpin: bool) -> None:
    net = lab.internet((4,))
    a = net.home("a", nat, hairpin=hairpin)
    source = reach_by_outer_endpoint(a, a.home.machine("a2"), net.server("server"))
    assert (source is not None) is hairpin
    assert source is None or source[0] == a.home.outer4  # RFC 4787 REQ-9


@every([nat for nat in CONES if not nat.behaviour.carrier])
def test_a_nat_that_hairpins_is_otherwise_the_same(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    a, prober = net.home("a", nat, hairpin=True), net.server("prober", addresses=2)
    check(nat, measure_udp(a, prober))
    check(nat, measure_tcp(a, prober))


@every([Nat.SYMMETRIC_RANDOM, Nat.SYMMETRIC_SEQUENTIAL, Nat.PORT_CHUNKED])
def test_a_symmetric_nat_cannot_hairpin(lab: Lab, nat: Nat) -> None:
    with pytest.raises(ValueError, match="no hairpin"):
        lab.internet((4,)).home("a", nat, hairpin=True)


@every([Nat.FULL_CONE, Nat.ADDRESS_RESTRICTED])
def test_two_machines_of_a_cone_never_share_an_outer_port(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    a, server = net.home("a", nat), net.server("server", addresses=2)
    other = a.home.machine("a2")
    with (
        a.socket(host=a.ip4, port=5000) as one,
        other.socket(host=other.ip4, port=5000) as two,
        server.socket(host=server.addresses[0]) as near,
        server.socket(host=server.addresses[1]) as far,
    ):
        one.sendto(b"x", near.getsockname())
        first = near.recvfrom(10)[1]
        two.sendto(b"x", far.getsockname())
        second = far.recvfrom(10)[1]
        assert first[1] == 5000
        assert second[1] != 5000
        near.sendto(b"one", first)
        far.sendto(b"two", second)
        assert (one.recv(10), two.recv(10)) == (b"one", b"two")


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "silent"])
def test_an_unsolicited_syn(lab: Lab, reset: bool) -> None:
    net = lab.internet((4,))
    a, server = net.home("a", Nat.PORT_RESTRICTED, syn_reset=reset), net.server("server")
    with server.socket(socket.SOCK_STREAM) as dialler:
        if reset:
            with pytest.raises(ConnectionRefusedError):
                dialler.connect((a.home.outer4, 4000))
        else:
            dialler.settimeout(0.3)  # an answer would be here in a millisecond
            with pytest.raises(TimeoutError):
                dialler.connect((a.home.outer4, 4000))


@every([Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC_RANDOM])
def test_an_idle_mapping_ends(lab: Lab, nat: Nat) -> None:
    """Time is what this is about, so it passes: one second."""
    net = lab.internet((4,))
    a, server = net.home("a", nat, lifetime=1), net.server("server")
    with (
        a.socket(host=a.ip4) as inner,
        server.socket(host=server.ip4) as outer,
        a.socket(host=a.ip4) as fresh,
    ):
        inner.sendto(b"x", outer.getsockname())
        mapped = outer.recvfrom(10)[1]
        time.sleep(1.3)
        outer.sendto(b"too late", mapped)
        fresh.sendto(b"x", outer.getsockname())
        outer.sendto(b"fence", outer.recvfrom(10)[1])
        assert fresh.recv(10) == b"fence"
        inner.setblocking(False)
        with pytest.raises(BlockingIOError):
            inner.recv(10)


def test_two_homes_below_one_carrier(lab: Lab) -> None:
    net = lab.internet()
    isp = net.carrier("isp", Nat.PORT_RESTRICTED, hairpin=True)
    one, two = isp.home("a", Nat.PORT_RESTRICTED), isp.home("b", Nat.PORT_RESTRICTED, delay=0.001)
    assert one.home.outer4 == two.home.outer4 == isp.outer4
    prober = net.server("prober", addresses=2)
    for client in (one, two):
        seen = measure_udp(client, prober)
        assert (seen.mapping, seen.filtering) == (Mapping.EIM, Filtering.APDF)
    assert simultaneous_open(net, one, two)
    with one.socket(family=6) as inner, prober.socket(family=6, host=prober.ip6) as outer:
        inner.sendto(b"x", outer.getsockname())
        assert outer.recvfrom(10)[1][0] == one.ip6  # a carrier translates IPv4 only


def test_what_cannot_be_below_a_carrier(lab: Lab) -> None:
    net = lab.internet()
    isp = net.carrier("isp", Nat.SYMMETRIC_RANDOM)
    with pytest.raises(LabError, match="no public addresses"):
        isp.home("a", Nat.OPEN)
    with pytest.raises(LabError, match="a carrier below a carrier"):
        isp.home("b", Nat.CARRIER_EIM)
    with pytest.raises(LabError, match="cannot run a NAT of the kind open"):
        net.carrier("odd", Nat.OPEN)


@every([*CONES, Nat.UDP_BLOCKED])
def test_simultaneous_open_between_endpoint_independent_nats(lab: Lab, nat: Nat) -> None:
    net = lab.internet((4,))
    assert simultaneous_open(net, net.home("a", nat), net.home("b", nat, delay=0.005))


def test_names_are_what_people_type() -> None:
    assert all(Nat.named(nat.slug) is nat for nat in Nat)
    assert len({id(nat) for nat in Nat}) == len(Nat.__members__), "two names stand for one NAT"
    with pytest.raises(ValueError, match="there are open, full-cone"):
        Nat.named("nonsense")


def test_the_judge_tells_allocations_apart() -> None:
    from tests.lab.proof import _allocation

    inner = range(100, 112)
    for outer, expected in (
        (list(inner), Allocation.PRESERVED),
        (list(range(500, 548, 4)), Allocation.SEQUENTIAL),
        ([5, 900, 44, 1, 700, 333, 12, 801, 90, 91, 2, 3], Allocation.CHUNKED),
        ([5, 60000, 44, 1, 700, 333, 12, 801, 90, 91, 2, 3], Allocation.RANDOM),
    ):
        assert _allocation(list(zip(inner, outer, strict=True))) is expected
