"""`Node` and `auto_connect` on a virtual network: what an application relies on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.core.worlds import ALICE, BOB, CAROL, SIGNAL, World
from warpgate_core import (
    SUB_ALL,
    AddressError,
    ConfigError,
    ConnectError,
    Node,
    NodeAddress,
    NodeClosedError,
    NodeConfig,
    PeerLostError,
    Pipe,
    PipeClosedError,
    PluginError,
    StrategyError,
    auto_connect,
)
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.nat import PORT_RESTRICTED, SYMMETRIC


def play(scenario: Any, *args: Any) -> None:
    """Run a scenario in virtual time; it may leave nothing behind."""
    run_virtual(partial(scenario, *args))


@pytest.mark.parametrize("transport", ["tcp", "udp", None])
@pytest.mark.parametrize("form", [str, NodeAddress.encode, lambda address: address])
def test_the_main_job(transport: Any, form: Any) -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            pipe, plugin = await auto_connect(alice, form(bob.address), transport=transport)
            other = await bob.accept()
            async with pipe, other:
                assert plugin.name == pipe.strategy == other.strategy == "direct"
                assert pipe.peer == BOB.public_key
                assert other.peer == ALICE.public_key
                assert pipe.path.transport == other.path.transport == (transport or "tcp")
                assert pipe.path.remote == bob.edge.interfaces[0].internal
                assert pipe.trace.session == other.trace.session
                await pipe.send(b"hello")
                assert await other.recv(SUB_ALL) == b"hello"
                await other.send(b"and back")
                assert await pipe.recv() == b"and back"

    play(scenario)


def test_direct_takes_two_round_trips_over_tcp_and_one_over_udp() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            loop = asyncio.get_running_loop()
            for transport, bound in (("tcp", 2 * 0.08), ("udp", 0.08)):
                began = loop.time()
                pipe, _ = await auto_connect(alice, bob.address, transport=transport)  # type: ignore[arg-type]
                assert loop.time() - began == pytest.approx(bound, abs=1e-6)
                await pipe.close()

    play(scenario)


def test_reverse_takes_one_signal_and_two_round_trips() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            loop = asyncio.get_running_loop()
            began = loop.time()
            pipe, plugin = await auto_connect(alice, bob.address, plugins=["reverse"], transport="tcp")
            assert plugin.name == "reverse"
            assert loop.time() - began <= SIGNAL + 2 * 0.08 + 1e-6
            await pipe.close()

    play(scenario)


def test_dead_signalling_does_not_stop_a_direct_connection() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pair() as (alice, bob):
            world.signalling.is_down = True
            pipe, _ = await auto_connect(alice, bob.address)
            await pipe.close()
            with pytest.raises(ConnectError, match="could not be told") as caught:
                await auto_connect(alice, bob.address, plugins=["reverse"])
            (error,) = caught.value.exceptions
            assert isinstance(error, StrategyError)
            assert error.strategy == "reverse"

    play(scenario)


def test_a_wrong_clock_is_named() -> None:
    async def scenario() -> None:
        world = World()
        world.skews[BOB.public_key] = 3_600.0
        async with world.pair() as (alice, bob):
            with pytest.raises(ConnectError, match=r"clock is (1 h|60 min) ahead of ours"):
                await auto_connect(alice, bob.address, plugins=["reverse"])

    play(scenario)


def test_from_behind_a_nat_to_the_open_and_back() -> None:
    async def scenario() -> None:
        world = World()
        home = world.network.lan("home", "203.0.113.1", PORT_RESTRICTED, line=Line(delay=0.01))
        alice = world.node(ALICE, world.host("alice", "192.168.1.2/24", zone=home))
        bob = world.node(BOB, world.host("bob", "198.51.100.2/24"))
        async with alice, bob:
            pipe, plugin = await auto_connect(alice, bob.address, transport="tcp")
            assert plugin.name == "direct"
            await pipe.close()
            pipe, plugin = await auto_connect(bob, alice.address, transport="tcp")
            assert plugin.name == "reverse"
            await pipe.close()

    play(scenario)


def test_two_symmetric_nats_fail_with_a_sentence_that_names_them() -> None:
    async def scenario() -> None:
        world = World()
        nodes = []
        for number, (name, key) in enumerate((("alice", ALICE), ("bob", BOB)), 1):
            home = world.network.lan(f"home-{name}", f"203.0.113.{number}", SYMMETRIC, line=Line(delay=0.01))
            nodes.append(world.node(key, world.host(name, "192.168.1.2/24", zone=home)))
        alice, bob = nodes
        async with alice, bob:
            with pytest.raises(ConnectError, match=r"symmetric.*symmetric.*warpgate-turn") as caught:
                await auto_connect(alice, bob.address)
            names = {error.strategy for error in caught.value.exceptions if isinstance(error, StrategyError)}
            assert names == {"direct", "reverse"}

    play(scenario)


def test_the_wrong_machine_at_the_right_private_address_is_refused() -> None:
    """Bob is at home and away; in the network where Alice is, his private address is Carol's."""

    async def scenario() -> None:
        world = World()
        here = world.network.lan("here", "203.0.113.1", PORT_RESTRICTED, line=Line(delay=0.01))
        there = world.network.lan("there", "203.0.113.2", SYMMETRIC, line=Line(delay=0.01))
        alice = world.node(ALICE, world.host("alice", "192.168.1.2/24", zone=here))
        carol = world.node(CAROL, world.host("carol", "192.168.1.3/24", zone=here), 7000)
        bob = world.node(BOB, world.host("bob", "192.168.1.3/24", zone=there), 7000)
        async with alice, bob, carol:
            with pytest.raises(ConnectError):
                await auto_connect(alice, bob.address, timeout=8)
            assert carol.parts.engine.sessions == 0

    play(scenario)


def test_dialling_each_other_at_once_gives_each_its_own_pipe() -> None:
    async def scenario(transport: Any) -> None:
        async with World().pair() as (alice, bob):
            (a, _), (b, _) = await asyncio.gather(
                auto_connect(alice, bob.address, transport=transport),
                auto_connect(bob, alice.address, transport=transport),
            )
            at_bob, at_alice = await bob.accept(), await alice.accept()
            for one, other, word in ((a, at_bob, b"one"), (b, at_alice, b"two")):
                await one.send(word)
                assert await other.recv() == word
                await other.send(word[::-1])
                assert await one.recv() == word[::-1]
            await asyncio.gather(*(pipe.close() for pipe in (a, b, at_bob, at_alice)))

    for transport in ("tcp", "udp"):
        play(scenario, transport)


def test_many_udp_pipes_share_the_same_two_endpoints() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            opened: list[Pipe] = []
            accepted: list[Pipe] = []
            for _ in range(12):
                pipe, _ = await auto_connect(alice, bob.address, transport="udp")
                opened.append(pipe)
                accepted.append(await bob.accept())
            for number, pipe in enumerate(opened):
                await pipe.send(bytes((number,)))
            assert [await pipe.recv() for pipe in accepted] == [bytes((number,)) for number in range(12)]
            await asyncio.gather(*(pipe.close() for pipe in (*opened, *accepted)))

    play(scenario)


def test_on_pipe_serves_and_closes() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            early, _ = await auto_connect(alice, bob.address)

            @bob.on_pipe
            async def echo(pipe: Pipe) -> None:
                async for data in pipe:
                    await pipe.send(data.upper())

            late, _ = await auto_connect(alice, bob.address)
            for pipe in (early, late):
                await pipe.send(b"abc")
                assert await pipe.recv() == b"ABC"
                await pipe.close()

    play(scenario)


def test_iterating_over_a_node_ends_when_it_closes() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):

            async def serve() -> list[bytes]:
                return [pipe.peer async for pipe in bob]

            task = asyncio.create_task(serve())
            pipe, _ = await auto_connect(alice, bob.address)
            await asyncio.sleep(0.1)  # virtual: the nomination arrives
            await bob.close()
            assert await task == [ALICE.public_key]
            with pytest.raises((PipeClosedError, PeerLostError)):
                await pipe.recv()
            with pytest.raises(NodeClosedError):
                await bob.accept()
            with pytest.raises(NodeClosedError):
                await auto_connect(bob, alice.address)

    play(scenario)


def test_cancelling_leaves_the_node_usable() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            for delay in (0.0, 0.01, 0.05, 0.1, 0.159, 0.161):
                task = asyncio.create_task(auto_connect(alice, bob.address))
                await asyncio.sleep(delay)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    await task.result()[0].close()
            assert alice.parts.engine.sessions == 0
            pipe, _ = await auto_connect(alice, bob.address)
            await pipe.close()

    play(scenario)


def test_wrong_arguments_are_named() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            with pytest.raises(AddressError):
                await auto_connect(alice, "nonsense")
            with pytest.raises(AddressError):
                await auto_connect(alice, b"")
            with pytest.raises(PluginError, match="turn"):
                await auto_connect(alice, bob.address, plugins=["turn"])
            with pytest.raises(ConfigError, match="transport"):
                await auto_connect(alice, bob.address, transport="sctp")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="timeout"):
                await auto_connect(alice, bob.address, timeout=0)

    play(scenario)


def test_a_node_that_is_not_started_says_so() -> None:
    async def scenario() -> None:
        node = Node(NodeConfig(identity=ALICE))
        with pytest.raises(NodeClosedError, match="not started"):
            node.address  # noqa: B018
        with pytest.raises(NodeClosedError):
            await node.accept()
        await node.close()
        with pytest.raises(NodeClosedError):
            await node.start()

    play(scenario)
