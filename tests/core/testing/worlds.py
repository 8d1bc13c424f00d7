"""Hosts and NATs that tests of the in-memory network share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from warpgate_core.endpoint import Endpoint
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.nat import (
    NatRules,
)
from warpgate_core.testing.network import MemoryNetwork

WAN = "203.0.113.1"
INSIDE = Endpoint("192.168.1.2", 5000)


class Peer:
    """A host with sockets that remember what they got."""

    def __init__(self, host: Host, *ports: int) -> None:
        self.host = host
        self.got: list[tuple[bytes, Endpoint, Endpoint]] = []
        self.at = [Endpoint(host.cards[0].address, port) for port in ports]
        for local in self.at:
            host.bind(local, partial(self._received, local))

    def _received(self, local: Endpoint, data: bytes, source: Endpoint) -> None:
        self.got.append((data, source, local))

    def send(self, data: bytes, remote: Endpoint, port: int = 0) -> None:
        self.host.send(data, self.at[port], remote)

    def sources(self) -> list[Endpoint]:
        return [source for _, source, _ in self.got]


class World:
    """One host behind a NAT, two on the internet with two ports each."""

    def __init__(self, rules: NatRules, line: Line | None = None) -> None:
        self.network = MemoryNetwork()
        self.home = self.network.lan("home", WAN, rules, line=line)
        self.inside = Peer(self.network.host("inside", "192.168.1.2/24", zone=self.home), 5000)
        self.x = Peer(self.network.host("x", "198.51.100.1/24"), 1, 2)
        self.y = Peer(self.network.host("y", "198.51.100.2/24"), 1, 2)


def virtual(main: Callable[[], Awaitable[None]], seed: int = 0) -> None:
    async def run() -> None:
        await main()

    run_virtual(run, seed=seed)
