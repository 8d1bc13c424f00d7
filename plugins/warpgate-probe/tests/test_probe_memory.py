"""Searches in memory: how many succeed and how soon, who is not tried, and what is left afterwards.

Bounds are wide where luck decides (`tests.lab.probe.bench` prints the figures themselves).
"""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

import pytest

from tests.core.worlds import World
from tests.lab.probe.memory import CONE, homes, measure
from warpgate_core import ConnectError, DatagramPipe, Endpoint, Node, Pipe, StrategyError
from warpgate_core.testing.loop import run_virtual

RANDOM = "symmetric-random"
SOCKETS = 256


@pytest.mark.slow
@pytest.mark.parametrize("pair", [(CONE, RANDOM), (RANDOM, CONE)], ids=" to ".join)
def test_random_ports(pair: tuple[str, str]) -> None:
    """Theory: 99.1 % with 1,200 probes, half of them with 175, which take 0.9 s."""
    found = measure(*pair, 200)
    assert found.share >= 0.96, found
    assert found.percentile(50) <= 1.5, found
    assert found.percentile(99) <= 6.2, found


@pytest.mark.parametrize("kind", ["symmetric-sequential", "symmetric-downwards", "symmetric-preserving"])
@pytest.mark.parametrize("swap", [False, True], ids=["responder", "initiator"])
def test_ports_that_can_be_told(kind: str, swap: bool) -> None:
    found = measure(*((kind, CONE) if swap else (CONE, kind)), 40)
    assert found.share == 1.0, found
    assert found.percentile(100) <= 0.5, found


@pytest.mark.slow
@pytest.mark.parametrize("pair", [(CONE, "port-chunked"), ("port-chunked", CONE)], ids=" to ".join)
def test_ports_in_a_block(pair: tuple[str, str]) -> None:
    found = measure(*pair, 100)
    assert found.share == 1.0, found
    assert found.percentile(50) <= 0.4, found
    assert found.percentile(99) <= 1.5, found


@pytest.mark.parametrize("other", ["symmetric-sequential", "symmetric-downwards"])
def test_both_count_ports(other: str) -> None:
    found = measure("symmetric-sequential", other, 40)
    assert found.share == 1.0, found
    assert found.percentile(95) <= 1.5, found


@pytest.mark.parametrize(
    "pair",
    [
        ("address-restricted", RANDOM),
        (RANDOM, "address-restricted"),
        ("full-cone", RANDOM),
        (RANDOM, "full-cone"),
    ],
    ids=" to ".join,
)
def test_who_lets_in_any_port_of_ours_is_simply_asked(pair: tuple[str, str]) -> None:
    found = measure(*pair, 20)
    assert found.share == 1.0, found
    assert found.percentile(100) <= 0.5, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "share", "soon"),
    [
        ((CONE, RANDOM), 0.90, 2.0),
        ((RANDOM, CONE), 0.90, 2.0),
        ((CONE, "symmetric-sequential"), 0.98, 1.0),
        (("symmetric-sequential",) * 2, 0.95, 1.0),
    ],
    ids=str,
)
def test_with_loss(pair: tuple[str, str], share: float, soon: float) -> None:
    """Of 100 packets 6 are lost on the way from home to home."""
    found = measure(*pair, 60, loss=0.03)
    assert found.share >= share, found
    assert found.percentile(50) <= soon, found


# -- what is not tried -----------------------------------------------------------------------------


async def _fails(one: str, other: str) -> tuple[str, int, float]:
    """What the error says of it, packets sent, and seconds."""
    world = World()
    alice, bob = homes(world, one, other)
    async with alice, bob:
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectError) as caught:
            await alice.connect(bob.address, plugins=["probe"], timeout=20)
        took = asyncio.get_running_loop().time() - began
        sent = len(world.sent_by("host 1")) + len(world.sent_by("host 2"))
    texts = [str(error) for error in caught.value.exceptions if isinstance(error, StrategyError)]
    return " ".join(texts), sent, took


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ((RANDOM, RANDOM), "hopeless"),
        ((RANDOM, "symmetric-sequential"), "hopeless"),
        (("port-chunked", "port-chunked"), "hopeless"),
        ((CONE, CONE), "nothing to search"),
        ((CONE, "full-cone"), "nothing to search"),
    ],
    ids=str,
)
def test_the_others_are_not_tried(pair: tuple[str, str], text: str) -> None:
    said, sent, took = run_virtual(partial(_fails, *pair))
    assert text in said
    assert sent == 0
    assert took < 0.5


# -- what is left ----------------------------------------------------------------------------------


def _bound(node: Node, world: World) -> int:
    """Ports in use on the node's host, beyond the node's own."""
    name = "host 1" if node.edge.interfaces[0].internal.host == "192.168.1.2" else "host 2"
    return len(world.network.hosts[name]._receivers) - len(node.edge.sockets)


async def _watch_sockets() -> None:
    world = World()
    alice, bob = homes(world, CONE, RANDOM)
    async with alice, bob:
        hosts = world.network.hosts["host 1"], world.network.hosts["host 2"]
        world.network.cut(*hosts)
        connecting = asyncio.create_task(alice.connect(bob.address, plugins=["probe"], timeout=20))
        await asyncio.sleep(0.15)
        assert _bound(alice, world) == 0
        assert _bound(bob, world) == SOCKETS
        world.network.mend(*hosts)
        pipe, _ = await connecting
        accepted = await bob.accept()
        await asyncio.sleep(0.1)
        assert _bound(bob, world) == 1  # the one that carries the pipe
        await _exchange(pipe, accepted)
        await pipe.close()
        await accepted.close()
        await asyncio.sleep(0.1)
        assert _bound(bob, world) == 0


async def _exchange(one: Pipe, other: Pipe) -> None:
    assert isinstance(one, DatagramPipe)
    for number in range(20):
        await one.send(b"%d" % number)
        assert await other.recv(timeout=1) == b"%d" % number
        await other.send(b"%d" % -number)
        assert await one.recv(timeout=1) == b"%d" % -number


def test_sockets_are_freed_when_one_is_found() -> None:
    run_virtual(_watch_sockets, seed=3)


async def _cancel(after: float, most: int) -> None:
    world = World()
    alice, bob = homes(world, RANDOM, CONE)
    async with alice, bob:
        world.network.cut(world.network.hosts["host 1"], world.network.hosts["host 2"])
        connecting = asyncio.create_task(alice.connect(bob.address, plugins=["probe"], timeout=20))
        await asyncio.sleep(after)
        assert _bound(alice, world) == most
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        assert _bound(alice, world) == 0


@pytest.mark.parametrize(("after", "most"), [(0.05, 0), (0.11, SOCKETS), (0.5, SOCKETS)])
def test_sockets_are_freed_when_it_is_cancelled(after: float, most: int) -> None:
    run_virtual(partial(_cancel, after, most), seed=3)


async def _in_vain() -> None:
    """A cone that answers to nobody: the search ends within its bounds and says so."""
    world = World()
    alice, bob = homes(world, CONE, RANDOM)
    async with alice, bob:
        world.network.cut(world.network.hosts["host 1"], world.network.hosts["host 2"])
        with pytest.raises(ConnectError) as caught:
            await alice.connect(bob.address, plugins=["probe"], timeout=20)
        assert _bound(bob, world) in (0, SOCKETS)
        await asyncio.sleep(5)
        assert _bound(bob, world) == 0
    text = str(caught.value.exceptions[0])
    assert "none of 1200 ports of 203.0.113.2 answered" in text
    probes = [event for event in world.sent_by("host 1") if event.destination.host == "203.0.113.2"]
    assert len(probes) == len({event.destination for event in probes}) == 1_200
    assert len(world.sent_by("host 2")) == SOCKETS
    for event in probes:
        second = [e for e in probes if event.at <= e.at < event.at + 0.999]
        assert len(second) <= 200


def test_a_search_in_vain_keeps_to_its_bounds() -> None:
    run_virtual(_in_vain, seed=1)


# -- one at a time ---------------------------------------------------------------------------------


async def _searches(*directions: tuple[int, int], kinds: tuple[str, str]) -> list[float]:
    """When the searches of the first node began; all connections are begun at once."""
    world = World()
    nodes = homes(world, *kinds)
    async with nodes[0], nodes[1]:
        attempts = [
            nodes[one].connect(nodes[other].address, plugins=["probe"], timeout=50)
            for one, other in directions
        ]
        pipes = [pipe for pipe, _ in await asyncio.gather(*attempts)]
        pipes += [await nodes[other].accept() for _, other in directions]
        for pipe in pipes:
            await pipe.close()
    cone = kinds.index(CONE)
    first: dict[Endpoint, float] = {}
    for event in world.sent_by(f"host {cone + 1}"):
        if event.destination.host == f"203.0.113.{2 - cone}":
            first.setdefault(event.destination, event.at)  # what comes later belongs to a pipe
    times = sorted(first.values())
    return [times[0], *(later for sooner, later in itertools.pairwise(times) if later - sooner > 6.5)]


@pytest.mark.parametrize(
    "directions",
    [((0, 1), (0, 1)), ((1, 0), (1, 0)), ((0, 1), (1, 0)), ((1, 0), (0, 1))],
    ids=str,
)
def test_two_at_once_take_turns(directions: tuple[tuple[int, int], ...]) -> None:
    """Also if both ends begin at the same moment; the second begins 20 s after the first."""
    for seed in range(3):
        began = run_virtual(partial(_searches, *directions, kinds=(CONE, "port-chunked")), seed=seed)
        assert len(began) == 2
        assert 20.0 <= began[1] - began[0] <= 21.0


def test_two_nodes_of_one_process_have_two_gates() -> None:
    from warpgate_core import Registry
    from warpgate_probe import Probe

    gates = []
    for _ in range(2):
        registry = Registry(discover=False)
        registry.add(Probe)
        one, other = registry.create("probe"), registry.create("probe")
        assert one.options.gate is other.options.gate
        gates.append(one.options.gate)
    assert gates[0] is not gates[1]
