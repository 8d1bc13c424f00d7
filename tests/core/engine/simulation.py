"""Two engines on a virtual network, with everything that can go wrong drawn from one seed.

One run: a topology, lines, signalling and faults; one or both ends connect, are cancelled or closed. Then
what both ends hold is compared. The rule: for every session both ends return the same path, or neither
does. An initiator returns before the responder has confirmed (see `race.agreement`), so where the network
was cut in that very moment, or loss ate every copy of the nomination, its pipe must break by itself; it may
not hang and may not carry a byte.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.config import Limits
from warpgate_core.engine.engine import Engine
from warpgate_core.errors import ConnectError, NodeClosedError, PipeError
from warpgate_core.identity import Identity
from warpgate_core.nat import Filtering, Mapping
from warpgate_core.pipe import Pipe
from warpgate_core.registry import Registry
from warpgate_core.signal.envelope import EnvelopeCodec, Sealed
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.signal.signaller import OnEnvelope
from warpgate_core.strategies import BUILT_IN
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.nat import NatRules
from warpgate_core.testing.network import MemoryNetwork

BOB_AND_ALICE = (Identity.from_secret(bytes(31) + b"\1"), Identity.from_secret(bytes(31) + b"\2"))
TIMEOUT = 10.0
SETTLE = 15.0  # s until a NOMINATE that was lost again and again has come, or the responder has given up
AGES = 200.0  # s after which every broken pipe must have noticed: consent 30 s, TCP retransmission 127 s


@dataclass
class Signalling:
    """Signalling between the two ends: delays, loses, doubles, or is dead."""

    rng: random.Random
    delay: float
    loss: float
    double: float
    dead: bool
    ends: dict[bytes, Mailbox] = field(default_factory=dict)


class Mailbox:
    """One end of it. A `Signaller`."""

    def __init__(self, signalling: Signalling, codec: EnvelopeCodec, guard: ReplayGuard) -> None:
        self._signalling = signalling
        self.codec = codec
        self.on_envelope: OnEnvelope | None = None
        self._guard = guard
        signalling.ends[codec.public_key] = self

    async def deliver(self, dest: bytes, sealed: Sealed, hints: object = (), timeout: float = 5.0) -> bool:
        """Three tries, then no acknowledgement."""
        s = self._signalling
        for _ in range(3):
            await asyncio.sleep(s.delay * (1 + s.rng.random()))
            if s.dead or s.rng.random() < s.loss:
                await asyncio.sleep(timeout / 3)
                continue
            for _ in range(2 if s.rng.random() < s.double else 1):
                s.ends[dest].receive(sealed.data)
            await asyncio.sleep(s.delay * (1 + s.rng.random()))
            if s.rng.random() >= s.loss:
                return True
        return False

    def skew(self, peer: bytes) -> float | None:
        """Both ends have the same clock."""
        return None

    def receive(self, data: bytes) -> None:
        """What the router does before the engine sees anything."""
        envelope = self.codec.open(data)
        if envelope.message_id in self._guard:
            return
        self._guard.check_and_add(envelope.message_id, envelope.timestamp, envelope.timestamp)
        if self.on_envelope is not None:
            self.on_envelope(envelope)


@dataclass
class End:
    """One node, below the public API."""

    engine: Engine
    host: Host
    identity: Identity
    accepted: list[Pipe] = field(default_factory=list)
    connected: list[Pipe] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def address(self) -> NodeAddress:
        """What the other end is told."""
        faces = self.engine.edge.interfaces
        return NodeAddress(
            self.identity.public_key,
            tuple(
                InterfaceAddress(face.nic, face.internal, face.external, face.nat, face.tcp_external)
                for face in faces
            ),
        )


@dataclass
class World:
    """One drawn scenario."""

    rng: random.Random
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    faults: bool = False

    def build(self) -> tuple[End, End]:
        """Draw topology and signalling."""
        rng = self.rng
        dead = rng.random() < 0.1
        signalling = Signalling(
            rng, rng.uniform(0.001, 0.15), rng.choice((0.0, 0.0, 0.2)), rng.choice((0.0, 0.3)), dead
        )
        return self._end(0, signalling), self._end(1, signalling)

    def _line(self) -> Line:
        rng = self.rng
        return Line(
            delay=rng.uniform(0.0, 0.1),
            jitter=rng.choice((0.0, 0.0, 0.05)),
            loss=rng.choice((0.0, 0.0, 0.02, 0.1)),
            reorder=rng.choice((0.0, 0.2)),
            duplicate=rng.choice((0.0, 0.2)),
        )

    def _end(self, number: int, signalling: Signalling) -> End:
        rng, name = self.rng, ("alice", "bob")[number]
        if rng.random() < 0.35:
            rules = NatRules(rng.choice((Mapping.EIM, Mapping.APDM)), rng.choice(tuple(Filtering)[1:]))
            home = self.network.lan(f"home-{name}", f"203.0.113.{number + 1}", rules, line=self._line())
            host = self.network.host(name, "192.168.1.2/24", zone=home, line=Line(delay=0.001))
        else:
            host = self.network.host(name, f"198.51.100.{number + 1}/24", line=self._line())
            if rng.random() < 0.3:
                host.plug(f"2001:db8::{number + 1}/64", None, self._line())
        loop = asyncio.get_running_loop()
        identity = BOB_AND_ALICE[number]
        codec, guard = EnvelopeCodec(identity, loop.time), ReplayGuard()
        registry = Registry(discover=False)
        for strategy in BUILT_IN:
            registry.add(strategy)
        registry.load()
        engine = Engine(
            identity=identity,
            codec=codec,
            guard=guard,
            edge=self.network.edge(host),
            signaller=Mailbox(signalling, codec, guard),
            registry=registry,
            limits=Limits(),
            accepts=lambda key: True,
            address=lambda: end.address(),  # noqa: PLW0108 - `end` does not exist yet
            on_pipe=lambda pipe: end.accepted.append(pipe),  # noqa: PLW0108
            get_time=loop.time,
        )
        end = End(engine, host, identity)
        return end

    def break_things(self, ends: tuple[End, End]) -> None:
        """Draw faults: cuts for a while or for ever, resets."""
        rng = self.rng
        one, other = ends[0].host, ends[1].host
        if rng.random() < 0.25:
            self.faults = True
            at = rng.uniform(0.0, 1.0)
            self.network.at(at, self.network.cut, one, other)
            if rng.random() < 0.7:
                self.network.at(at + rng.uniform(0.0, 3.0), self.network.mend, one, other)
        if rng.random() < 0.15:
            self.faults = True
            self.network.at(rng.uniform(0.0, 1.0), self.network.reset, one, other)


async def connect(end: End, other: End, rng: random.Random) -> None:
    """Connect, perhaps cancelled half-way."""
    transports = frozenset(rng.choice((("tcp",), ("udp",), ("tcp", "udp"))))
    attempt = end.engine.connect(
        other.address(),
        end.engine.registry.select(rng.choice((None, None, None, ["direct"], ["reverse"]))),
        timeout=TIMEOUT,
        patience=2.5,
        transports=transports,
    )
    try:
        if rng.random() < 0.1:
            async with asyncio.timeout(rng.uniform(0.0, 0.6)):
                end.connected.append(await attempt)
        else:
            end.connected.append(await attempt)
    except (ConnectError, NodeClosedError) as error:
        end.failures.append(error)
    except TimeoutError as error:
        end.failures.append(error)


async def run(seed: int) -> dict[str, int]:
    """One run; raises AssertionError if the ends disagree. Returns counters."""
    world = World(random.Random(seed))
    ends = world.build()
    alice, bob = ends
    for end in ends:
        await end.engine.edge.start()
    world.break_things(ends)
    rng = world.rng
    calls = [connect(alice, bob, rng)]
    if rng.random() < 0.3:
        calls.append(connect(bob, alice, rng))
    if rng.random() < 0.03:
        world.faults = True
        calls.append(close_soon(rng.choice(ends), rng.uniform(0.0, 1.0)))
    await asyncio.gather(*calls)
    await asyncio.sleep(SETTLE)
    counts = {
        "pairs": 0,
        "nomination lost": 0,
        "failed": len(alice.failures) + len(bob.failures),
        "broken": 0,
    }
    for one, other in ((alice, bob), (bob, alice)):
        await compare(one, other, counts, faults=world.faults)
    for end in ends:
        for pipe in (*end.connected, *end.accepted):
            await pipe.close()
        await end.engine.close()
        await end.engine.edge.close()
    return counts


async def close_soon(end: End, delay: float) -> None:
    """The node closes in the middle of things."""
    await asyncio.sleep(delay)
    await end.engine.close()


async def compare(one: End, other: End, counts: dict[str, int], *, faults: bool) -> None:
    """Every pipe that `one` opened has its counterpart at `other`, the same path; or is broken."""
    opened = {pipe.trace.session: pipe for pipe in one.connected}
    accepted = {pipe.trace.session: pipe for pipe in other.accepted}
    assert len(opened) == len(one.connected), "two pipes of one session at the initiator"
    assert len(accepted) == len(other.accepted), "two pipes of one session at the responder"
    for session, pipe in opened.items():
        counterpart = accepted.pop(session, None)
        if counterpart is None:
            await must_break(pipe)
            counts["broken" if faults else "nomination lost"] += 1
        else:
            await must_match(pipe, counterpart, faults=faults)
            counts["pairs"] += 1
    for pipe in accepted.values():
        await must_break(pipe)
        counts["broken"] += 1


async def must_match(pipe: Pipe, counterpart: Pipe, *, faults: bool) -> None:
    """The same path: same strategy and transport, and what one sends the other receives."""
    assert pipe.strategy == counterpart.strategy
    assert pipe.path.transport == counterpart.path.transport
    try:
        for sender, receiver in ((pipe, counterpart), (counterpart, pipe)):
            word = f"{pipe.trace.session} {sender.peer.hex()}".encode()
            assert await passes(sender, receiver, word), f"nothing passes from {sender} to {receiver}"
    except PipeError:
        assert faults


async def passes(sender: Pipe, receiver: Pipe, word: bytes) -> bool:
    """Whether `word` arrives; over UDP it is sent several times."""
    for _ in range(60):
        await sender.send(word)
        try:
            data = await receiver.recv(timeout=1.0 if sender.path.transport == "udp" else AGES)
        except TimeoutError:
            continue
        assert data == word, f"{receiver} received {data!r} instead of {word!r}"
        return True
    return False


async def must_break(pipe: Pipe) -> None:
    """A pipe without a counterpart may not hang and may not carry a byte."""
    try:
        async with asyncio.timeout(AGES):
            data = await pipe.recv()
    except PipeError:
        return
    raise AssertionError(f"{pipe} has no counterpart and received {data!r}")
