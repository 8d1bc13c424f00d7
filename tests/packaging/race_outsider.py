"""Two nodes on this machine that race everything installed; run by the Python of a fresh environment.

Prints one line of JSON: which plugins there were, who won a race of all, what the trace says about the
outsider there, and who won when the outsider was asked for alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from warpgate_core import Identity, Node, NodeConfig, Trace, auto_connect
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.testing.signal import MemorySignal

__all__ = ["race"]


async def race(outsider: str) -> dict[str, object]:
    """One race of all and one of the outsider alone."""
    signal = MemorySignal()
    identities = [Identity.generate() for _ in range(2)]
    nodes = [
        Node(
            NodeConfig(identity=identity, nics="127.0.0.1", brokers=(), stun=(), turn=()),
            signaller=signal.join(EnvelopeCodec(identity, time.time)),
        )
        for identity in identities
    ]
    traces: list[Trace] = []
    async with nodes[0] as alice, nodes[1] as bob:
        first, everybody = await auto_connect(alice, bob.address, timeout=20, watch=traces.append)
        second, alone = await auto_connect(alice, bob.address, plugins=[outsider], timeout=20)
        other = [await bob.accept() for _ in range(2)]
        await second.send(b"through the side door")
        heard = await other[1].recv(timeout=5)
        path = second.path
        for pipe in (first, second, *other):
            await pipe.close()
        return {
            "plugins": {r.name: [r.state.value, r.distribution] for r in alice.registry.records},
            "winner": everybody.name,
            "raced": sorted({event.strategy for event in traces[0] if event.strategy}),
            "alone": alone.name,
            "transport": path.transport,
            "heard": heard.decode(),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(race(sys.argv[1]))))
