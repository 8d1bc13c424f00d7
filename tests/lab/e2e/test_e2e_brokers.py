"""Brokers that die before, during and after a connection, hang, are wrong, or are not there at all.

A direct connection needs none of them; a reverse one (the only strategy here that does) needs one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.e2e.agent import Agent, AgentError, Started
from tests.lab.e2e.world import World, exchange, make_world, meet, part

SOON = 5.0  # s; a connection that waits for no dead broker is there within a fraction of a second
NOWHERE = "mqtt://203.0.113.199:1883"  # in the lab's own network; nobody has it, and nobody answers


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        made.home("a")
        made.home("b")
        yield made


@pytest.fixture(scope="module")
def agents(world: World) -> tuple[Agent, Agent]:
    return world.agent(world.hosts["a"]), world.agent(world.hosts["b"])


@pytest.fixture(autouse=True)
def repaired(world: World, agents: tuple[Agent, Agent]) -> Iterator[None]:
    """Each test finds all brokers alive and no nodes."""
    yield
    for agent in agents:
        agent.call("shut")
    world.repair()


def start(world: World, agents: tuple[Agent, Agent], **config: Any) -> tuple[Started, Started]:
    services = world.services((4,)) | config
    return agents[0].start("a", **services), agents[1].start("b", **services)


def kill(world: World, count: int) -> None:
    for broker in world.brokers[:count]:
        broker.kill()


@pytest.mark.parametrize("dead", [1, 2, 3])
def test_killed_before_the_nodes_start(world: World, agents: tuple[Agent, Agent], dead: int) -> None:
    kill(world, dead)
    a, b = start(world, agents)
    assert max(a.seconds, b.seconds) < SOON
    assert len(b.hints) == 3 - dead
    here, there = meet(a, b)
    assert here.seconds < SOON
    exchange(here, there, 1_000)
    if dead < 3:
        exchange(*meet(a, b, plugins=["reverse"]), 1_000)


def refuses_reverse(a: Started, b: Started) -> None:
    """Without any broker reverse fails, sooner than its time-out, and says of which brokers."""
    with pytest.raises(AgentError, match="ConnectError") as caught:
        a.connect(b, plugins=["reverse"], timeout=15)
    assert caught.value.seconds < 10
    assert "could not be told" in caught.value.text, caught.value


@pytest.mark.parametrize("dead", [1, 2, 3])
def test_killed_before_the_call(world: World, agents: tuple[Agent, Agent], dead: int) -> None:
    a, b = start(world, agents)
    kill(world, dead)
    here, there = meet(a, b)
    assert here.seconds < SOON
    exchange(here, there, 1_000)
    if dead < 3:
        here, there = meet(a, b, plugins=["reverse"])
        assert here.seconds < SOON
        part(here, there)
    else:
        refuses_reverse(a, b)


MOMENTS = ["offer complete", "signal started", "signal complete", "answer complete"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_two_of_three_killed_in_the_middle(world: World, agents: tuple[Agent, Agent], moment: str) -> None:
    a, b = start(world, agents)
    calling = a.begin_connect(b, plugins=["reverse"], tell=True)
    agents[0].wait_event(moment)
    kill(world, 2)
    here = a.joined(calling)
    assert here.strategy == "reverse"
    assert here.seconds < SOON
    exchange(here, b.accept(), 1_000)


@pytest.mark.parametrize("moment", MOMENTS)
def test_all_killed_in_the_middle(world: World, agents: tuple[Agent, Agent], moment: str) -> None:
    """A direct connection comes about all the same; reverse does so once the peer has the offer."""
    a, b = start(world, agents)
    calling = a.begin_connect(b, plugins=["direct", "reverse"], tell=True)
    agents[0].wait_event(moment)
    kill(world, 3)
    here = a.joined(calling)
    assert here.seconds < SOON
    exchange(here, b.accept(), 1_000)


def test_killed_after(world: World, agents: tuple[Agent, Agent]) -> None:
    a, b = start(world, agents)
    pipes = [meet(a, b, transport=transport) for transport in ("tcp", "udp")]
    kill(world, 3)
    for here, there in pipes:
        exchange(here, there, 10_000)
    world.repair()
    here, there = meet(a, b, plugins=["reverse"])  # at brokers that have forgotten everything
    part(here, there)


@pytest.mark.parametrize("frozen", [1, 2, 3])
def test_brokers_that_hang(world: World, agents: tuple[Agent, Agent], frozen: int) -> None:
    """Their kernels go on accepting connections, and nothing else comes from there."""
    for broker in world.brokers[:frozen]:
        broker.pause()
    a, b = start(world, agents)
    assert max(a.seconds, b.seconds) < SOON
    here, there = meet(a, b)
    assert here.seconds < SOON
    part(here, there)
    if frozen < 3:
        part(*meet(a, b, plugins=["reverse"]))
    else:
        refuses_reverse(a, b)


def test_brokers_that_begin_to_hang(world: World, agents: tuple[Agent, Agent]) -> None:
    a, b = start(world, agents)
    for broker in world.brokers[:2]:
        broker.pause()
    here, there = meet(a, b, plugins=["reverse"])
    assert here.seconds < SOON
    part(here, there)


def test_no_broker_at_all(world: World, agents: tuple[Agent, Agent]) -> None:
    a, b = start(world, agents, brokers=[])
    part(*meet(a, b))
    with pytest.raises(AgentError, match="no broker is configured; set WARPGATE_BROKERS"):
        a.connect(b, plugins=["reverse"])


def test_brokers_that_are_none(world: World, agents: tuple[Agent, Agent]) -> None:
    """An address that nobody has, a closed port, and a server that speaks something else."""
    closed = f"mqtt://{world.stun.host.ip4}:9"
    other = f"mqtt://{world.stun.host.ip4}:{world.stun.port}"
    a, b = start(world, agents, brokers=[NOWHERE, closed, other])
    assert max(a.seconds, b.seconds) < SOON
    assert b.hints == []
    part(*meet(a, b))
    a.stop()
    b.stop()
    a, b = start(world, agents, brokers=[NOWHERE, closed, other, world.brokers[0].url()])
    assert b.hints == [f"{world.brokers[0].host.ip4}:1883"]
    here, there = meet(a, b, plugins=["reverse"])
    assert here.seconds < SOON
    part(here, there)


def test_a_wrong_url_is_said_at_once(agents: tuple[Agent, Agent]) -> None:
    with pytest.raises(AgentError, match=r"ConfigError: NodeConfig.brokers.*gopher"):
        agents[0].start("a", brokers=["gopher://203.0.113.11"])


def test_brokers_in_common_only_by_the_address(world: World, agents: tuple[Agent, Agent]) -> None:
    """Each knows only its own broker: the one in the callee's address carries the offer, the answer too."""
    urls = [broker.url() for broker in world.brokers]
    services = world.services((4,))
    a = agents[0].start("a", **services | {"brokers": urls[:1]})
    b = agents[1].start("b", **services | {"brokers": urls[2:]})
    exchange(*meet(a, b, plugins=["reverse"]), 1_000)
    exchange(*meet(b, a, plugins=["reverse"]), 1_000)
