"""`probe` between real NATs, in both directions: who is joined, how soon, and what is left open.

One run each where luck decides little; `python -m tests.lab.probe.bench --lab` gives percentiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Nat
from tests.lab.e2e.agent import AgentError
from tests.lab.e2e.world import exchange, make_world
from tests.lab.probe.laboratory import Homes

CONE = Nat.PORT_RESTRICTED
SEARCHED = [Nat.SYMMETRIC_RANDOM, Nat.CARRIER_SYMMETRIC]
TOLD = [Nat.SYMMETRIC_SEQUENTIAL, Nat.PORT_CHUNKED]
TRIES = 3  # one search fails in 1 of 100 cases, three in one of a million


@pytest.fixture(scope="module")
def all_homes() -> Iterator[Homes]:
    with make_world() as world:
        yield Homes(world)


@pytest.fixture
def homes(all_homes: Homes) -> Iterator[Homes]:
    yield all_homes
    all_homes.stop()


def both(one: Nat, *others: Nat) -> list[tuple[Nat, Nat]]:
    return [pair for other in others for pair in ((one, other), (other, one))]


def name_of(part: object) -> str:
    return name(part) if isinstance(part, tuple) else str(part)


def name(pair: object) -> str:
    assert isinstance(pair, tuple)
    return " to ".join(nat.slug for nat in pair)


def descriptors(homes: Homes, pair: tuple[Nat, Nat]) -> list[int]:
    agents = homes.agent(f"a-{pair[0].slug}", pair[0]), homes.agent(f"b-{pair[1].slug}", pair[1])
    return [agent.call("resources")["descriptors"] for agent in agents]


@pytest.mark.parametrize("pair", [*both(CONE, *SEARCHED), (Nat.CARRIER_EIM, Nat.CARRIER_SYMMETRIC)], ids=name)
def test_random_ports(homes: Homes, pair: tuple[Nat, Nat]) -> None:
    for _ in range(TRIES - 1):
        if (seconds := homes.seconds(*pair)) is not None:
            break
    else:
        seconds = homes.seconds(*pair)
    assert seconds is not None
    assert seconds < 7.5


@pytest.mark.parametrize("pair", both(CONE, *TOLD), ids=name)
def test_ports_that_are_told_or_in_a_block(homes: Homes, pair: tuple[Nat, Nat]) -> None:
    here, there = homes.join(*pair)
    assert (here.strategy, here.transport) == ("probe", "udp")
    assert here.seconds < 2.0
    exchange(here, there, 20_000)


def test_both_count_ports(homes: Homes) -> None:
    here, there = homes.join(Nat.SYMMETRIC_SEQUENTIAL, Nat.SYMMETRIC_SEQUENTIAL)
    assert here.seconds < 2.5
    exchange(here, there, 20_000)


@pytest.mark.parametrize("pair", both(Nat.ADDRESS_RESTRICTED, Nat.SYMMETRIC_RANDOM), ids=name)
def test_who_lets_in_any_port_of_ours_is_simply_asked(homes: Homes, pair: tuple[Nat, Nat]) -> None:
    here, there = homes.join(*pair)
    assert here.seconds < 1.0
    exchange(here, there, 20_000)


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ((Nat.SYMMETRIC_RANDOM, Nat.CARRIER_SYMMETRIC), "hopeless"),
        ((CONE, Nat.FULL_CONE), "nothing to search"),
        ((CONE, Nat.UDP_BLOCKED), "UDP is blocked"),
    ],
    ids=name_of,
)
def test_the_others_are_not_tried(homes: Homes, pair: tuple[Nat, Nat], text: str) -> None:
    with pytest.raises(AgentError, match=text) as caught:
        homes.join(*pair)
    assert caught.value.seconds < 2.0


@pytest.mark.parametrize("pair", both(CONE, Nat.PORT_CHUNKED), ids=name)
def test_descriptors_are_freed(homes: Homes, pair: tuple[Nat, Nat]) -> None:
    nodes = homes.start(*pair)
    before = descriptors(homes, pair)
    here = nodes[0].connect(nodes[1], plugins=["probe"], timeout=10.0)
    there = nodes[1].accept()
    during = descriptors(homes, pair)
    assert sum(during) == sum(before) + 1  # the socket that carries the pipe
    exchange(here, there, 1_000)
    assert descriptors(homes, pair) == before


def test_descriptors_are_freed_when_nothing_is_found(homes: Homes) -> None:
    """The cone loses its line for the search, and with it every answer."""
    pair = (Nat.SYMMETRIC_RANDOM, CONE)
    a, b = homes.start(*pair)
    before = descriptors(homes, pair)[0]
    calling = a.begin_connect(b, plugins=["probe"], timeout=4.0, tell=True)
    a.agent.wait_event("open started")
    homes.world.hosts[f"b-{CONE.slug}"].home.line.cut()
    try:
        with pytest.raises(AgentError, match="ConnectError"):
            a.joined(calling)
        assert descriptors(homes, pair)[0] <= before
    finally:
        homes.world.hosts[f"b-{CONE.slug}"].home.line.mend()
