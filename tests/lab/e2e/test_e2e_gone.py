"""Peers that are not there, or vanish: what the other end is told, and how soon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.e2e.agent import Agent, AgentError, Started
from tests.lab.e2e.world import World, exchange, make_world, meet

NOTICED = 31.0  # s: keepalive and consent give up after 30 (RFC 7675 section 5.1), and one to be told


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        made.home("a")
        made.home("b")
        made.home("c")
        yield made


@pytest.fixture(scope="module")
def a(world: World) -> Started:
    return world.agent(world.hosts["a"]).start(**world.services((4,)))


@pytest.fixture
def b(world: World) -> Iterator[Started]:
    """A node that the test may do away with, line and all."""
    with Agent(world.hosts["b"]) as agent:
        yield agent.start(**world.services((4,)))


def test_a_peer_that_is_not_there(world: World, a: Started, b: Started) -> None:
    """Sooner than the 20 s of the time-out, and with what was tried: a dead process, a dead line."""
    line = world.hosts["c"].home.line
    with Agent(world.hosts["c"]) as agent:
        c = agent.start(**world.services((4,)))
        b.agent.kill()
        line.cut()
        try:
            for peer, call in [(peer, a.begin_connect(peer)) for peer in (b, c)]:
                with pytest.raises(AgentError, match="ConnectError") as caught:
                    a.joined(call)
                error = caught.value
                assert error.seconds < 12
                assert "could not be told that we are calling (the peer acknowledged nothing" in error.text
                assert peer.node_id in error.text
                assert {text.partition(":")[0] for _, text in error.inner} == {"direct", "reverse"}
        finally:
            line.mend()
    assert a.call("busy")["sessions"] == 0


def test_a_peer_that_comes_back_is_reached_at_its_old_address(world: World, a: Started) -> None:
    """Same key, same port: the address that was handed out before still does."""
    services = world.services((4,)) | {"port": 4567, "seed": "who comes back"}
    with Agent(world.hosts["b"]) as agent:
        before = agent.start(**services)
        exchange(*meet(a, before), 1_000)
    with Agent(world.hosts["b"]) as agent:
        agent.start(**services)
        again = agent.call("show", node="node")
        assert again["key"] == before.key
        back = Started(agent, "node", **again | {"address": before.address})
        exchange(*meet(a, back), 1_000)


def test_a_peer_that_moved_is_found_through_brokers(world: World, a: Started) -> None:
    """Another port: nothing answers at the old one, but brokers carry the offer; the answer says where."""
    services = world.services((4,)) | {"seed": "who moves"}
    with Agent(world.hosts["b"]) as agent:
        before = agent.start(**services, port=4568)
        before.stop()
        after = agent.start("moved", **services, port=4569)
        here = a.connect(before)
        assert here.peer == after.key
        assert here.seconds < 2
        exchange(here, after.accept(), 1_000)


def test_someone_else_lives_there_now(world: World, a: Started) -> None:
    """Another key at the endpoint in the address: refused, and never handed a pipe."""
    with Agent(world.hosts["b"]) as agent:
        before = agent.start(**world.services((4,)), port=4570)
        before.stop()
        other = agent.start("other", **world.services((4,)), port=4570)
        with pytest.raises(AgentError, match="ConnectError") as caught:
            a.connect(before, timeout=3)
        assert caught.value.seconds < 5
        assert other.call("busy") == {"sessions": 0, "abandoned": 0, "waiting": 0}


def test_refused_by_policy_is_said_at_once(world: World, a: Started) -> None:
    with Agent(world.hosts["b"]) as agent:
        strict = agent.start(**world.services((4,)), accept=[])
        for transport in ("tcp", "udp"):
            with pytest.raises(AgentError, match=r"ConnectError: the peer refused.*policy") as caught:
                a.connect(strict, transport=transport)
            assert caught.value.seconds < 5
            assert caught.value.inner[0][0] == "RefusedError"
        assert strict.call("busy") == {"sessions": 0, "abandoned": 0, "waiting": 0}


def test_killed_after_connecting(a: Started, b: Started) -> None:
    """The kernel resets a dead process's TCP connections."""
    here, _ = meet(a, b, transport="tcp")
    ending = here.begin("ending")
    b.agent.kill()
    told = ending.result()
    assert told["seconds"] < 5
    assert told["error"] in ("", "PeerLostError"), "a kill with nothing unread ends in FIN, else in RST"


@pytest.mark.slow
def test_killed_or_unplugged_and_silent(world: World, a: Started, b: Started) -> None:
    """Nothing comes from there any more: keepalive (TCP) and consent (UDP) end the wait, both in 30 s.

    One test for four pipes, since each takes half a minute: the two to b lose their line, the two to a
    process of its own lose their process, of which only UDP gets no word.
    """
    with Agent(world.hosts["b"]) as second:
        other = second.start("other", **world.services((4,)))
        silent = [meet(a, b, transport=transport)[0] for transport in ("tcp", "udp")]
        silent.append(meet(a, other, transport="udp")[0])
        endings = [here.begin("ending") for here in silent]
        second.kill()
        world.hosts["b"].home.line.cut()
        try:
            for here, ending in zip(silent, endings, strict=True):
                told = ending.result()
                assert told["error"] == "PeerLostError", here
                assert told["seconds"] < NOTICED, here
        finally:
            world.hosts["b"].home.line.mend()
