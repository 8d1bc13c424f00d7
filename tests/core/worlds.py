"""Nodes on a virtual network: what tests of node and engine share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from warpgate_core import Identity, Node, NodeConfig
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.testing.packet import PacketEvent
from warpgate_core.testing.signal import MemorySignal

ALICE = Identity.from_secret(bytes(31) + b"\1")
BOB = Identity.from_secret(bytes(31) + b"\2")
CAROL = Identity.from_secret(bytes(31) + b"\3")
LINE = Line(delay=0.02)
PLUGINS = ("warpgate-punch", "warpgate-probe", "warpgate-turn", "warpgate-upnp")
SIGNAL = 0.05  # s one way; a little more than the direct way, so that who wins is certain


@dataclass
class World:
    """One network, one place for signals, and the nodes that a test puts there."""

    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    signalling: MemorySignal = field(default_factory=lambda: MemorySignal(Line(delay=SIGNAL / 2)))
    skews: dict[bytes, float] = field(default_factory=dict)
    packets: list[PacketEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network.watch(self.packets.append)

    def host(self, name: str, *addresses: str, **options: Any) -> Host:
        """A machine with the line that all have."""
        return self.network.host(name, *addresses, **{"line": LINE, **options})

    def node(self, identity: Identity, host: Host, port: int = 0, **config: Any) -> Node:
        """A node of the core alone on a host, not started: plugins have tests of their own."""
        config["disable"] = (*PLUGINS, *config.get("disable", ()))
        codec = EnvelopeCodec(identity, lambda: time.time() + self.skews.get(identity.public_key, 0.0))
        member = self.signalling.join(codec, ReplayGuard())
        edge = self.network.edge(host, port)
        return Node(NodeConfig(identity=identity, brokers=[], **config), edge=edge, signaller=member)

    @asynccontextmanager
    async def pair(self, **bob: Any) -> AsyncIterator[tuple[Node, Node]]:
        """Alice and Bob on the open internet, started. Options go to Bob's configuration."""
        alice = self.node(ALICE, self.host("alice", "198.51.100.1/24"), 7001)
        async with alice, self.node(BOB, self.host("bob", "198.51.100.2/24"), 7002, **bob) as other:
            yield alice, other

    def sent_by(self, host: str) -> list[PacketEvent]:
        """What a host put on its line."""
        return [event for event in self.packets if event.fate == "sent" and event.host == host]
