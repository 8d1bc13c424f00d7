"""Between which interfaces UDP checks meet without guessing."""

from __future__ import annotations

import pytest

from warpgate_core.address import InterfaceAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Filtering, Mapping, NatProfile
from warpgate_core.net.edge import LocalInterface
from warpgate_core.race.plan import udp_is_likely

OPEN = NatProfile(Mapping.NONE, Filtering.EIF)
FULL = NatProfile(Mapping.EIM, Filtering.EIF)
ADDRESS = NatProfile(Mapping.EIM, Filtering.ADF)
PORT = NatProfile(Mapping.EIM, Filtering.APDF)
SYMMETRIC = NatProfile(Mapping.APDM, Filtering.APDF)
UNKNOWN = NatProfile()


def face(number: int, nat: NatProfile, *, seen: bool = True) -> tuple[Endpoint, Endpoint | None]:
    """Internal and external endpoint of a home, or of an open machine."""
    if nat is OPEN:
        return Endpoint(f"198.51.100.{number}", 7000), Endpoint(f"198.51.100.{number}", 7000)
    return Endpoint(f"192.168.{number}.2", 7000), Endpoint(f"203.0.113.{number}", 7000) if seen else None


def likely(one: NatProfile, other: NatProfile, *, blocked: str = "") -> bool:
    """The verdict for a pair."""
    internal, external = face(1, one, seen=blocked != "mine")
    mine = LocalInterface(0, "eth0", internal, external, one, prefix=24)
    internal, external = face(2, other, seen=blocked != "theirs")
    return udp_is_likely(mine, InterfaceAddress(0, internal, external, other))


@pytest.mark.parametrize("one", [OPEN, FULL, ADDRESS, PORT])
@pytest.mark.parametrize("other", [OPEN, FULL, ADDRESS, PORT])
def test_two_whose_endpoints_are_known_meet(one: NatProfile, other: NatProfile) -> None:
    assert likely(one, other)


@pytest.mark.parametrize(("cone", "meets"), [(OPEN, True), (FULL, True), (ADDRESS, True), (PORT, False)])
def test_one_whose_port_is_unknown_needs_a_filter_that_ignores_ports(cone: NatProfile, meets: bool) -> None:
    assert likely(SYMMETRIC, cone) is meets
    assert likely(cone, SYMMETRIC) is meets


def test_two_whose_ports_are_unknown_do_not_meet() -> None:
    assert not likely(SYMMETRIC, SYMMETRIC)


def test_who_was_seen_by_no_server_is_like_one_whose_port_is_unknown() -> None:
    assert not likely(PORT, UNKNOWN, blocked="theirs")
    assert not likely(UNKNOWN, PORT, blocked="mine")
    assert likely(UNKNOWN, UNKNOWN, blocked="theirs"), "nobody knows how our own NAT filters: hope"
    assert likely(UNKNOWN, OPEN, blocked="mine")
    assert likely(UNKNOWN, FULL, blocked="mine")


def test_neighbours_need_no_server() -> None:
    mine = LocalInterface(0, "eth0", Endpoint("192.168.1.2", 7000), prefix=24)
    assert udp_is_likely(mine, InterfaceAddress(0, Endpoint("192.168.1.3", 7000)))
    assert not udp_is_likely(mine, InterfaceAddress(0, Endpoint("192.168.9.3", 7000)))


def test_a_public_address_needs_none_either() -> None:
    mine = LocalInterface(0, "eth0", Endpoint("203.0.113.9", 7000), prefix=24)
    assert udp_is_likely(mine, InterfaceAddress(0, Endpoint("198.51.100.3", 7000)))
