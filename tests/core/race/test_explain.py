"""The one sentence when no connection came about."""

from __future__ import annotations

import pytest

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.explain import explain
from warpgate_core.errors import StrategyError
from warpgate_core.identity import Identity
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.strategy import Tier

US, THEM = (Identity.from_secret(bytes(31) + bytes((n,))).public_key for n in (1, 2))
SYMMETRIC = NatProfile(Mapping.APDM, Filtering.APDF, Allocation.RANDOM)
RESTRICTED = NatProfile(Mapping.EIM, Filtering.ADF)
UNKNOWN = NatProfile()
NO_NAT = NatProfile(Mapping.NONE, Filtering.EIF)
BOTH_TIERS = {Tier.DIRECT, Tier.RELAY}


def address(key: bytes, *nats: NatProfile) -> NodeAddress:
    faces = (InterfaceAddress(0, Endpoint(f"10.0.0.{n}", 9), None, nat) for n, nat in enumerate(nats, 1))
    return NodeAddress(key, tuple(faces))


def sentence(
    ours: tuple[NatProfile, ...] = (SYMMETRIC,),
    theirs: tuple[NatProfile, ...] = (SYMMETRIC,),
    *,
    answered: bool = True,
    failure: StrategyError | None = None,
    tiers: set[Tier] | None = None,
) -> str:
    text = explain(
        address(US, *ours),
        address(THEM, *theirs),
        why="no path within 10 s",
        answered=answered,
        signal_failure=failure,
        tiers={Tier.DIRECT} if tiers is None else tiers,
    )
    assert ("no strategy" in text) == (tiers == set())
    assert address(THEM).node_id in text
    return text


def test_nobody_took_part() -> None:
    assert sentence(tiers=set()).startswith("no strategy could take part in reaching ")


def test_the_peer_was_not_told() -> None:
    failure = StrategyError("", "signalling the offer", "no broker is alive")
    text = sentence(answered=False, failure=failure)
    assert "could not be told that we are calling (no broker is alive)" in text
    assert "none of its published endpoints answered directly" in text
    assert "names no endpoint" in sentence(theirs=(), answered=False, failure=failure)


def test_the_peer_was_told_and_said_nothing() -> None:
    assert "received the offer but did not answer it: no path within 10 s" in sentence(answered=False)


def test_an_answer_that_came_over_a_path_outweighs_dead_brokers() -> None:
    failure = StrategyError("", "signalling the offer", "no broker is alive")
    assert "answered, but no path" in sentence(failure=failure)


def test_both_nats_and_no_relay() -> None:
    text = sentence((SYMMETRIC,), (RESTRICTED,))
    assert "this side is behind a symmetric (random ports) NAT" in text
    assert "the peer is behind an address-restricted cone NAT" in text
    assert "name a TURN server" in text


@pytest.mark.parametrize("faces", [(), (UNKNOWN,), (NO_NAT,), (SYMMETRIC, NO_NAT)])
def test_a_nat_that_is_unknown_or_absent_is_not_blamed(faces: tuple[NatProfile, ...]) -> None:
    text = sentence(faces, (SYMMETRIC,))
    assert "this side is" not in text
    assert "unknown" not in text
    assert "name a TURN server" in text


def test_the_best_interface_speaks_for_a_node() -> None:
    assert "this side is behind an address-restricted cone NAT" in sentence((SYMMETRIC, RESTRICTED, UNKNOWN))


def test_with_a_relay_there_is_no_advice_to_install_one() -> None:
    text = sentence(tiers=BOTH_TIERS)
    assert text.endswith("answered, but no path came about: no path within 10 s")
