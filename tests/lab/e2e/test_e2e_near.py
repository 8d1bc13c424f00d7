"""Near machines: the same one, the same LAN, one with two cards, a stranger at the right private address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import Client, Host, Nat
from tests.lab.e2e.agent import Agent, AgentError, Started
from tests.lab.e2e.world import World, exchange, make_world, meet

TWICE = "192.168.77.0/24"  # the LAN of two homes: the same private addresses mean different machines
PORT = 4600


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world() as made:
        yield made


# -- behind one NAT ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lan(world: World) -> tuple[Client, Client]:
    """Two machines behind one NAT that has no hairpin; its IPv6 firewall lets nothing in."""
    first = world.home("lan", Nat.PORT_RESTRICTED)
    return first, first.home.machine("lan2")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)], ids=["IPv4", "IPv6", "both families"])
def test_same_lan(
    world: World, lan: tuple[Client, Client], families: tuple[int, ...], transport: str
) -> None:
    name = f"{families} {transport}"
    a, b = (agent.start(name, **world.services(families)) for agent in map(world.one_agent, lan))
    here, there = meet(a, b, transport=transport)
    assert here.strategy == "direct"
    assert here.remote[0] in lan[1].addresses
    assert here.seconds < 1.0, "one line up and down takes 40 ms, the LAN less than one"
    exchange(here, there)
    for node in (a, b):
        node.stop()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_same_machine(world: World, lan: tuple[Client, Client], transport: str) -> None:
    """Two processes behind the same private and the same public address."""
    name = f"twin {transport}"
    with Agent(lan[0]) as second:
        a = world.one_agent(lan[0]).start(name, **world.services((4,)))
        b = second.start(name, **world.services((4,)), seed="another")
        for caller, callee in ((a, b), (b, a)):
            here, there = meet(caller, callee, transport=transport)
            assert (here.strategy, here.remote[0]) == ("direct", lan[0].ip4)
            exchange(here, there)
        a.stop()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_same_process(world: World, lan: tuple[Client, Client], transport: str) -> None:
    agent = world.one_agent(lan[0])
    a, b = (agent.start(f"{name} {transport}", **world.services((4,))) for name in ("one", "two"))
    exchange(*meet(a, b, transport=transport))
    a.stop()
    b.stop()


def test_without_any_server_in_the_lan(world: World, lan: tuple[Client, Client]) -> None:
    """No broker, no STUN: the address alone is enough."""
    a, b = (agent.start("alone", brokers=[], stun=[]) for agent in map(world.one_agent, lan))
    assert max(a.seconds, b.seconds) < 2.0
    for transport in ("tcp", "udp"):
        exchange(*meet(a, b, transport=transport))
    a.stop()
    b.stop()


# -- the same private address elsewhere ----------------------------------------------------------


def test_a_stranger_at_the_right_private_address(world: World) -> None:
    """b's private endpoint leads a to another node with another key. That one is not taken for b.

    a and b are in two homes whose LANs have the same addresses. A full cone lets b's checks in, so there
    is a way over UDP from outer address to outer address, and it must be the one that is found.
    """
    a_host = world.home("twice-a", Nat.FULL_CONE, lan4=TWICE)
    stranger_host = a_host.home.machine("stranger")
    b_host = world.home("twice-b", Nat.PORT_RESTRICTED, lan4=TWICE).home.machine("twice-b2")
    assert stranger_host.ip4 == b_host.ip4
    services = world.services((4,)) | {"port": PORT}
    with Agent(a_host) as one, Agent(b_host) as two, Agent(stranger_host) as three:
        a, b, stranger = one.start(**services), two.start(**services), three.start(**services)
        a, b = a.refreshed("settle"), b.refreshed("settle")
        here, there = meet(a, b)
        assert (here.transport, here.kind) == ("udp", "srflx")
        assert any(step["detail"].startswith(f"{stranger_host.ip4}:{PORT}") for step in here.trace)
        assert here.peer == b.key
        exchange(here, there)
        assert stranger.call("busy") == {"sessions": 0, "abandoned": 0, "waiting": 0}


@pytest.mark.parametrize(
    "says", ["", "HTTP/1.1 400 Bad Request\\r\\n\\r\\n"], ids=["silence", "another protocol"]
)
def test_another_server_at_the_right_address(world: World, lan: tuple[Client, Client], says: str) -> None:
    """Whatever listens there: no pipe, and not for longer than the time-out."""
    a_host, b_host = lan
    a = world.one_agent(a_host).start(f"asks {len(says)}", **world.services((4,)))
    b = world.one_agent(b_host).start(f"gone {len(says)}", **world.services((4,)), port=PORT + 1)
    b.stop()
    code = f"""
import socket
listener = socket.create_server(("{b_host.ip4}", {PORT + 1}))
print("listening", flush=True)
kept = []
while True:
    kept.append(listener.accept()[0])
    kept[-1].sendall(b"{says}")
"""
    server = b_host.service("another server", ["python3", "-c", code], ready="listening")
    try:
        with pytest.raises(AgentError, match="ConnectError") as caught:
            a.connect(b, timeout=3)
        assert caught.value.seconds < 5
    finally:
        server.kill()
    a.stop()


# -- two cards -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_lines(world: World) -> Host:
    """A machine with two lines of its own to the internet, both with a default route, eth0 preferred."""
    host = world.net.server("two-lines", families=(4,))
    host.addresses.append("203.0.113.180")
    second = world.net.line(host, "eth1", 0.0, 0.0)
    host.namespace.ip(
        [
            "address add 203.0.113.180/32 dev eth1",
            "route add 0.0.0.0/0 dev eth1 metric 200",
        ]
    )
    world.net.namespace.ip([f"route add 203.0.113.180/32 dev {second.name}"])
    return host


@pytest.fixture
def away(world: World) -> Iterator[Started]:
    """A node elsewhere."""
    host = world.hosts.get("away") or world.home("away")
    node = world.one_agent(host).start("away", **world.services((4,)))
    yield node
    node.stop()


@pytest.fixture(params=[None, "eth0", "eth1"], ids=["both alive", "eth0 dead", "eth1 dead"])
def dead(request: pytest.FixtureRequest) -> str | None:
    """A card that is up and has its address, but nothing comes through."""
    card: str | None = request.param
    return card


def test_two_cards_called(world: World, two_lines: Host, away: Started, dead: str | None) -> None:
    """The caller finds the card that is alive.

    Over UDP: to a connection that came in by eth1, Linux answers by the card of the default route. Only
    policy routing, which needs root, changes that.
    """
    with Agent(two_lines) as agent, _without(world, two_lines, dead):
        node = agent.start(**world.services((4,)))
        assert [face["internal"].rpartition(":")[0] for face in node.interfaces] == two_lines.addresses
        here, there = meet(away, node)
        assert here.transport == "udp" or dead != "eth0"
        assert here.took_a_stream_if_it_could
        if dead is not None:
            assert here.remote[0] == two_lines.addresses[1 if dead == "eth0" else 0]
        exchange(here, there)


def test_two_cards_one_of_which_dies_after_the_start(world: World, two_lines: Host, away: Started) -> None:
    with Agent(two_lines) as agent:
        node = agent.start(**world.services((4,)))
        with _without(world, two_lines, "eth0"):
            here, there = meet(away, node)
            assert here.remote[0] == two_lines.addresses[1]
            exchange(here, there)


def test_two_cards_calling(world: World, two_lines: Host, away: Started, dead: str | None) -> None:
    """The other card is tried when the one that the system would go out by is dead."""
    with Agent(two_lines) as agent, _without(world, two_lines, dead):
        node = agent.start(**world.services((4,)))
        exchange(*meet(node, away, timeout=3))


@contextmanager
def _without(world: World, host: Host, card: str | None) -> Iterator[None]:
    if card is not None:
        _cut(world, host, card)
    try:
        yield
    finally:
        if card is not None:
            _mend(world, host, card)


def _cut(world: World, host: Host, card: str) -> None:
    world.net.namespace.nft(f'add element inet lines cut {{ "{_upper(world, host, card)}" }}')


def _mend(world: World, host: Host, card: str) -> None:
    world.net.namespace.nft(f'delete element inet lines cut {{ "{_upper(world, host, card)}" }}')


def _upper(world: World, host: Host, card: str) -> str:
    """The line's name at the internet's side: the device by which it routes to this card."""
    address = host.addresses[0 if card == "eth0" else 1]
    route = world.net.run(["ip", "route", "get", address]).stdout.split()
    return route[route.index("dev") + 1]
