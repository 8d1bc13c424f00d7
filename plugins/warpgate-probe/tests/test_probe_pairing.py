"""Which pairs of NATs are worth a search: one line for each, and both ends say the same."""

from __future__ import annotations

import itertools

import pytest

from tests.core.worlds import ALICE
from warpgate_core import (
    Allocation,
    Endpoint,
    Filtering,
    InterfaceAddress,
    Mapping,
    NatProfile,
    NodeAddress,
    Role,
)
from warpgate_probe import Probe
from warpgate_probe.pairing import Method, Pairing, choose, may_come

NATS = {
    "unknown": NatProfile(),
    "open": NatProfile(Mapping.NONE, Filtering.EIF),
    "firewall": NatProfile(Mapping.NONE, Filtering.APDF),
    "full": NatProfile(Mapping.EIM, Filtering.EIF, Allocation.PRESERVED),
    "address": NatProfile(Mapping.EIM, Filtering.ADF, Allocation.PRESERVED),
    "port": NatProfile(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED),
    "cone": NatProfile(Mapping.EIM, Filtering.UNKNOWN, Allocation.RANDOM),
    "random": NatProfile(Mapping.APDM, Filtering.APDF, Allocation.RANDOM),
    "by address": NatProfile(Mapping.ADM, Filtering.APDF, Allocation.RANDOM),
    "unclear": NatProfile(Mapping.APDM, Filtering.APDF),
    "counted": NatProfile(Mapping.APDM, Filtering.APDF, Allocation.SEQUENTIAL, 1),
    "kept": NatProfile(Mapping.APDM, Filtering.APDF, Allocation.PRESERVED),
    "block": NatProfile(Mapping.APDM, Filtering.APDF, Allocation.CHUNKED, 0, (8_192, 1_024)),
}
TABLE = [
    ("port", "random", Method.SEARCH),
    ("cone", "random", Method.SEARCH),
    ("firewall", "random", Method.SEARCH),
    ("port", "by address", Method.SEARCH),
    ("port", "unclear", Method.SEARCH),
    ("port", "block", Method.SEARCH),
    ("port", "counted", Method.FOLLOW),
    ("port", "kept", Method.FOLLOW),
    ("counted", "counted", Method.MATCH),
    ("address", "random", Method.ASK),
    ("full", "block", Method.ASK),
    ("random", "random", "hopeless"),
    ("random", "counted", "hopeless"),
    ("block", "block", "hopeless"),
    ("kept", "kept", "hopeless"),
    ("port", "port", "nothing to search"),
    ("open", "random", "direct joins them"),
    ("unknown", "random", "not known"),
    ("unknown", "port", "not known"),
]


def face(nat: NatProfile, number: int, *, external: bool = True, six: bool = False) -> InterfaceAddress:
    inner, outer = (f"fd00::{number}", f"2001:db8::{number}") if six else ("10.0.0.2", f"203.0.113.{number}")
    return InterfaceAddress(0, Endpoint(inner, 7000), Endpoint(outer, 7000) if external else None, nat, None)


def node(*faces: InterfaceAddress) -> NodeAddress:
    return NodeAddress(ALICE.public_key, faces)


@pytest.mark.parametrize(("one", "other", "expected"), TABLE)
@pytest.mark.parametrize("swap", [False, True], ids=["", "swapped"])
def test_table(one: str, other: str, expected: Method | str, swap: bool) -> None:
    ends = [node(face(NATS[one], 1)), node(face(NATS[other], 2))]
    if swap:
        ends.reverse()
    result = choose(*ends)
    if isinstance(expected, Method):
        assert isinstance(result, Pairing)
        assert result.method is expected
        if expected is not Method.MATCH:
            assert result.cone is (Role.RESPONDER if swap else Role.INITIATOR)
            assert result.symmetric.nat == NATS[other]
            assert result.outside(result.cone) == Endpoint("203.0.113.1", 7000)
    else:
        assert isinstance(result, str)
        assert expected in result
    for role, (local, peer) in zip(Role, (ends, ends[::-1]), strict=True):
        assert bool(Probe.plausible(role, local, peer)) is isinstance(expected, Method)


def test_every_pair_has_an_answer_and_both_directions_agree() -> None:
    for one, other in itertools.product(NATS.values(), repeat=2):
        there = choose(node(face(one, 1)), node(face(other, 2)))
        back = choose(node(face(other, 2)), node(face(one, 1)))
        assert isinstance(there, Pairing) is isinstance(back, Pairing)
        if isinstance(there, Pairing) and isinstance(back, Pairing):
            assert there.method is back.method


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        (node(face(NATS["port"], 1, external=False)), node(face(NATS["random"], 2)), "UDP is blocked"),
        (node(face(NATS["port"], 1)), node(face(NATS["random"], 1)), "same NAT"),
        (node(face(NATS["port"], 1)), node(face(NATS["random"], 2, six=True)), "no mapped endpoint"),
        (node(), node(), "no mapped endpoint"),
    ],
)
def test_what_is_missing_is_said(one: NodeAddress, other: NodeAddress, text: str) -> None:
    result = choose(one, other)
    assert isinstance(result, str)
    assert text in result


def test_the_surest_of_several_interfaces_is_taken() -> None:
    many = node(face(NATS["random"], 1), face(NATS["port"], 3), face(NATS["address"], 4))
    result = choose(many, node(face(NATS["random"], 2)))
    assert isinstance(result, Pairing)
    assert result.method is Method.ASK
    assert result.initiator.external == Endpoint("203.0.113.4", 7000)


def test_the_gate_is_reserved_also_while_the_peers_nat_is_unknown() -> None:
    assert may_come(node(face(NATS["port"], 1)), node(face(NATS["random"], 2)))
    assert may_come(node(face(NATS["port"], 1)), node(face(NATS["unknown"], 2)))
    assert may_come(node(face(NATS["random"], 1)), node(face(NATS["unknown"], 2)))
    assert not may_come(node(face(NATS["open"], 1)), node(face(NATS["unknown"], 2)))
    assert not may_come(node(face(NATS["port"], 1)), node(face(NATS["port"], 2)))
    assert not may_come(node(face(NATS["random"], 1)), node(face(NATS["random"], 2)))
