"""What mappings are for: whoever has one is reached by everybody, over TCP and UDP, without any trick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import Lab, Nat
from tests.lab.e2e.agent import AgentError, Started
from tests.lab.e2e.world import exchange, meet
from tests.lab.upnp.agent import Mapper, UpnpAgent, mapped, router

DELAY = 0.020  # s one way per line: 80 ms from home to home and back
CORE = ["direct", "reverse"]
OTHERS = {"port-restricted": Nat.PORT_RESTRICTED, "symmetric": Nat.SYMMETRIC_RANDOM}


@dataclass(frozen=True, slots=True)
class Scene:
    """Nodes behind NATs; `alice`'s router maps ports."""

    home: Mapper
    alice: Started
    others: dict[str, Started]


def build(stack: ExitStack, families: tuple[int, ...]) -> Scene:
    """Alice behind a symmetric NAT with miniupnpd, the others behind NATs without."""
    lab = stack.enter_context(Lab())
    net = lab.internet(families)
    stun = net.coturn(delay=DELAY)
    services: dict[str, Any] = {
        "brokers": [broker.url(families[0]) for broker in net.brokers(2, delay=DELAY)],
        "stun": [stun.stun(family) for family in families],
    }
    home = router(net, "alice", 1, home={"delay": DELAY})
    alice = stack.enter_context(UpnpAgent(home.client)).start(**services)
    others = {}
    for name, nat in OTHERS.items():
        client = net.home(name, nat, delay=DELAY)
        others[name] = stack.enter_context(UpnpAgent(client)).start(disable=["upnp"], **services)
    alice.call("settle")
    mapped(alice, 2 * len(families))
    return Scene(home, alice.refreshed(), {name: node.refreshed("settle") for name, node in others.items()})


@pytest.fixture(scope="module", params=[(4,), (6,)], ids=["IPv4", "IPv6"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield build(stack, request.param)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", OTHERS)
def test_called_from_behind_another_nat(scene: Scene, name: str, transport: str) -> None:
    here, there = meet(scene.others[name], scene.alice, transport=transport, plugins=CORE)
    assert here.strategy == "direct"
    published = scene.alice.interfaces[0]["external"]
    assert f"{here.remote[0]}" in published
    exchange(here, there)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", OTHERS)
def test_calling_somebody_behind_another_nat(scene: Scene, name: str, transport: str) -> None:
    here, there = meet(scene.alice, scene.others[name], transport=transport, plugins=CORE)
    exchange(here, there)


def test_by_all_plugins_a_stream_is_found(scene: Scene) -> None:
    here, there = meet(scene.others["symmetric"], scene.alice)
    assert (here.strategy, here.transport) == ("direct", "tcp")
    assert here.seconds < 2 * 4 * DELAY + 0.15, "two round trips, and what a busy machine needs"
    exchange(here, there)


def test_without_it_nobody_behind_a_nat_is_reached(scene: Scene) -> None:
    """The control: the same kind of NATs and firewalls, and no mapping."""
    caller, callee = scene.others["port-restricted"], scene.others["symmetric"]
    with pytest.raises(AgentError, match="ConnectError"):
        caller.connect(callee, plugins=CORE, transport="tcp", timeout=6)
