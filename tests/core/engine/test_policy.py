"""What the engine lets in, and what a stranger can make it do: nothing."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from tests.core.worlds import ALICE, BOB, CAROL, World
from warpgate_core import (
    ConnectError,
    InputError,
    InterfaceAddress,
    Limits,
    NodeAddress,
    RefusedError,
    auto_connect,
)
from warpgate_core.endpoint import Endpoint
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.messages import Offer
from warpgate_core.signal.envelope import EnvelopeCodec, MessageType
from warpgate_core.testing.loop import run_virtual


def play(scenario: Any, *args: Any) -> None:
    """Run a scenario in virtual time; it may leave nothing behind."""
    run_virtual(partial(scenario, *args))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_key_that_policy_does_not_admit_is_refused_with_a_reason(transport: Any) -> None:
    async def scenario() -> None:
        async with World().pair(accept=[CAROL]) as (alice, bob):
            with pytest.raises(ConnectError, match="accept policy") as caught:
                await auto_connect(alice, bob.address, transport=transport)
            (refusal,) = caught.value.exceptions
            assert isinstance(refusal, RefusedError)
            assert refusal.code == "policy"

    play(scenario)


def test_a_refusal_can_be_silent() -> None:
    async def scenario() -> None:
        limits = Limits(silent_refusals=True)
        async with World().pair(accept=[CAROL], limits=limits) as (alice, bob):
            with pytest.raises(ConnectError) as caught:
                await auto_connect(alice, bob.address, timeout=3)
            assert not any(isinstance(error, RefusedError) for error in caught.value.exceptions)

    play(scenario)


def test_who_is_refused_cannot_make_us_send_to_an_address_that_it_names() -> None:
    async def scenario() -> None:
        world = World()
        victim = world.host("victim", "198.51.100.99/24")
        async with world.pair(accept=[CAROL]) as (alice, bob):
            named = InterfaceAddress(0, Endpoint("198.51.100.99", 53))
            codec = EnvelopeCodec(ALICE, time.time)
            offer = Offer(
                bytes(range(16)),
                bytes(31) + b"\x09",
                frozenset(("tcp", "udp")),
                10.0,
                NodeAddress(ALICE.public_key, (named,)).encode(),
                {"direct": b"", "reverse": b""},
            )
            sealed = codec.seal(BOB.public_key, offer.encode(), type=MessageType.CONTROL)
            (sock,) = alice.edge.sockets
            frame = Frame(
                FrameKind.OFFER, offer.session[:8], b"n" * 12, strategy="direct", envelope=sealed.data
            )
            sock.send(frame.encode(1200), bob.edge.interfaces[0].internal)
            await asyncio.sleep(5)
        assert victim is not None
        to_victim = [event for event in world.sent_by("bob") if event.destination.host == "198.51.100.99"]
        assert to_victim == []
        replies = [event for event in world.sent_by("bob") if event.protocol == "udp"]
        assert len(replies) == 1, "one refusal, to where the offer came from"
        assert len(replies[0].payload) <= 1200  # type: ignore[arg-type]

    play(scenario)


def test_an_offer_recorded_from_the_line_opens_nothing_twice() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pair() as (alice, bob):
            pipe, _ = await auto_connect(alice, bob.address, transport="udp")
            other = await bob.accept()
            offers = [
                event
                for event in world.sent_by("alice")
                if isinstance(event.payload, bytes) and event.payload[:1] == bytes((FrameKind.OFFER,))
            ]
            assert offers
            await pipe.close()
            await other.wait_closed()
            await asyncio.sleep(40)  # the session and its pipe are forgotten; the envelope is still fresh
            before = len(world.sent_by("bob"))
            carol = world.network.edge(world.host("carol", "198.51.100.3/24"), 7003)
            await carol.start()
            for event in offers:
                carol.sockets[0].send(event.payload, bob.edge.interfaces[0].internal)  # type: ignore[arg-type]
            await asyncio.sleep(5)
            await carol.close()
            assert len(world.sent_by("bob")) == before, "Bob answered a replayed offer"

    play(scenario)


def test_an_offer_for_bob_is_nothing_to_carol() -> None:
    async def scenario() -> None:
        world = World()
        carol = world.node(CAROL, world.host("carol", "198.51.100.3/24"), 7003)
        async with carol, world.pair() as (alice, _):
            face = carol.edge.interfaces[0]
            wrong = NodeAddress(BOB.public_key, (InterfaceAddress(0, face.internal, face.internal),))
            world.signalling.is_down = True
            with pytest.raises(ConnectError):
                await auto_connect(alice, wrong, timeout=8)
            assert carol.parts.engine.sessions == 0
            udp = [event for event in world.sent_by("carol") if event.protocol == "udp"]
            assert udp == [], "Carol answered what was sealed to Bob"

    play(scenario)


def test_limits_make_a_node_say_that_it_is_busy() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pair(limits=Limits(max_sessions_per_peer=1)) as (alice, bob):
            hanging = asyncio.create_task(
                auto_connect(alice, NodeAddress(BOB.public_key), plugins=["reverse"], timeout=20)
            )
            world.network.cut(world.network.hosts["alice"], world.network.hosts["bob"])
            await asyncio.sleep(1)
            with pytest.raises(ConnectError, match="too many sessions"):
                await auto_connect(alice, bob.address, timeout=5)
            hanging.cancel()
            await asyncio.wait([hanging])

    play(scenario)


def test_without_a_common_strategy_the_error_says_so() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, bob):
            del bob
            nobody = alice.parts.engine
            with pytest.raises(ConnectError, match="no strategy could take part"):
                await nobody.connect(
                    NodeAddress(BOB.public_key), [], timeout=5, patience=1, transports=frozenset(("tcp",))
                )

    play(scenario)


def test_a_peer_that_runs_none_of_the_offered_strategies_says_so() -> None:
    async def scenario() -> None:
        async with World().pair(disable=["reverse"]) as (alice, bob):
            with pytest.raises(ConnectError, match="none of the strategies"):
                await auto_connect(alice, bob.address, plugins=["reverse"])

    play(scenario)


def test_a_node_does_not_connect_to_itself() -> None:
    async def scenario() -> None:
        async with World().pair() as (alice, _):
            with pytest.raises(InputError, match="own"):
                await auto_connect(alice, alice.address)

    play(scenario)
