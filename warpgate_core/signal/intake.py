"""What comes in from brokers, most of it possibly hostile: acknowledgements, messages, copies, junk.

Nothing that is not signed by its sender and sealed to us is ever answered. A good message is
acknowledged once it is taken, never before; copies (fan-out brings one by each broker) are acknowledged
again, because the first acknowledgement may be lost, and cost one hash. A message with a good signature
and a bad stamp may be a replay, so its answer (55 bytes for 235 or more, to the sender's inbox, saying
"look at the clocks") is rationed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from warpgate_core.errors import EnvelopeError
from warpgate_core.signal.envelope import (
    FRESHNESS,
    AckKey,
    AckStatus,
    Envelope,
    EnvelopeCodec,
    MessageType,
    ReplayGuard,
    is_ack,
)
from warpgate_core.signal.inbox import Inbox
from warpgate_core.signal.link import BrokerLink
from warpgate_core.signal.rendezvous import inbox_topic
from warpgate_core.signal.signaller import OnEnvelope
from warpgate_core.signal.timing import TokenBucket

__all__ = ["Intake"]

_LOG = logging.getLogger("warpgate.signal")

# Messages under ephemeral keys that are new to us, per second: each costs 0.3 ms (an exchange and a
# verification), so a flood of junk costs a tenth of one processor. Known correspondents are not rationed.
STRANGERS_RATE: Final = 300.0
STRANGERS_BURST: Final = 600.0
CLOCK_ANSWERS_RATE: Final = 1.0  # per second; one is enough for a person to look at the clock
CLOCK_ANSWERS_BURST: Final = 8.0
RECENT: Final = 1_024  # messages of which a copy is recognised by its bytes; 300 bytes each
COPIES: Final = 64  # copies of one message that are acknowledged: 6 brokers and 8 retransmissions, and some


@dataclass(slots=True)
class _Taken:
    """A message that was accepted."""

    topic: str
    ack: AckKey
    timestamp: float
    copies: int = 0


class Intake:
    """Opens, checks, acknowledges and hands over.

    Args:
        codec: opens envelopes.
        guard: remembers ids.
        inbox: the application's handlers.
        get_time: wall clock.
        on_ack: called with acknowledgements, unopened.
        on_heard: called with the sender of each new, verified message, and the link it came by.

    Attributes:
        on_envelope: the engine; asked before the application's handlers.
        counters: what was refused and why, and ``accepted``.
    """

    def __init__(
        self,
        codec: EnvelopeCodec,
        guard: ReplayGuard,
        inbox: Inbox,
        get_time: Callable[[], float],
        on_ack: Callable[[BrokerLink, bytes], None],
        on_heard: Callable[[bytes, BrokerLink], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._codec = codec
        self._guard = guard
        self._inbox = inbox
        self._get_time = get_time
        self._on_ack = on_ack
        self._on_heard = on_heard
        self._recent: OrderedDict[bytes, _Taken] = OrderedDict()
        self._strangers = TokenBucket(STRANGERS_RATE, STRANGERS_BURST)
        self._clock_answers = TokenBucket(CLOCK_ANSWERS_RATE, CLOCK_ANSWERS_BURST)
        self.on_envelope: OnEnvelope | None = None
        self.counters: Counter[str] = Counter()

    def received(self, link: BrokerLink, data: bytes) -> None:
        """One MQTT message came by `link`. Never raises."""
        try:
            self._receive(link, data)
        except Exception:  # noqa: BLE001 - a defect of ours costs this message, not the broker's connection
            self.counters["failed"] += 1
            _LOG.exception("a message was lost to a defect")

    def _receive(self, link: BrokerLink, data: bytes) -> None:
        if is_ack(data):
            self._on_ack(link, data)
            return
        digest = hashlib.blake2b(data, digest_size=16).digest()
        copy_of = self._recent.get(digest)
        if copy_of is not None:
            self._acknowledge_again(link, copy_of)
            return
        if not self._codec.is_cheap(data) and not self._strangers.take(self._loop.time()):
            self.counters["rationed"] += 1
            return
        envelope = self._open(link, data)
        if envelope is not None and self._take(link, envelope):
            self._recent[digest] = taken = _Taken(
                inbox_topic(envelope.sender), envelope.ack, envelope.timestamp
            )
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
            link.send(taken.topic, self._codec.acknowledge(taken.ack))

    def _open(self, link: BrokerLink, data: bytes) -> Envelope | None:
        try:
            envelope = self._codec.unseal(data)
        except EnvelopeError as error:
            self._refuse(error)
            return None
        try:
            self._codec.check_fresh(envelope)
        except EnvelopeError as error:
            self._refuse(error)
            if self._clock_answers.take(self._loop.time()):
                answer = self._codec.acknowledge(envelope.ack, AckStatus.CLOCK)
                link.send(inbox_topic(envelope.sender), answer)
            return None
        return envelope

    def _take(self, link: BrokerLink, envelope: Envelope) -> bool:
        """Whether the message is to be acknowledged: new and taken now, or taken before."""
        if envelope.message_id in self._guard:
            self.counters["copy"] += 1
            return True
        try:
            self._guard.check_and_add(envelope.message_id, envelope.timestamp, self._get_time())
        except EnvelopeError as error:
            self._refuse(error)
            return False
        self._on_heard(envelope.sender, link)  # before the message: whoever takes it may answer at once
        refused = self._hand_over(link, envelope)
        if refused:
            self._guard.discard(envelope.message_id)  # it may come again when there is room
            self.counters[refused] += 1
            return False
        self.counters["accepted"] += 1
        return True

    def _hand_over(self, link: BrokerLink, envelope: Envelope) -> str:
        if self.on_envelope is not None:
            try:
                if self.on_envelope(envelope):
                    return ""
            except Exception:  # noqa: BLE001 - a defect above us; it must not end the connection
                _LOG.exception("on_envelope failed; the message is not acknowledged")
                return "failed"
        if envelope.type is not MessageType.DATA:
            return "unhandled"
        return self._inbox.offer(envelope, link)

    def _acknowledge_again(self, link: BrokerLink, taken: _Taken) -> None:
        self.counters["copy"] += 1
        taken.copies += 1
        if taken.copies <= COPIES and abs(self._get_time() - taken.timestamp) <= FRESHNESS:
            link.send(taken.topic, self._codec.acknowledge(taken.ack))

    def _refuse(self, error: EnvelopeError) -> None:
        self.counters[error.reason] += 1
        _LOG.debug("message refused: %s", error)
