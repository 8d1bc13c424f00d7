"""Who starts when, and in which order a peer's endpoints are tried (RFC 8305)."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.address import MAX_INTERFACES, InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.identity import Identity
from warpgate_core.nat import Filtering, Mapping, NatProfile
from warpgate_core.net.edge import LocalInterface
from warpgate_core.race.agreement import Hold
from warpgate_core.race.plan import (
    ATTEMPT_DELAY,
    LAN_DELAY,
    MAX_TARGETS,
    RELAY_AGAIN,
    Plan,
    Target,
    order_targets,
    plan_race,
)
from warpgate_core.strategy import Attempt, Role, Strategy, Tier, register

KEY = Identity.from_secret(bytes(31) + b"\1").public_key
NO_NAT = NatProfile(Mapping.NONE, Filtering.EIF)
FIREWALL = NatProfile(Mapping.NONE, Filtering.APDF)
CONE = NatProfile(Mapping.EIM, Filtering.EIF)
RESTRICTED = NatProfile(Mapping.EIM, Filtering.APDF)
SYMMETRIC = NatProfile(Mapping.APDM, Filtering.APDF)


def at(text: str) -> Endpoint:
    return Endpoint.parse(text)


def theirs(
    internal: str,
    external: str | None = None,
    nat: NatProfile = RESTRICTED,
    tcp: str | None = None,
    nic: int = 0,
) -> InterfaceAddress:
    """One interface of the peer's; without `external` it has no NAT."""
    inside = at(internal)
    outside = at(external) if external else inside
    nat = nat if external else NO_NAT
    return InterfaceAddress(nic, inside, outside, nat, at(tcp) if tcp else None)


def ours(internal: str, external: str | None = None, prefix: int = 24, nic: int = 0) -> LocalInterface:
    return LocalInterface(
        nic, f"eth{nic}", at(internal), at(external) if external else None, RESTRICTED, None, prefix
    )


def targets(local: list[LocalInterface], *faces: InterfaceAddress) -> list[Target]:
    return order_targets(local, NodeAddress(KEY, faces))


def remotes(found: list[Target]) -> list[str]:
    return [str(target.remote) for target in found]


AWAY4, AWAY6 = ours("10.9.9.9:7", "203.0.113.99:7"), ours("[2001:db8:9::9]:7", prefix=64)


def test_only_families_that_this_node_has() -> None:
    four, six = theirs("198.51.100.1:9"), theirs("[2001:db8::1]:9")
    assert remotes(targets([AWAY4], four, six)) == ["198.51.100.1:9"]
    assert remotes(targets([AWAY6], four, six)) == ["[2001:db8::1]:9"]
    assert targets([], four, six) == []
    assert targets([AWAY4, AWAY6]) == []


def test_ipv6_first_and_families_alternate() -> None:
    found = targets(
        [AWAY4, AWAY6],
        theirs("198.51.100.1:9"),
        theirs("198.51.100.2:9"),
        theirs("198.51.100.3:9"),
        theirs("[2001:db8::1]:9"),
        theirs("[2001:db8::2]:9"),
    )
    assert remotes(found) == [
        "[2001:db8::1]:9",
        "198.51.100.1:9",
        "[2001:db8::2]:9",
        "198.51.100.2:9",
        "198.51.100.3:9",
    ]
    assert [target.delay for target in found] == [0.0] + [ATTEMPT_DELAY] * 4


def test_the_lan_is_first_then_public_endpoints_then_private_ones_that_may_work_by_luck() -> None:
    found = targets(
        [ours("192.168.1.4:7", "203.0.113.1:7"), AWAY6],
        theirs("172.16.0.5:9", "198.51.100.5:9", nic=1),
        theirs("192.168.1.5:9", "203.0.113.1:9"),
        theirs("[2001:db8::1]:9"),
    )
    assert remotes(found) == [
        "192.168.1.5:9",
        "[2001:db8::1]:9",
        "198.51.100.5:9",
        "203.0.113.1:9",
        "172.16.0.5:9",
    ]
    assert [target.delay for target in found] == [0.0, LAN_DELAY] + [ATTEMPT_DELAY] * 3
    assert [target.kind for target in found] == ["host", "host", "srflx", "srflx", "host"]


@pytest.mark.parametrize(
    ("local", "peer", "near"),
    [
        ("192.168.1.4:7", "192.168.1.4:9", True),  # the same machine
        ("192.168.1.4:7", "192.168.1.200:9", True),  # the same link
        ("192.168.1.4:7", "192.168.2.5:9", False),
    ],
)
def test_what_counts_as_the_same_link(local: str, peer: str, near: bool) -> None:
    found = targets([ours(local, "203.0.113.1:7")], theirs(peer, "198.51.100.5:9"))
    assert (remotes(found)[0] == peer) is near


def test_the_same_address_outside_means_the_same_lan_even_across_subnets() -> None:
    found = targets([ours("192.168.1.4:7", "203.0.113.1:7")], theirs("192.168.2.5:9", "203.0.113.1:9"))
    assert remotes(found) == ["192.168.2.5:9", "203.0.113.1:9"]
    assert [target.delay for target in found] == [0.0, LAN_DELAY]


def test_an_unknown_prefix_is_no_shared_link() -> None:
    found = targets([ours("192.168.1.4:7", prefix=0)], theirs("192.168.1.5:9", "198.51.100.5:9"))
    assert remotes(found) == ["198.51.100.5:9", "192.168.1.5:9"]


def test_ipv6_links_are_told_by_their_prefix() -> None:
    local = ours("[2001:db8:1::4]:7", prefix=64)
    found = targets([local, AWAY4], theirs("[2001:db8:2::5]:9"), theirs("[2001:db8:1::5]:9"))
    assert remotes(found) == ["[2001:db8:1::5]:9", "[2001:db8:2::5]:9"]
    assert [target.delay for target in found] == [0.0, LAN_DELAY]


def test_the_surest_sign_of_a_shared_link_chooses_the_interface_to_go_from() -> None:
    # Both of our cards are behind the same address as the peer, but only the second is on its link.
    local = [
        ours("10.0.0.4:7", "203.0.113.1:7", nic=0),
        ours("192.168.1.4:7", "203.0.113.1:8", nic=1),
    ]
    first = targets(local, theirs("192.168.1.5:9", "203.0.113.1:9"))[0]
    assert (first.remote, first.local) == (at("192.168.1.5:9"), at("192.168.1.4:0"))
    same_machine = targets([*local, ours("192.168.1.5:7", nic=2)], theirs("192.168.1.5:9", "203.0.113.1:9"))
    assert same_machine[0].local == at("192.168.1.5:0")


def test_a_node_with_one_interface_leaves_the_source_to_the_system() -> None:
    found = targets([ours("192.168.1.4:7", "203.0.113.1:7")], theirs("192.168.1.5:9", "203.0.113.1:9"))
    assert all(target.local is None for target in found)


@pytest.mark.parametrize(
    ("nat", "mapped", "worth"),
    [
        (RESTRICTED, None, {"192.168.1.5:9": True, "198.51.100.5:9": False}),
        (SYMMETRIC, None, {"192.168.1.5:9": True, "198.51.100.5:9": False}),
        (CONE, None, {"192.168.1.5:9": True, "198.51.100.5:9": True}),
        (NatProfile(), None, {"192.168.1.5:9": True, "198.51.100.5:9": True}),
        (
            RESTRICTED,
            "198.51.100.5:5000",
            {"192.168.1.5:9": True, "198.51.100.5:9": True, "198.51.100.5:5000": True},
        ),
        (RESTRICTED, "198.51.100.5:9", {"192.168.1.5:9": True, "198.51.100.5:9": True}),
    ],
)
def test_where_a_tcp_connection_is_worth_trying(
    nat: NatProfile, mapped: str | None, worth: dict[str, bool]
) -> None:
    found = targets([AWAY4], theirs("192.168.1.5:9", "198.51.100.5:9", nat, mapped))
    assert {str(target.remote): target.tcp for target in found} == worth


@pytest.mark.parametrize(
    ("face", "likely"),
    [
        (theirs("198.51.100.1:9"), {"198.51.100.1:9": True}),
        (theirs("10.9.9.7:9", "198.51.100.5:9"), {"10.9.9.7:9": True, "198.51.100.5:9": False}),
        (theirs("172.16.0.5:9", "198.51.100.5:9"), {"172.16.0.5:9": False, "198.51.100.5:9": False}),
        (theirs("172.16.0.5:9", "198.51.100.5:9", CONE), {"172.16.0.5:9": False, "198.51.100.5:9": False}),
        (
            theirs("172.16.0.5:9", "198.51.100.5:9", NatProfile()),
            {"172.16.0.5:9": True, "198.51.100.5:9": True},
        ),
        (
            theirs("172.16.0.5:9", "198.51.100.5:9", tcp="198.51.100.5:80"),
            {"172.16.0.5:9": False, "198.51.100.5:9": True, "198.51.100.5:80": True},
        ),
    ],
)
def test_for_what_a_path_that_works_is_held_back(face: InterfaceAddress, likely: dict[str, bool]) -> None:
    assert {str(target.remote): target.likely for target in targets([AWAY4], face)} == likely


def test_a_firewall_without_nat_orders_and_does_not_forbid() -> None:
    face = InterfaceAddress(0, at("[2001:db8::1]:9"), at("[2001:db8::1]:9"), FIREWALL)
    (only,) = targets([AWAY6], face)
    assert (only.tcp, only.kind) == (True, "host")


def test_an_endpoint_is_tried_once() -> None:
    found = targets(
        [AWAY4],
        theirs("198.51.100.1:9"),
        theirs("10.0.0.1:9", "198.51.100.1:9"),
        theirs("10.0.0.1:9", "198.51.100.7:9"),
    )
    assert sorted(remotes(found)) == ["10.0.0.1:9", "198.51.100.1:9", "198.51.100.7:9"]


def test_a_peer_cannot_make_us_try_more_than_so_many() -> None:
    faces = [theirs(f"10.0.{n}.1:9", f"198.51.100.{n + 1}:9") for n in range(MAX_INTERFACES)]
    found = targets([AWAY4], *faces)
    assert len(found) == MAX_TARGETS < 2 * MAX_INTERFACES
    assert remotes(found)[:MAX_INTERFACES] == [f"198.51.100.{n + 1}:9" for n in range(MAX_INTERFACES)]


HOSTS4 = st.integers(1, 60).map(lambda n: f"10.0.{n % 4}.{n}")
HOSTS6 = st.integers(1, 60).map(lambda n: f"2001:db8:{n % 4 + 1}::{n:x}")
NATS = st.builds(NatProfile, st.sampled_from(list(Mapping)), st.sampled_from(list(Filtering)))


@st.composite
def faces(draw: st.DrawFn) -> InterfaceAddress:
    hosts = draw(st.sampled_from([HOSTS4, HOSTS6]))

    def endpoint() -> Endpoint:
        return Endpoint(draw(hosts), draw(st.integers(1, 3)))

    inside = endpoint()
    outside = endpoint() if draw(st.booleans()) else None
    mapped = endpoint() if draw(st.booleans()) else None
    return InterfaceAddress(0, inside, outside, draw(NATS), mapped)


@given(st.lists(faces(), max_size=MAX_INTERFACES), st.lists(faces(), max_size=4), st.integers(0, 32))
def test_every_order_is_sound(
    peer: list[InterfaceAddress], mine: list[InterfaceAddress], prefix: int
) -> None:
    local = [LocalInterface(0, "x", f.internal, f.external, f.nat, None, prefix) for f in mine]
    found = targets(local, *peer)
    assert found == targets(local, *peer)
    named = {e for f in peer for e in (f.internal, f.external, f.tcp_external) if e is not None}
    families = {face.family for face in local}
    tried = [target.remote for target in found]
    assert len(tried) == len(set(tried)) <= MAX_TARGETS
    assert set(tried) <= named
    assert len(tried) == min(MAX_TARGETS, len({e for e in named if e.family in families}))
    assert [t.delay for t in found[:1]] in ([], [0.0])
    assert all(t.delay in (LAN_DELAY, ATTEMPT_DELAY) for t in found[1:])
    assert [t.delay for t in found[1:]] == sorted(t.delay for t in found[1:])
    for target in found:
        assert target.local is None or target.local.family is target.remote.family


# -- the timetable ---------------------------------------------------------------------------------


@register("both", rank=10)
class Both(Strategy):
    """TCP and UDP."""

    async def run(self, attempt: Attempt) -> None:
        raise NotImplementedError


@register("datagrams", rank=20, transports={"udp"})
class Datagrams(Both):
    """UDP only, and not always."""

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        return frozenset({"udp"}) if role is Role.INITIATOR else frozenset()


@register("relay", rank=60, tier=Tier.RELAY)
class Relay(Both):
    """The last resort."""


@register("broken")
class Broken(Both):
    """Somebody else's."""

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        raise ZeroDivisionError


@register("confused", transports={"tcp"})
class Confused(Both):
    """Answers with something else."""

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        return None  # type: ignore[return-value]


@register("boastful", transports={"tcp"})
class Boastful(Both):
    """Promises what it cannot do."""

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        return frozenset({"tcp", "udp", "pigeon"})


BOTH = frozenset({"tcp", "udp"})
ADDRESS = NodeAddress(KEY)


def plan(
    *strategies: type[Strategy],
    role: Role = Role.INITIATOR,
    transports: frozenset[str] = BOTH,
    last_winner: str | None = None,
) -> Plan:
    return plan_race(strategies, role, ADDRESS, ADDRESS, transports, patience=2.5, last_winner=last_winner)


def test_everybody_starts_at_once_who_can_bring_what_is_wanted() -> None:
    made = plan(Both, Datagrams, Relay)
    assert made.starts == {"both": 0.0, "datagrams": 0.0, "relay": 0.0}
    assert made.runners == {
        "both": (BOTH, Tier.DIRECT),
        "datagrams": (frozenset({"udp"}), Tier.DIRECT),
        "relay": (BOTH, Tier.RELAY),
    }
    made = plan(Both, Datagrams, transports=frozenset({"tcp"}))
    assert made.starts == {"both": 0.0}
    assert made.runners == {"both": (frozenset({"tcp"}), Tier.DIRECT)}


def test_what_is_not_plausible_takes_part_all_the_same_but_holds_nobody_back() -> None:
    made = plan(Datagrams, role=Role.RESPONDER)
    assert made.starts == {"datagrams": 0.0}
    assert made.runners == {"datagrams": (frozenset(), Tier.DIRECT)}


def test_patience_is_shorter_where_a_relay_won_before() -> None:
    assert plan(Both, Relay).hold == Hold(2.5)
    assert plan(Both, Relay, last_winner="both").hold == Hold(2.5)
    assert plan(Both, Relay, last_winner="relay").hold == Hold(RELAY_AGAIN)
    assert plan(Both, last_winner="relay").hold == Hold(2.5), "it takes no part this time"


@pytest.mark.parametrize(("cls", "assumed"), [(Broken, BOTH), (Confused, frozenset({"tcp"}))])
def test_a_broken_strategy_harms_nobody(
    cls: type[Strategy], assumed: frozenset[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "warpgate.race"):
        made = plan(cls, Both)
    assert made.runners == {cls.spec.name: (assumed, Tier.DIRECT), "both": (BOTH, Tier.DIRECT)}
    assert f"plausible() of strategy {cls.spec.name} failed" in caplog.text


def test_nobody_is_waited_for_by_a_transport_that_he_does_not_have() -> None:
    assert plan(Boastful).runners == {"boastful": (frozenset({"tcp"}), Tier.DIRECT)}


def test_the_family_comes_from_the_address() -> None:
    assert at("[::1]:1").family is Family.IP6
