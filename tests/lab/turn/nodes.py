"""Two whole nodes in this process, on loopback, with signalling in memory and a relay between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.lab.turn.coturn import TurnServerProgram
from warpgate_core import ConnectError, Identity, Node, NodeConfig, Pipe, TurnServer
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.testing.line import Line
from warpgate_core.testing.signal import MemorySignal

__all__ = ["exchange", "explained", "joined", "nodes"]

SIGNAL = 0.002  # s one way
OTHERS = ("warpgate-upnp", "warpgate-punch", "warpgate-probe")
Servers = Sequence[str | TurnServer]


@asynccontextmanager
async def nodes(
    alice: Servers, bob: Servers, *, stun: TurnServerProgram | None = None, **options: Any
) -> AsyncIterator[tuple[Node, Node]]:
    """Alice and Bob, started.

    Args:
        alice, bob: TURN servers of each.
        stun: tells them that UDP gets out; None: they cannot know.
        options: of the strategy, the same for both.
    """
    signalling = MemorySignal(Line(delay=SIGNAL / 2))
    made = []
    for number, servers in enumerate((alice, bob), 1):
        identity = Identity.from_secret(bytes(31) + bytes([number]))
        codec = EnvelopeCodec(identity, signalling.get_time)
        config = NodeConfig(
            identity=identity,
            brokers=[],
            stun=[f"127.0.0.1:{stun.port}"] if stun is not None else [],
            turn=servers,
            nics="127.0.0.1",
            families=(4,),
            disable=OTHERS,
            options={"turn": options} if options else {},
        )
        made.append(Node(config, signaller=signalling.join(codec, ReplayGuard())))
    async with made[0], made[1]:
        yield made[0], made[1]


async def joined(alice: Node, bob: Node, timeout: float = 10.0) -> tuple[Pipe, Pipe]:
    """Alice's end and Bob's end of a pipe over a relay."""
    pipe, spec = await alice.connect(bob.address, plugins=["turn"], timeout=timeout)
    other = await bob.accept()
    for end in (pipe, other):
        assert (end.strategy, end.path.transport, end.path.kind) == ("turn", "udp", "relay")
    assert spec.name == "turn"
    assert (pipe.peer, other.peer) == (bob.identity.public_key, alice.identity.public_key)
    return pipe, other


async def exchange(one: Pipe, other: Pipe, sizes: Sequence[int] = (0, 1, 2, 3, 1_000, 1_200)) -> None:
    """Messages of these sizes each way; over loopback none gets lost."""
    for sender, receiver in ((one, other), (other, one)):
        for size in sizes:
            message = bytes(size % 251 for _ in range(size))
            await sender.send(message)
            assert await receiver.recv(timeout=5) == message


async def explained(alice: Node, bob: Node, timeout: float = 10.0) -> tuple[str, float]:
    """Connect in vain: the strategy's own sentence, and how long it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        pipe, _ = await alice.connect(bob.address, plugins=["turn"], timeout=timeout)
    except ConnectError as error:
        (one,) = error.exceptions
        return str(one), loop.time() - start
    await pipe.close()
    raise AssertionError(f"{pipe!r} came about")
