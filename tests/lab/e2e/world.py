"""The topologies that the end-to-end tests share, and what every test does with two connected nodes.

One world serves a whole test module, because building it and starting programs in it costs a second;
each test puts back what it broke (`World.repair`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from typing import Any

from tests.lab import Broker, Client, Coturn, Home, Host, Internet, Lab, Nat
from tests.lab.e2e.agent import Agent, Joined, Started

__all__ = ["DELAY", "FAMILIES", "World", "exchange", "make_world", "meet", "part", "plugins"]

DELAY = 0.020  # s one way per line: 80 ms from home to home and back, 40 ms to a broker and back
FAMILIES: tuple[tuple[int, ...], ...] = ((4,), (6,), (4, 6))
FILE = 100_000  # bytes: 100 messages over UDP, of which the lossy lines lose a fifth with their answers
REPEAT = 0.5  # s without the message at the other end until it is sent again


class World:
    """An internet with brokers and STUN, homes, and programs at home.

    Args:
        lab: owner.
        stack: closes what is opened here, in time.
    """

    def __init__(self, lab: Lab, stack: ExitStack, brokers: int) -> None:
        self._stack = stack
        self.lab = lab
        self.net: Internet = lab.internet()
        self.brokers: list[Broker] = self.net.brokers(brokers)
        self.stun: Coturn = self.net.coturn()
        self.hosts: dict[str, Client] = {}
        self.homes: list[Home] = []
        self._shared: dict[str, Agent] = {}

    def home(self, name: str, nat: Nat = Nat.OPEN, **options: Any) -> Client:
        """A home whose line has the delay of this world; arguments as of `Internet.home`."""
        client = self.net.home(name, nat, **({"delay": DELAY} | options))
        self.hosts[name] = client
        self.homes.append(client.home)
        return client

    def agent(self, host: Host) -> Agent:
        """A new program on this machine, ended with the world."""
        return self._stack.enter_context(Agent(host))

    def one_agent(self, host: Host) -> Agent:
        """The program on this machine that tests share, started when first asked for."""
        if host.name not in self._shared:
            self._shared[host.name] = self.agent(host)
        return self._shared[host.name]

    def services(self, families: tuple[int, ...] = (4, 6)) -> dict[str, Any]:
        """The `NodeConfig` fields that name this world's brokers (by the first family) and STUN server."""
        return {
            "brokers": [broker.url(families[0]) for broker in self.brokers],
            "stun": [self.stun.stun(family) for family in families],
            "families": list(families),
            "disable": plugins(),
        }

    def environment(self, families: tuple[int, ...] = (4, 6)) -> dict[str, str]:
        """The same as environment variables."""
        services = self.services(families)
        return {
            "WARPGATE_BROKERS": ",".join(services["brokers"]),
            "WARPGATE_STUN": ",".join(services["stun"]),
            "WARPGATE_DISABLE": ",".join(services["disable"]),
        }

    def repair(self) -> None:
        """Start what was killed, thaw what was frozen, and let every line lose nothing."""
        for service in (*self.brokers, self.stun):
            if service.running:
                service.resume()
            else:
                service.start()
        for home in self.homes:
            home.line.set_loss(0.0)


def plugins() -> list[str]:
    """What is installed beside the core. Switched off, since these tests are about the core."""
    return sorted({point.name for point in entry_points(group="warpgate.plugins")})


@contextmanager
def make_world(brokers: int = 3) -> Iterator[World]:
    """A world without homes."""
    with Lab() as lab, ExitStack() as stack:
        yield World(lab, stack, brokers)


def meet(caller: Started, callee: Started, **options: Any) -> tuple[Joined, Joined]:
    """Connect two nodes: (the caller's end, the callee's end), which agree on who and how.

    Raises:
        AgentError: they could not.
    """
    here = caller.connect(callee, **options)
    there = callee.accept()
    assert (here.peer, there.peer) == (callee.key, caller.key)
    assert (here.transport, here.strategy) == (there.transport, there.strategy)
    return here, there


def exchange(here: Joined, there: Joined, size: int = FILE) -> None:
    """A message each way, a file with its checksum, and an orderly end that both notice."""
    _message(here, there, "hello, there")
    _message(there, here, "hello, here")
    arrived = there.begin("receive_file", size=size)
    digest = here.call("send_file", size=size, seed=size)
    assert arrived.result() == digest
    part(here, there)


def part(here: Joined, there: Joined) -> None:
    """Close one end; the other notices, as a stream also by the end of what it reads, and closes too."""
    ended = there.begin("ending") if here.transport == "tcp" else None
    closing = here.begin("close")
    if ended is not None:
        assert ended.result()["error"] == ""
    there.call("close")
    assert closing.result()["seconds"] < 7.0  # `StreamPipe.close`: at most six


def _message(sender: Joined, receiver: Joined, text: str) -> None:
    """One message; over UDP it is repeated until it arrives, as the network may lose it."""
    arrived = receiver.begin("receive")
    sender.call("send", text=text)
    while sender.transport == "udp" and not wait([arrived], REPEAT).done:
        sender.call("send", text=text)
    assert arrived.result() == text
