"""Who allocates, who is let in, and what is checked from where."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from warpgate_core import (
    IP4,
    IP6,
    DatagramSocket,
    Endpoint,
    Identity,
    InterfaceAddress,
    Mapping,
    NatProfile,
    NodeAddress,
    Role,
)
from warpgate_turn.card import Card, State
from warpgate_turn.decide import (
    MAX_GRANTS,
    MAX_SOCKETS,
    allocates_at_once,
    grants,
    is_mapped,
    needs_own_relay,
    pairs,
    wanted_family,
)

KEY = Identity.from_secret(bytes(31) + b"\1").public_key
RELAY = Endpoint("203.0.113.9", 50_000)


def address(*faces: tuple[str, str | None]) -> NodeAddress:
    """A node's address, from (internal, external)."""
    made = (
        InterfaceAddress(
            number,
            Endpoint.parse(internal),
            Endpoint.parse(external) if external else None,
            NatProfile(Mapping.APDM),
            None,
        )
        for number, (internal, external) in enumerate(faces)
    )
    return NodeAddress(KEY, tuple(made))


class Socket(DatagramSocket):
    """Only its address matters here."""

    def __init__(self, local: str) -> None:
        self.local, self.name = Endpoint.parse(local), "eth0"

    def send(self, data: bytes, remote: Endpoint) -> None:
        raise AssertionError("nothing is sent while deciding")

    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        raise AssertionError

    def detach(self, remote: Endpoint) -> None:
        raise AssertionError


STATES = [None, *(Card(state, (RELAY,) if state is State.READY else ()) for state in State)]


def test_nobody_allocates_without_a_server() -> None:
    for role, mapped, peer in product(Role, (True, False), STATES):
        assert not allocates_at_once(role, has_servers=False, mapped=mapped, peer=peer)


def test_of_two_open_ends_only_the_responder_allocates() -> None:
    initiator = allocates_at_once(Role.INITIATOR, has_servers=True, mapped=True, peer=None)
    responder = allocates_at_once(Role.RESPONDER, has_servers=True, mapped=True, peer=Card(State.STANDBY))
    assert (initiator, responder) == (False, True)


def test_an_initiator_without_udp_allocates_and_an_open_responder_does_not() -> None:
    assert allocates_at_once(Role.INITIATOR, has_servers=True, mapped=False, peer=None)
    for state in (State.COMING, State.READY):
        card = Card(state, (RELAY,) if state is State.READY else ())
        assert not allocates_at_once(Role.RESPONDER, has_servers=True, mapped=True, peer=card)


@pytest.mark.parametrize("peer", STATES)
def test_a_responder_without_udp_allocates_whatever_the_peer_has(peer: Card | None) -> None:
    assert allocates_at_once(Role.RESPONDER, has_servers=True, mapped=False, peer=peer)


@pytest.mark.parametrize("peer", [None, Card(State.NONE)])
def test_a_responder_allocates_for_a_peer_without_servers_or_news(peer: Card | None) -> None:
    assert allocates_at_once(Role.RESPONDER, has_servers=True, mapped=True, peer=peer)


def test_who_stood_by_allocates_when_the_peer_has_none() -> None:
    assert needs_own_relay(Card(State.NONE), has_servers=True)
    assert not needs_own_relay(Card(State.NONE), has_servers=False)
    assert not needs_own_relay(Card(State.COMING), has_servers=True)
    assert not needs_own_relay(Card(State.READY, (RELAY,)), has_servers=True)


def test_mapped_is_who_has_an_external_endpoint() -> None:
    assert is_mapped(address(("192.168.1.2:5", None), ("10.0.0.2:5", "198.51.100.1:7")))
    assert not is_mapped(address(("192.168.1.2:5", None)))
    assert not is_mapped(address())


@pytest.mark.parametrize(
    ("faces", "family"),
    [
        ([("192.168.1.2:5", None)], IP4),
        ([("192.168.1.2:5", None), ("[2001:db8::1]:5", None)], IP4),
        ([("[2001:db8::1]:5", None)], IP6),
        ([], IP4),
    ],
)
def test_ipv6_is_asked_for_only_for_a_peer_without_ipv4(
    faces: list[tuple[str, str | None]], family: int
) -> None:
    assert wanted_family(address(*faces)) == family


def test_reflexive_and_relayed_addresses_are_let_in_without_their_ports_and_once() -> None:
    peer = address(("192.168.1.2:5", "198.51.100.1:7"), ("192.168.2.2:5", "198.51.100.1:9"))
    card = Card(State.READY, (RELAY,), (Endpoint("198.51.100.2", 4),))
    found = grants(IP4, peer, card)
    assert found == ("203.0.113.9", "198.51.100.2", "198.51.100.1", "192.168.1.2", "192.168.2.2")


def test_only_the_relays_own_family_is_let_in() -> None:
    peer = address(("192.168.1.2:5", "198.51.100.1:7"), ("[2001:db8::1]:5", "[2001:db8::2]:5"))
    assert grants(IP6, peer, None) == ("2001:db8::2", "2001:db8::1")
    assert grants(IP4, peer, None) == ("198.51.100.1", "192.168.1.2")


def test_no_permission_is_asked_for_what_is_not_one_machine() -> None:
    """An address cannot hold such; a card may say anything."""
    hosts = ("224.0.0.1", "0.0.0.0", "169.254.1.1", "ff02::1", "::", "fe80::1")
    for host in hosts:
        card = Card(State.STANDBY, (), (Endpoint(host, 5),))
        peer = address(("192.168.1.2:5", None), ("[2001:db8::1]:5", None))
        assert grants(IP4, peer, card) == ("192.168.1.2",)
        assert grants(IP6, peer, card) == ("2001:db8::1",)


def test_a_peer_with_many_addresses_does_not_make_us_ask_for_all_of_them() -> None:
    peer = address(*((f"10.0.{n}.2:5", f"198.51.100.{n}:7") for n in range(16)))
    found = grants(IP4, peer, None)
    assert len(found) == MAX_GRANTS
    assert all(host.startswith("198.51.100.") for host in found), "external ones come first"


CARD = Card(State.READY, (RELAY, Endpoint("2001:db8::9", 50_001)))
OWN = [Socket("192.168.1.2:5"), Socket("[2001:db8::1]:5")]
OURS = Socket("203.0.113.9:50002")


def test_own_sockets_go_to_the_relay_of_their_family() -> None:
    found = pairs(OWN, None, CARD, doubts_udp=False)
    assert found == [(OWN[0], CARD.relays[0]), (OWN[1], CARD.relays[1])]


def test_from_relay_to_relay_only_if_own_sockets_may_get_nowhere() -> None:
    assert OURS not in [sock for sock, _ in pairs(OWN, OURS, CARD, doubts_udp=False)]
    assert (OURS, RELAY) in pairs(OWN, OURS, CARD, doubts_udp=True)
    only_six = OWN[1:]
    assert (OURS, RELAY) in pairs(only_six, OURS, CARD, doubts_udp=False), "no socket of that family"
    assert (OURS, CARD.relays[1]) not in pairs([], OURS, CARD, doubts_udp=True)


def test_a_machine_with_many_cards_tries_some_of_them() -> None:
    many = [Socket(f"192.168.{n}.2:5") for n in range(10)]
    assert len(pairs(many, None, Card(State.READY, (RELAY,)), doubts_udp=False)) == MAX_SOCKETS
