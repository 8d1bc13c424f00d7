"""One message on its way: fan-out, retransmission, the first acknowledgement wins.

No task and no polling: a delivery is a handful of callbacks around one future, and costs 20 us when nothing
goes wrong. It begins at the brokers where the recipient is most likely; as long as none of them is
connected, more are tried every 20 ms (again doubling: twenty dead ones cost 60 ms); once the message has
left and no acknowledgement came in the measured time (RFC 6298), it is sent again and to more brokers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.envelope import Ack, AckStatus, Sealed
from warpgate_core.signal.link import BrokerLink
from warpgate_core.signal.pool import BrokerPool
from warpgate_core.signal.rendezvous import K

__all__ = ["Delivery", "Outcome"]

HEDGE: Final = 0.02  # s without any connected broker before more are tried; see above
SUSPECT_AFTER: Final = 2  # unanswered sendings by one broker before it is asked whether it lives


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a delivery ended.

    Args:
        accepted: the recipient took the message.
        link: the broker by which it said so; None if it did not answer.
        skew: seconds that the recipient's clock is ahead of ours, as far as the round trip allows to tell.
        error: seconds that `skew` may be off, either way.
    """

    accepted: bool
    link: BrokerLink | None = None
    skew: float = 0.0
    error: float = 0.0


@dataclass(slots=True)
class _Sent:
    """What went out by one link."""

    first: float = 0.0
    count: int = 0


class Delivery:
    """Carries one sealed message to one recipient.

    Args:
        pool: the links.
        topic: the recipient's inbox.
        sealed: the message.
        brokers: where to try, most likely first.
        first: how many of them at once in the beginning.
        get_time: our wall clock, to compare the recipient's with.

    Attributes:
        outcome: a future.
    """

    def __init__(
        self,
        pool: BrokerPool,
        topic: str,
        sealed: Sealed,
        brokers: Sequence[Broker],
        first: int,
        get_time: Callable[[], float],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._topic = topic
        self.sealed = sealed
        self._waiting = list(brokers)
        self._get_time = get_time
        self._sent: dict[BrokerLink, _Sent] = {}
        self._attempt = 0
        self._timer: asyncio.TimerHandle | None = None
        self._hedging = True
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._extend(first)
        self._arm()

    def close(self) -> None:
        """Let go of everything. The outcome is cancelled if there is none yet."""
        if self._timer is not None:
            self._timer.cancel()
        for link in self._sent:
            link.unwatch(self._on_up)
            self._pool.done(link)
        self._sent.clear()
        self._waiting.clear()
        self.outcome.cancel()

    def acknowledged(self, link: BrokerLink, ack: Ack) -> None:
        """The recipient answered by `link`."""
        if self.outcome.done():
            return
        now, sent = self._loop.time(), self._sent.get(link)
        first = min((s.first for s in self._sent.values() if s.count), default=now)
        if sent is not None and sent.count == 1:
            link.round_trip.add(now - sent.first)
        half = (now - first) / 2
        skew = ack.clock - (self._get_time() - half)
        self.outcome.set_result(Outcome(ack.status is AckStatus.ACCEPTED, link, skew, half))

    def _extend(self, count: int) -> None:
        """Take in the next brokers; those that are known to fail do not count."""
        while count > 0 and self._waiting:
            link = self._pool.link(self._waiting.pop(0))
            if link is None or link in self._sent:
                continue
            self._sent[link] = _Sent()
            link.watch(self._on_up)
            self._pool.use(link)
            if link.up:
                self._send(link)
            if not link.failing:
                count -= 1

    def _send(self, link: BrokerLink) -> None:
        if link.send(self._topic, self.sealed.data):
            sent = self._sent[link]
            sent.first = sent.first or self._loop.time()
            sent.count += 1

    def _on_up(self, link: BrokerLink) -> None:
        self._send(link)
        if self._hedging:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        waits = [link.round_trip.timeout(self._attempt) for link, sent in self._sent.items() if sent.count]
        self._hedging = not waits
        self._timer = self._loop.call_later(min(waits) if waits else HEDGE, self._on_timer)

    def _on_timer(self) -> None:
        if self._hedging:
            for link in self._sent:
                self._send(link)  # one that is up and did not take it before
            self._extend(max(K, len(self._sent)))
            if not self._waiting and not any(link.up for link in self._sent):
                self._timer = None  # nothing left to try but waiting for one to come up
                return
        else:
            self._attempt += 1
            for link, sent in self._sent.items():
                if link.up:
                    self._send(link)
                    if sent.count > SUSPECT_AFTER:
                        link.suspect()
            self._extend(K)
        self._arm()
