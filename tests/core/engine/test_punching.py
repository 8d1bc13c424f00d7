"""What the engine does so that holes are punched: probes from unknown ports, and openers that stay near."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.core.worlds import ALICE, BOB, LINE, SIGNAL, World
from warpgate_core import Attempt, ConnectError, Filtering, Node, Role, Strategy, auto_connect, register
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.nat import ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC, NatRules

ROUND_TRIP = 4 * LINE.delay
OUTSIDE = {"alice": "203.0.113.1", "bob": "203.0.113.2"}
NEAR = 2  # hops: the own NAT, and the internet beyond it


@register("near", rank=5, transports={"udp"})
class Near(Strategy):
    """Checks towards the peer's mapped endpoints with openers that stay near."""

    async def run(self, attempt: Attempt) -> None:
        await attempt.check(attempt.peer.interfaces[0].external, kind="srflx", hops=NEAR)  # type: ignore[arg-type]


def play(scenario: Any, *args: Any) -> None:
    run_virtual(partial(scenario, *args))


def homes(world: World, alice: NatRules, bob: NatRules) -> tuple[Node, Node]:
    """Two nodes behind NATs on lines of 20 ms, with the built-in strategies."""
    nodes = []
    for number, name, key, rules in ((1, "alice", ALICE, alice), (2, "bob", BOB, bob)):
        zone = world.network.lan(name, OUTSIDE[name], rules, line=LINE)
        host = world.network.host(name, f"192.168.{number}.2/24", zone=zone)
        nodes.append(world.node(key, host, disable=["punch-udp", "punch-tcp", "turn"]))
    return nodes[0], nodes[1]


async def add(node: Node, *strategies: type[Strategy]) -> None:
    for cls in strategies:
        node.registry.add(cls)


def test_the_first_probe_from_a_port_that_nobody_knew_makes_the_path() -> None:
    async def scenario() -> None:
        alice, bob = homes(World(), SYMMETRIC, ADDRESS_RESTRICTED)
        async with alice, bob:
            began = asyncio.get_running_loop().time()
            pipe, _ = await auto_connect(alice, bob.address, transport="udp")
            took = asyncio.get_running_loop().time() - began
            assert took <= max(2 * SIGNAL, SIGNAL + ROUND_TRIP / 2) + 0.021, (
                "S + P/2 and one interval of probes"
            )
            other = await bob.accept()
            assert other.path.remote.port != alice.address.interfaces[0].external.port  # type: ignore[union-attr]
            await pipe.send(b"there")
            await other.send(b"back")
            assert (await other.recv(timeout=5), await pipe.recv(timeout=5)) == (b"there", b"back")
            await asyncio.gather(pipe.close(), other.close())

    play(scenario)


def test_probes_of_strangers_are_not_answered_at_length_and_crowd_out_nobody() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pair() as (alice, bob):
            stranger = world.host("stranger", "198.51.100.66/24")
            heard: list[bytes] = []
            for port in range(3000, 3200):
                local = stranger.card_for(bob.edge.sockets[0].local).address  # type: ignore[union-attr]
                stranger.bind(
                    type(bob.edge.sockets[0].local)(local, port), lambda data, source: heard.append(data)
                )

            def overhear(event: Any) -> None:
                if event.host != "bob" or event.fate != "delivered" or not isinstance(event.payload, bytes):
                    return
                if event.payload[:1] != bytes([FrameKind.OFFER]) or heard_offer:
                    return
                heard_offer.append(event.payload)
                tag = Frame.decode(event.payload).tag
                for port in range(3000, 3200):
                    probe = Frame(FrameKind.PROBE, tag, port.to_bytes(12, "big"), strategy="direct").encode()
                    stranger.send(probe, type(event.source)("198.51.100.66", port), event.destination)

            heard_offer: list[bytes] = []
            world.network.watch(overhear)
            pipe, _ = await auto_connect(alice, bob.address, transport="udp")
            await asyncio.sleep(0.5)
            assert heard_offer
            probe = Frame(FrameKind.PROBE, bytes(8), bytes(11) + b"\1", strategy="direct").encode()
            assert heard, "the reply is what tells a real peer that it was heard"
            assert {len(data) for data in heard} == {len(probe)}
            assert pipe.path.remote.host == "198.51.100.2"
            await pipe.close()

    play(scenario)


PUNISHING = NatRules(unsolicited="punish")


@pytest.mark.parametrize("punishing", ["alice", "bob", "both"])
def test_openers_that_stay_near_spare_a_nat_that_punishes(punishing: str) -> None:
    async def scenario() -> None:
        world = World()
        rules = [PUNISHING if punishing in (name, "both") else PORT_RESTRICTED for name in ("alice", "bob")]
        alice, bob = homes(world, rules[0], rules[1])
        async with alice, bob:
            await add(alice, Near)
            await add(bob, Near)
            began = asyncio.get_running_loop().time()
            pipe, plugin = await auto_connect(alice, bob.address, plugins=["near"])
            took = asyncio.get_running_loop().time() - began
            assert plugin.name == "near"
            assert took <= 2 * SIGNAL + ROUND_TRIP + 0.001
            fates = [event.fate for event in world.packets if event.protocol == "udp"]
            assert "ttl" in fates
            assert "filtered" not in fates, "nothing came before it was expected"
            await pipe.close()

    play(scenario)


def test_without_them_such_a_nat_is_not_passed() -> None:
    async def scenario() -> None:
        alice, bob = homes(World(), PORT_RESTRICTED, PUNISHING)
        async with alice, bob:
            with pytest.raises(ConnectError):
                await auto_connect(alice, bob.address, transport="udp", timeout=8)

    play(scenario)


def test_a_responder_goes_all_the_way_after_three_openers() -> None:
    """Its own NAT may be further away than that, and the initiator silent for another reason."""

    async def scenario() -> None:
        world = World()
        alice, bob = homes(world, NatRules(filtering=Filtering.EIF), PORT_RESTRICTED)

        @register("far", rank=5, transports={"udp"})
        class Far(Strategy):
            """Only the responder checks."""

            async def run(self, attempt: Attempt) -> None:
                if attempt.role is Role.INITIATOR:
                    await attempt.settled()
                else:
                    await attempt.check(attempt.peer.interfaces[0].external, kind="srflx", hops=NEAR)  # type: ignore[arg-type]

        async with alice, bob:
            await add(alice, Far)
            await add(bob, Far)
            pipe, _ = await auto_connect(alice, bob.address, plugins=["far"])
            assert [event.fate for event in world.packets if event.protocol == "udp"].count("ttl") == 3
            await pipe.close()

    play(scenario)
