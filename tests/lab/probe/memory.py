"""Searches in memory: two homes, virtual time, one seed for each run; and what many of them come to."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tests.core.worlds import ALICE, BOB, World
from warpgate_core import Allocation, ConnectError, Identity, Mapping, Node, NodeConfig
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import run_virtual
from warpgate_core.testing.nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
    NatRules,
)

__all__ = ["CONE", "KINDS", "PAIRS", "Summary", "homes", "measure", "summary"]

KINDS = {
    "full-cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric-random": SYMMETRIC,
    "symmetric-sequential": SYMMETRIC_SEQUENTIAL,
    "symmetric-downwards": NatRules(mapping=Mapping.APDM, allocation=Allocation.SEQUENTIAL, step=-2),
    "symmetric-preserving": NatRules(mapping=Mapping.APDM),
    "port-chunked": NatRules(mapping=Mapping.APDM, allocation=Allocation.CHUNKED, chunk=(9_216, 1_024)),
}
CONE = "port-restricted"
PAIRS = [
    *((CONE, kind) for kind in KINDS if kind.startswith(("symmetric", "port-chunked"))),
    *((kind, CONE) for kind in KINDS if kind.startswith(("symmetric", "port-chunked"))),
    ("symmetric-sequential", "symmetric-sequential"),
    ("symmetric-sequential", "symmetric-downwards"),
    ("address-restricted", "symmetric-random"),
    ("symmetric-random", "full-cone"),
]
DELAY = 0.02  # s one way per line: 80 ms from home to home and back
TIMEOUT = 15.0  # s


@dataclass(frozen=True, slots=True)
class Summary:
    """What many runs came to.

    Args:
        runs: how many.
        times: seconds of those that came to a pipe, in order.
    """

    runs: int
    times: Sequence[float]

    @property
    def share(self) -> float:
        """Of runs that came to a pipe."""
        return len(self.times) / self.runs

    def percentile(self, percent: float) -> float:
        """Seconds within which so many of the pipes were there; infinite if there were none."""
        if not self.times:
            return math.inf
        return self.times[max(0, math.ceil(percent / 100 * len(self.times)) - 1)]

    def __str__(self) -> str:
        points = ", ".join(f"p{percent} {self.percentile(percent):.2f} s" for percent in (50, 95, 99))
        return f"{len(self.times)} of {self.runs} ({self.share:.1%}), {points}"


def summary(outcomes: Sequence[float | None]) -> Summary:
    """Of seconds, or None where nothing came of it."""
    return Summary(len(outcomes), sorted(one for one in outcomes if one is not None))


def homes(world: World, *kinds: str, loss: float = 0.0) -> list[Node]:
    """Alice and Bob, each behind a NAT, not started."""
    nodes = []
    for number, (kind, identity) in enumerate(zip(kinds, (ALICE, BOB), strict=True), 1):
        line = Line(delay=DELAY, loss=loss)
        zone = world.network.lan(f"home {number}", f"203.0.113.{number}", KINDS[kind], line=line)
        host = world.network.host(f"host {number}", f"192.168.{number}.2/24", zone=zone)
        nodes.append(_node(world, identity, host))
    return nodes


def _node(world: World, identity: Identity, host: Host) -> Node:
    """A node with every plugin that is installed."""
    codec = EnvelopeCodec(identity, time.time)
    member = world.signalling.join(codec, ReplayGuard())
    config = NodeConfig(identity=identity, brokers=[])
    return Node(config, edge=world.network.edge(host), signaller=member)


async def _meet(one: str, other: str, loss: float) -> float | None:
    world = World()
    alice, bob = homes(world, one, other, loss=loss)
    async with alice, bob:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            pipe, _ = await alice.connect(bob.address, plugins=["probe"], timeout=TIMEOUT)
        except ConnectError:
            return None
        took = loop.time() - began
        accepted = await bob.accept()
        assert (pipe.path.transport, accepted.strategy) == ("udp", "probe")
        await pipe.close()
        await accepted.close()
        return took


def measure(one: str, other: str, runs: int, *, loss: float = 0.0, first_seed: int = 0) -> Summary:
    """Connect two homes again and again, with another seed each time.

    Args:
        one, other: kinds of NAT; the first is the initiator's.
        runs: how often.
        loss: share of packets lost on each line.
        first_seed: of the first run.
    """
    seeds = range(first_seed, first_seed + runs)
    return summary([run_virtual(partial(_meet, one, other, loss), seed=seed) for seed in seeds])
