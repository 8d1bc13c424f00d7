"""Every NAT of the lab does what its entry says, measured with plain sockets, UDP and TCP."""

from __future__ import annotations

import pytest

from tests.lab import Lab, Nat
from tests.lab.proof import measure_tcp, measure_udp, simultaneous_open
from warpgate_core.nat import Mapping

NATS = [pytest.param(nat, id=nat.slug) for nat in Nat]


@pytest.mark.parametrize("nat", NATS)
@pytest.mark.parametrize("delay", [0.0, 0.01], ids=["veth", "delayed"])
def test_udp_behaves_as_the_entry_says(lab: Lab, nat: Nat, delay: float) -> None:
    net = lab.internet()
    seen = measure_udp(net.home("a", nat, delay=delay), net.server("prober", addresses=2))
    expected = nat.behaviour
    assert (seen.mapping, seen.filtering, seen.allocation) == (
        expected.mapping,
        expected.filtering,
        expected.allocation,
    ), seen


@pytest.mark.parametrize("nat", NATS)
def test_tcp_behaves_as_the_entry_says(lab: Lab, nat: Nat) -> None:
    net = lab.internet()
    seen = measure_tcp(net.home("a", nat), net.server("prober", addresses=2))
    expected = nat.behaviour
    assert (seen.mapping, seen.filtering, seen.allocation) == (
        expected.mapping,
        expected.filtering,
        expected.allocation,
    ), seen


@pytest.mark.parametrize("nat", NATS)
def test_the_outside_sees_the_routers_address(lab: Lab, nat: Nat) -> None:
    net = lab.internet()
    a = net.home("a", nat)
    server = net.server("server")
    with a.socket(host=a.ip4) as inner, server.socket(host=server.ip4) as outer:
        inner.sendto(b"x", outer.getsockname())
        source = outer.recvfrom(10)[1][0]
    assert source == (a.ip4 if nat is Nat.OPEN else a.home.site.wan4)


@pytest.mark.parametrize("nat", [nat for nat in NATS if nat.values[0] is not Nat.OPEN])
def test_unsolicited_packets_do_not_disturb_the_mapping(lab: Lab, nat: Nat) -> None:
    """A peer's probe that comes too early must not cost the mapping its port."""
    net = lab.internet()
    a = net.home("a", nat)
    server = net.server("prober", addresses=2)
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
    if nat.behaviour.mapping is Mapping.EIM:
        assert port == mapped[1]
    else:
        assert port != mapped[1]


@pytest.mark.parametrize("delay", [0.0, 0.01], ids=["veth", "delayed"])
def test_simultaneous_open_between_endpoint_independent_nats(lab: Lab, delay: float) -> None:
    net = lab.internet()
    one = net.home("a", Nat.PORT_RESTRICTED, delay=delay)
    two = net.home("b", Nat.PORT_RESTRICTED, delay=delay)
    assert simultaneous_open(net, one, two)
