"""Behind real NATs with what the core alone can do: direct and reverse.

Two machines that are both behind a NAT that filters need a strategy of a plugin, and are told so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Nat
from tests.lab.e2e.agent import AgentError, Started
from tests.lab.e2e.world import World, exchange, make_world, meet

BEHIND = {"port-restricted": Nat.PORT_RESTRICTED, "symmetric": Nat.SYMMETRIC_RANDOM}
LABELS = {"port-restricted": "port-restricted cone NAT", "symmetric": "symmetric (random ports) NAT"}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        yield made


@pytest.fixture(scope="module")
def nodes(world: World) -> dict[str, Started]:
    """One node in the open, and two behind each kind of NAT, each in a home of its own, all over IPv4."""
    services = world.services((4,))
    made = {"open": world.agent(world.home("open")).start(**services)}
    for name, nat in BEHIND.items():
        for number in ("1", "2"):
            made[name + number] = world.agent(world.home(f"{name}{number}", nat)).start(**services)
    return {name: node.refreshed("settle") for name, node in made.items()}


@pytest.mark.parametrize("name", BEHIND)
def test_the_nat_is_known(nodes: dict[str, Started], name: str) -> None:
    (face,) = nodes[f"{name}1"].interfaces
    assert f"{face['nat']} NAT" == LABELS[name]
    assert face["external"] != face["internal"]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", BEHIND)
def test_direct_from_behind_a_nat(nodes: dict[str, Started], name: str, transport: str) -> None:
    here, there = meet(nodes[f"{name}1"], nodes["open"], transport=transport)
    assert (here.strategy, here.kind) == ("direct", "host")
    assert there.remote[0] == nodes[f"{name}1"].interfaces[0]["external"].rpartition(":")[0]
    exchange(here, there)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", BEHIND)
def test_reverse_to_behind_a_nat(nodes: dict[str, Started], name: str, transport: str) -> None:
    here, there = meet(nodes["open"], nodes[f"{name}2"], transport=transport)
    if transport == "tcp":
        assert here.strategy == "reverse"
    exchange(here, there)


def test_both_behind_nats_is_explained(nodes: dict[str, Started]) -> None:
    """The punching plugins are off here: what would help is said, with both NATs by name."""
    pairs = [("port-restricted1", "symmetric1"), ("symmetric2", "symmetric1")]
    calls = [nodes[caller].begin_connect(nodes[callee]) for caller, callee in pairs]
    for (caller, callee), call in zip(pairs, calls, strict=True):
        with pytest.raises(AgentError, match="ConnectError") as caught:
            nodes[caller].joined(call)
        error = caught.value
        assert error.seconds < 12
        assert nodes[callee].node_id in error.text
        for name in (caller[:-1], callee[:-1]):
            assert LABELS[name] in error.text
        assert {text.partition(":")[0] for _, text in error.inner} == {"direct", "reverse"}


def test_a_full_cone_can_be_called_over_udp(world: World, nodes: dict[str, Started]) -> None:
    """Who filters nothing is as good as open: that is what knowing the NAT is for."""
    node = world.agent(world.home("cone", Nat.FULL_CONE)).start(**world.services((4,))).refreshed("settle")
    for caller in ("open", "symmetric1"):
        here, there = meet(nodes[caller], node, transport="udp")
        assert (here.strategy, here.kind) == ("direct", "srflx")
        exchange(here, there)


@pytest.mark.xfail(
    strict=True,
    reason="strategies.direct tries what the answer names only after all it knew has failed, in 5 s",
)
def test_an_old_address_costs_no_more_than_signalling(world: World, nodes: dict[str, Started]) -> None:
    """The peer was started again and has another port; from behind a NAT only direct can work."""
    agent = nodes["open"].agent
    before = agent.start("moves", **world.services((4,)))
    before.stop()
    after = agent.start("moves", **world.services((4,)))
    here = nodes["symmetric1"].connect(before)
    there = after.accept()
    exchange(here, there, 1_000)
    after.stop()
    assert here.seconds < 2
