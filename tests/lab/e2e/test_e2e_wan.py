"""Two processes on two machines with routers between, 80 ms round trip: the main job, by the library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.e2e.agent import AgentError, Started
from tests.lab.e2e.world import FAMILIES, World, exchange, make_world, meet, part

Pair = tuple[Started, Started]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        made.home("a")
        made.home("b")
        yield made


@pytest.fixture(scope="module")
def pairs(world: World) -> dict[tuple[int, ...], Pair]:
    """Per families a node at a and one at b."""
    a, b = world.agent(world.hosts["a"]), world.agent(world.hosts["b"])
    return {
        families: tuple(agent.start(f"v{families}", **world.services(families)) for agent in (a, b))  # type: ignore[misc]
        for families in FAMILIES
    }


@pytest.mark.parametrize("families", FAMILIES, ids=["IPv4", "IPv6", "both families"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("plugin", ["direct", "reverse"])
def test_a_message_and_a_file(
    pairs: dict[tuple[int, ...], Pair], families: tuple[int, ...], transport: str, plugin: str
) -> None:
    a, b = pairs[families]
    here, there = meet(a, b, transport=transport, plugins=[plugin])
    assert (here.strategy, here.transport, here.kind) == (plugin, transport, "host")
    dialler = here if plugin == "direct" else there
    assert dialler.tried_first == (4 if families == (4,) else 6), "RFC 8305: IPv6 first"
    exchange(here, there)


@pytest.fixture
def lossy(world: World) -> Iterator[None]:
    """Every packet between the two homes crosses two lines, each of which loses 5 %."""
    for home in world.homes:
        home.line.set_loss(0.05)
    yield
    world.repair()


@pytest.mark.usefixtures("lossy")
@pytest.mark.parametrize("families", [(4,), (6,)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("plugin", ["direct", "reverse"])
def test_a_message_and_a_file_over_lossy_lines(
    pairs: dict[tuple[int, ...], Pair], families: tuple[int, ...], transport: str, plugin: str
) -> None:
    a, b = pairs[families]
    here, there = meet(a, b, transport=transport, plugins=[plugin])
    assert (here.strategy, here.transport) == (plugin, transport)
    exchange(here, there, 50_000)


@pytest.mark.usefixtures("lossy")
def test_whatever_comes_first_over_lossy_lines(pairs: dict[tuple[int, ...], Pair]) -> None:
    for _ in range(5):
        exchange(*meet(*pairs[4, 6]), 1_000)


def test_a_stream_is_preferred_and_the_first_family_is_ipv6(pairs: dict[tuple[int, ...], Pair]) -> None:
    for caller, callee in (pairs[4, 6], pairs[4, 6][::-1]):
        here, there = meet(caller, callee)
        assert (here.strategy, here.tried_first) == ("direct", 6)
        assert here.took_a_stream_if_it_could
        exchange(here, there)


def test_one_of_two_families_is_enough(world: World, pairs: dict[tuple[int, ...], Pair]) -> None:
    both, _ = pairs[4, 6]
    for only in ((4,), (6,)):
        _, other = pairs[only]
        for caller, callee in ((both, other), (other, both)):
            here, there = meet(caller, callee)
            assert here.family == only[0]
            exchange(here, there, 1_000)


def test_no_family_in_common_is_said(pairs: dict[tuple[int, ...], Pair]) -> None:
    # A broker that both reach carries the offer, so this is about the path, not about signalling.
    four, _ = pairs[4,]
    _, six = pairs[6,]
    with pytest.raises(AgentError, match="ConnectError") as caught:
        four.connect(six, timeout=10)
    assert caught.value.seconds < 9
    assert any("family" in text for _, text in caught.value.inner), caught.value


def test_both_call_each_other_at_once(pairs: dict[tuple[int, ...], Pair]) -> None:
    a, b = pairs[4, 6]
    futures = a.begin_connect(b), b.begin_connect(a)
    from_a, from_b = a.joined(futures[0]), b.joined(futures[1])
    at_b, at_a = b.accept(), a.accept()
    exchange(from_a, at_b, 10_000)
    exchange(from_b, at_a, 10_000)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_pipes_side_by_side_do_not_mix(pairs: dict[tuple[int, ...], Pair], transport: str) -> None:
    a, b = pairs[4, 6]
    met = [meet(a, b, transport=transport) for _ in range(3)]
    for number, (here, there) in enumerate(met):
        here.call("send", text=f"to {number}")
        there.call("send", text=f"from {number}")
    for number, (here, there) in enumerate(met):
        assert there.call("receive") == f"to {number}"
        assert here.call("receive") == f"from {number}"
        part(here, there)


def test_nothing_is_held_after_all_that(pairs: dict[tuple[int, ...], Pair]) -> None:
    for pair in pairs.values():
        for node in pair:
            assert node.call("busy") == {"sessions": 0, "abandoned": 0, "waiting": 0}
