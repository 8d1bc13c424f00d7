"""Signalling between nodes of one process, in place of MQTT brokers.

It does what a router does before the engine sees anything: opens, verifies, drops replays. What it carries
takes `delay` seconds each way; when it is `dead`, messages vanish and nobody acknowledges. Rejected: a
real broker on loopback (the conformance kit must run anywhere, and in virtual time).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warpgate_core.address import BrokerHint
from warpgate_core.errors import EnvelopeError
from warpgate_core.signal.envelope import EnvelopeCodec, Sealed
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT, OnEnvelope

__all__ = ["MemorySignaller", "MemorySignalling"]


class MemorySignalling:
    """What nodes have in common: the place of the brokers.

    Args:
        delay: seconds that a message takes from node to node, and its acknowledgement back.

    Attributes:
        dead: True: nothing arrives any more, and senders wait until their time is up.
        delivered: how many messages arrived.
    """

    def __init__(self, delay: float = 0.010) -> None:
        self.delay = delay
        self.dead = False
        self.delivered = 0
        self._members: dict[bytes, MemorySignaller] = {}

    def join(self, codec: EnvelopeCodec, guard: ReplayGuard) -> MemorySignaller:
        """Make the signaller of one node.

        Args:
            codec: with the node's identity.
            guard: its replay protection.
        """
        member = self._members[codec.public_key] = MemorySignaller(self, codec, guard)
        return member

    def find(self, public_key: bytes) -> MemorySignaller | None:
        """The member with that key, unless signalling is dead."""
        return None if self.dead else self._members.get(public_key)


class MemorySignaller:
    """One node's end of it: a `Signaller`. Made by `MemorySignalling.join`."""

    def __init__(self, signalling: MemorySignalling, codec: EnvelopeCodec, guard: ReplayGuard) -> None:
        self.on_envelope: OnEnvelope | None = None
        self._signalling = signalling
        self._codec = codec
        self._guard = guard

    async def deliver(
        self,
        dest: bytes,
        sealed: Sealed,
        hints: Sequence[BrokerHint] = (),
        timeout: float = DELIVERY_TIMEOUT,
    ) -> bool:
        """See `Signaller.deliver`."""
        if self._signalling.find(dest) is None:
            await asyncio.sleep(timeout)
            return False
        await asyncio.sleep(self._signalling.delay)
        receiver = self._signalling.find(dest)
        if receiver is None or not receiver.receive(sealed.data):
            return False
        await asyncio.sleep(self._signalling.delay)
        return not self._signalling.dead

    def receive(self, data: bytes) -> bool:
        """Take sealed bytes off the wire.

        Returns:
            Whether they are acknowledged.
        """
        try:
            envelope = self._codec.open(data)
            if envelope.message_id not in self._guard:
                self._guard.check_and_add(envelope.message_id, envelope.timestamp, envelope.timestamp)
                self._signalling.delivered += 1
                if self.on_envelope is not None:
                    self.on_envelope(envelope)
        except EnvelopeError:
            return False  # as a router does: who sent rubbish hears nothing
        return True
