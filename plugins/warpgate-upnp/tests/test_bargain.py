"""What is tried when a UPnP router refuses, and that it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_upnp.bargain import MAX_OFFERS, RANDOM_PORTS, Bargain, Offer
from warpgate_upnp.igd import Fault


def offers(*codes: int, has_any: bool = False, external: int = 4000) -> list[Offer]:
    """What is offered in turn while the router answers with these codes."""
    bargain = Bargain(4000, external, 600, has_any, lambda below: below // 2)
    made = [bargain.offer]
    for code in codes:
        if not bargain.refused(code):
            break
        made.append(bargain.offer)
    return made


PICKED = RANDOM_PORTS[len(RANDOM_PORTS) // 2]


@pytest.mark.parametrize("code", [Fault.CONFLICT, Fault.CONFLICT_WITH_OTHER])
def test_another_port_when_it_is_taken(code: int) -> None:
    assert offers(code) == [Offer(False, 4000, 600), Offer(False, PICKED, 600)]


def test_no_lease_when_the_router_knows_none() -> None:
    assert offers(Fault.ONLY_PERMANENT) == [Offer(False, 4000, 600), Offer(False, 4000, 0)]
    assert len(offers(Fault.ONLY_PERMANENT, Fault.ONLY_PERMANENT)) == 2


def test_the_same_port_when_it_must_be() -> None:
    assert offers(Fault.SAME_PORTS_REQUIRED, external=5000) == [
        Offer(False, 5000, 600),
        Offer(False, 4000, 600),
    ]
    ended = offers(Fault.CONFLICT, Fault.SAME_PORTS_REQUIRED, Fault.CONFLICT)
    assert [offer.port for offer in ended] == [4000, PICKED, 4000]


def test_the_old_action_when_the_new_one_is_not_there() -> None:
    for code in (
        Fault.INVALID_ACTION,
        Fault.OPTIONAL_ACTION,
        Fault.INVALID_ARGS,
        Fault.CONFLICT,
        Fault.NO_ROOM,
    ):
        assert offers(code, has_any=True) == [Offer(True, 4000, 600), Offer(False, 4000, 600)]


def test_vague_refusals_try_no_lease_and_then_other_ports() -> None:
    made = offers(*[Fault.ACTION_FAILED] * 3)
    assert made[:3] == [Offer(False, 4000, 600), Offer(False, 4000, 0), Offer(False, PICKED, 0)]


@pytest.mark.parametrize("code", [Fault.NOT_AUTHORIZED, 728, 999, 0])
def test_a_clear_no_is_one(code: int) -> None:
    assert len(offers(code)) == 1


@given(
    st.lists(st.sampled_from([401, 402, 501, 602, 606, 713, 718, 724, 725, 728, 729]), max_size=40),
    st.booleans(),
)
def test_it_always_ends(codes: list[int], has_any: bool) -> None:
    made = offers(*codes, has_any=has_any)
    assert len(made) <= MAX_OFFERS
    assert all(1 <= offer.port <= 65_535 and offer.lease in (0, 600) for offer in made)
    assert len(offers(*[Fault.CONFLICT] * 40)) == MAX_OFFERS
