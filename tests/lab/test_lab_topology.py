"""Who can reach whom, over which family, and what the middle does with what it cannot carry."""

from __future__ import annotations

import socket
import time

import pytest

from tests.lab import Client, Host, Lab, LabError, Nat

IP_RECVERR = 11  # linux/in.h; `socket` has no name for it
BUILT_WITHIN = 1.0  # seconds for a pair of homes


def can_send(sender: Host, receiver: Host, address: str) -> bool:
    """Whether a datagram to `address` is on its way at all; False if the machine knows no route."""
    family = 6 if ":" in address else 4
    with receiver.socket(family=family) as there, sender.socket(family=family) as here:
        try:
            here.sendto(b"x", (address, there.getsockname()[1]))
        except OSError:
            return False
        return there.recv(10) == b"x"


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)], ids=["IPv4", "IPv6", "both"])
@pytest.mark.parametrize("delay", [0.0, 0.002], ids=["veth", "delayed"])
def test_an_internet_carries_the_families_it_has(lab: Lab, families: tuple[int, ...], delay: float) -> None:
    net = lab.internet(families)
    a = net.home("a", Nat.PORT_RESTRICTED, delay=delay)
    server = net.server("server", delay=delay)
    assert sorted(6 if ":" in address else 4 for address in a.addresses) == list(families)
    for address in server.addresses:
        assert can_send(a, server, address)
    absent = {4: "203.0.113.11", 6: "2001:db8:ffff::b"}
    for family in {4, 6} - set(families):
        with a.socket(family=family) as here, pytest.raises(OSError, match=r"unreachable|Cannot assign"):
            here.sendto(b"x", (absent[family], 4000))


def test_one_home_may_lack_a_family(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", families=(4,))
    b = net.home("b", families=(6,))
    server = net.server("server")
    assert can_send(a, server, server.ip4)
    assert can_send(b, server, server.ip6)
    assert [":" in address for address in (*a.addresses, *b.addresses)] == [False, True]


def test_open_homes_reach_each_other(lab: Lab) -> None:
    net = lab.internet()
    a, b = net.home("a", delay=0.001), net.home("b")
    for address in b.addresses:
        assert can_send(a, b, address)
    for address in a.addresses:
        assert can_send(b, a, address)


def test_machines_of_one_home_reach_each_other_directly(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", Nat.SYMMETRIC_RANDOM)
    other = a.home.machine("a2")
    a.home.line.cut()
    for address in other.addresses:
        assert can_send(a, other, address)


@pytest.mark.parametrize("target", ["192.168.2.2", "10.1.2.3", "198.51.100.200", "203.0.113.250"])
def test_what_has_no_route_vanishes_without_a_word(lab: Lab, target: str) -> None:
    """No ICMP answer may come, or every strategy would be told at once what really it must wait for."""
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED)
    net.home("b", Nat.PORT_RESTRICTED)
    server = net.server("server")
    with a.socket(host=a.ip4) as here, server.socket(host=server.ip4, port=4000) as there:
        here.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)  # else only some errors are passed on
        here.connect((target, 4000))
        for _ in range(3):
            here.send(b"lost")  # raises from the second on, if an ICMP error has come
            fence(a, there)


def fence(a: Client, there: socket.socket) -> None:
    with a.socket(host=a.ip4) as here:
        here.sendto(b"fence", there.getsockname())
        packet, source = there.recvfrom(10)
        there.sendto(packet, source)
        assert here.recv(10) == b"fence"


def test_the_middle_says_when_a_packet_is_too_old(lab: Lab) -> None:
    """ICMP itself works (time exceeded, RFC 792), so that silence elsewhere is the lab's doing."""
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED)
    server = net.server("server")
    with a.socket(host=a.ip4) as here:
        here.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        here.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)  # its router is 1, the middle 2
        here.connect((server.ip4, 4000))
        here.send(b"x")
        with pytest.raises(OSError, match="No route to host"):
            here.recv(10)


def test_untranslated_packets_do_not_leave_a_home(lab: Lab) -> None:
    """The middle takes no private sources, whatever a router lets slip."""
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED)
    server = net.server("server")
    with server.socket(host=server.ip4, port=4000) as there:
        with a.socket(host=a.ip4) as here:
            a.home.router.namespace.nft("flush ruleset")
            here.sendto(b"private source", there.getsockname())
        with a.home.router.socket() as here:
            here.sendto(b"fence", there.getsockname())
        packet, source = there.recvfrom(100)
        assert packet == b"fence"
        assert source[0] == a.home.site.wan4


@pytest.mark.parametrize(("nat", "passes"), [(Nat.OPEN, True), (Nat.PORT_RESTRICTED, False)])
def test_ipv6_of_a_home_is_firewalled_unless_open(lab: Lab, nat: Nat, passes: bool) -> None:
    net = lab.internet()
    a = net.home("a", nat)
    server = net.server("server", addresses=2)
    known, stranger = (address for address in server.addresses if ":" in address)
    with (
        a.socket(family=6, host=a.ip6) as inner,
        server.socket(family=6, host=known) as one,
        server.socket(family=6, host=stranger) as two,
    ):
        inner.sendto(b"x", one.getsockname())
        target = one.recvfrom(10)[1]
        assert target[:2] == inner.getsockname()[:2]  # no translation
        two.sendto(b"stranger", target)
        one.sendto(b"fence", target)
        assert (inner.recv(20) == b"stranger") is passes


def test_two_homes_may_use_the_same_private_network(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED, lan4="192.168.0.0/24")
    b = net.home("b", Nat.PORT_RESTRICTED, lan4="192.168.0.0/24")
    server = net.server("server")
    assert a.ip4 == b.ip4
    assert can_send(a, server, server.ip4)
    assert can_send(b, server, server.ip4)


def test_a_pair_stands_within_a_second(lab: Lab) -> None:
    start = time.perf_counter()
    net = lab.internet()
    net.home("a", Nat.PORT_RESTRICTED, delay=0.02)
    net.home("b", Nat.SYMMETRIC_RANDOM, delay=0.02)
    assert time.perf_counter() - start < BUILT_WITHIN


def test_the_address_plan_has_an_end(lab: Lab) -> None:
    net = lab.internet()
    for _ in range(31):
        net.next_home(translates=True)
    with pytest.raises(LabError, match="room for 31"):
        net.home("b")


def test_a_program_has_its_own_home_and_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARPGATE_BROKERS", "not:for:it")
    net = lab.internet()
    a, b = net.home("a"), net.home("b")
    code = "import os; print({k: v for k, v in os.environ.items() if k.startswith('WARPGATE')})"
    said = [
        a.python("-c", code).stdout,
        b.python("-c", code, env=b.environment(WARPGATE_STUN="1.2.3.4")).stdout,
        a.python("-c", code, env=a.environment(home="second")).stdout,
    ]
    homes = [eval(text) for text in said]
    assert len({home["WARPGATE_HOME"] for home in homes}) == 3
    assert [set(home) for home in homes] == [
        {"WARPGATE_HOME"},
        {"WARPGATE_HOME", "WARPGATE_STUN"},
        {"WARPGATE_HOME"},
    ]
