"""Signalling in memory: what brokers do to sealed messages, without brokers.

The messages are the real ones, sealed and opened by the same `EnvelopeCodec`; acknowledgements and replay
protection are the real ones too. Only the way between is simulated: it delays, loses, swaps and doubles,
and can be taken down. It is to `Router` what `MemoryEdge` is to the real edge.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from warpgate_core.address import BrokerHint
from warpgate_core.errors import EnvelopeError
from warpgate_core.signal.envelope import (
    Ack,
    AckStatus,
    Envelope,
    EnvelopeCodec,
    Sealed,
    ack_id_of,
    is_ack,
    open_ack,
)
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT, OnEnvelope
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import Ambient, VirtualLoop

__all__ = ["MemorySignal", "MemorySignaller"]

MIN_RETRY: Final = 0.2  # s, as TCP on Linux; a real router measures it (RFC 6298)


class MemorySignal:
    """The brokers, as one: everybody who joined reaches everybody else.

    Args:
        line: between a node and the brokers, for who joins without one of his own. A message takes the
            lines of both ends.
        seed: of its randomness; None takes the randomness of the `VirtualLoop` it runs on, else 0.
        get_time: everybody's clock, seconds since 1970; None: the one of the `VirtualLoop`, else the
            system's. A codec may have another one, to play with skew.

    Attributes:
        is_down: set it to lose everything, as when all brokers are dead.
        fates: how many transmissions were sent, delivered, or lost.
    """

    def __init__(
        self,
        line: Line | None = None,
        *,
        seed: int | None = None,
        get_time: Callable[[], float] | None = None,
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.line = line or Line()
        if isinstance(loop, VirtualLoop):
            self._rng = loop.random if seed is None else random.Random(seed)  # noqa: S311  repeatable
            self.get_time = get_time or loop.clock.time
        else:
            self._rng = random.Random(seed or 0)  # noqa: S311  a simulation must be repeatable
            self.get_time = get_time or time.time
        self.is_down = False
        self.fates: Counter[str] = Counter()
        self._members: dict[bytes, MemorySignaller] = {}

    def join(
        self, codec: EnvelopeCodec, guard: ReplayGuard | None = None, line: Line | None = None
    ) -> MemorySignaller:
        """Give a node its signaller.

        Args:
            codec: the node's; its public key is where messages arrive.
            guard: the node's; shared with the engine, as the real one is.
            line: between the node and the brokers; None: the line of all.

        Raises:
            ValueError: that key has joined already.
        """
        if codec.public_key in self._members:
            raise ValueError(f"{codec.public_key.hex()[:10]} has joined already")
        member = MemorySignaller(self, codec, guard or ReplayGuard(), line or self.line)
        self._members[codec.public_key] = member
        return member

    def leave(self, public_key: bytes) -> None:
        """Nothing reaches this key any more; harmless if it never joined."""
        self._members.pop(public_key, None)

    def transmit(self, data: bytes, dest: bytes, line: Line) -> None:
        """Carry bytes to a key, if they survive."""
        self.fates["sent"] += 1
        member = self._members.get(dest)
        if member is None or self.is_down:
            self.fates["lost"] += 1
            return
        rng = self._rng
        delays = [up + down for up in line.sample(rng) for down in member.line.sample(rng)]
        if not delays:
            self.fates["lost"] += 1
        for delay in delays:
            self._loop.call_at(self._loop.time() + delay, Ambient(self._arrive, data, dest))

    def _arrive(self, data: bytes, dest: bytes) -> None:
        member = self._members.get(dest)
        if member is None or self.is_down:
            self.fates["lost"] += 1
        else:
            self.fates["delivered"] += 1
            member.receive(data)


class MemorySignaller:
    """One node's end of a `MemorySignal`; a `Signaller`. Made by `MemorySignal.join`.

    Attributes:
        on_envelope: see `Signaller`.
        refused: how many messages were refused, by reason (see `EnvelopeError`), or "unhandled".
    """

    def __init__(self, signal: MemorySignal, codec: EnvelopeCodec, guard: ReplayGuard, line: Line) -> None:
        self.codec = codec
        self.guard = guard
        self.line = line
        self.on_envelope: OnEnvelope | None = None
        self.refused: Counter[str] = Counter()
        self._signal = signal
        self._pending: dict[bytes, list[tuple[Sealed, asyncio.Future[Ack]]]] = {}
        self._skews: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<MemorySignaller {self.codec.public_key.hex()[:10]}>"

    async def deliver(
        self,
        dest: bytes,
        sealed: Sealed,
        hints: Sequence[BrokerHint] = (),
        timeout: float = DELIVERY_TIMEOUT,
    ) -> bool:
        """See `Signaller.deliver`. Sends again, twice as late each time, until it is acknowledged."""
        answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        waiting = self._pending.setdefault(sealed.ack.id, [])
        waiting.append((sealed, answer))
        retry = max(MIN_RETRY, 8 * self.line.delay)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._signal.transmit(sealed.data, dest, self.line)
                    await asyncio.wait((answer,), timeout=retry)
                    if answer.done():
                        ack = answer.result()
                        self._skews[dest] = ack.clock - self.codec.clock()
                        return ack.status is AckStatus.ACCEPTED
                    retry *= 2
        except TimeoutError:
            return False
        finally:
            waiting.remove((sealed, answer))
            if not waiting:
                del self._pending[sealed.ack.id]

    def skew(self, peer: bytes) -> float | None:
        """See `Signaller.skew`."""
        return self._skews.get(peer)

    def receive(self, data: bytes) -> None:
        """Bytes came. Never raises for what is in them."""
        try:
            if is_ack(data):
                self._receive_ack(data)
            else:
                self._receive_envelope(self.codec.unseal(data))
        except EnvelopeError as error:
            self.refused[error.reason] += 1

    def _receive_ack(self, data: bytes) -> None:
        for sealed, answer in self._pending.get(ack_id_of(data), ()):
            ack = open_ack(data, sealed.ack)
            if not answer.done():
                answer.set_result(ack)

    def _receive_envelope(self, envelope: Envelope) -> None:
        try:
            self.codec.check_fresh(envelope)
        except EnvelopeError:
            self._acknowledge(envelope, AckStatus.CLOCK)
            raise
        if envelope.message_id not in self.guard:  # a copy is acknowledged again and not handed over
            self.guard.check_and_add(envelope.message_id, envelope.timestamp, self._signal.get_time())
            if self.on_envelope is None or not self.on_envelope(envelope):
                self.guard.discard(envelope.message_id)
                self.refused["unhandled"] += 1
                return
        self._acknowledge(envelope, AckStatus.ACCEPTED)

    def _acknowledge(self, envelope: Envelope, status: AckStatus) -> None:
        self._signal.transmit(self.codec.acknowledge(envelope.ack, status), envelope.sender, self.line)
