"""Where we listen: the first K live brokers of our own ranking, kept for life.

Dialled in waves, because nobody knows beforehand who is dead: three at once, and while fewer than three
answer, after 10 ms three more, then six, then twelve. Twenty brokers that never answer therefore cost
30 ms, and a failure starts the next one at once. The price is some connection attempts too many at a
cold start; those that are not needed are given up as soon as K brokers listen.

What was chosen stays chosen, because it stands in our address, in other people's hands. A better-ranked
broker that comes up later is added (senders will look there first), and when fewer than K of the chosen
live for 10 s, or none at all, the search goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.link import BrokerLink, LinkState
from warpgate_core.signal.rendezvous import K, rendezvous_set

__all__ = ["Inbound"]

HEDGE: Final = 0.01  # s between waves; see above: 3, 6, 12, 24 brokers at 0, 10, 20, 30 ms
GRACE: Final = 0.03  # s that the first live broker waits for better-ranked ones before we call it settled
REFILL_AFTER: Final = 10.0  # s; a broker that only restarts is back by then (4 attempts)


class Inbound:
    """Keeps the set of brokers at which we listen.

    Args:
        ranking: all brokers in the order of our own key.
        link: gives the link of a broker.
        release: closes a link that is not needed after all.
        on_change: called when the set has changed.
        k: how many.
    """

    def __init__(
        self,
        ranking: Sequence[Broker],
        link: Callable[[Broker], BrokerLink],
        release: Callable[[BrokerLink], None],
        on_change: Callable[[], None],
        k: int = K,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        first = rendezvous_set(ranking, lambda _: True, k)
        self._top = frozenset(b.broker_id for b in first)
        self._ranking = {b.broker_id: b for b in ranking}
        self._queue = first + [b for b in ranking if b.broker_id not in self._top]
        self._k = min(k, len(ranking))
        self._link = link
        self._release = release
        self._on_change = on_change
        self._dialled: dict[str, BrokerLink] = {}
        self._hedge: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._closed = False
        self.protected: dict[str, BrokerLink] = {}

    def start(self) -> None:
        """Dial the first wave."""
        self._dial(self._k)

    def close(self) -> None:
        """Stop all timers. The links are the pool's."""
        self._closed = True
        for timer in (self._hedge, self._settling, self._refill):
            if timer is not None:
                timer.cancel()
        self._settled.set()

    async def settled(self, timeout: float) -> bool:
        """Wait until the set is chosen, all brokers have failed, or `timeout` seconds.

        Returns:
            Whether at least one broker listens for us.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            pass  # the answer below says it
        return bool(self._listening())

    def keeps(self, link: BrokerLink) -> bool:
        """Whether this link must stay, whatever its use."""
        key = link.broker.broker_id
        if self.protected.get(key) is link:
            return True
        searching = len(self._listening()) < self._k
        return self._dialled.get(key) is link and (key in self._top or searching)

    def best(self) -> list[Broker]:
        """K brokers of the protected set: those that live first, then by rank."""
        chosen = [b for key, b in self._ranking.items() if key in self.protected]
        chosen.sort(key=lambda b: not self.protected[b.broker_id].listening)
        return chosen[: self._k]

    def on_state(self, link: BrokerLink) -> None:
        """A link of the pool changed."""
        key = link.broker.broker_id
        if self._closed or key not in self._ranking:
            return
        if link.listening:
            self._came_up(link)
            return
        if self._dialled.get(key) is not link:
            return
        listening = self._listening()
        if link.state is LinkState.IDLE and not self.keeps(link):
            del self._dialled[key]
            self._queue.append(link.broker)
        elif link.state is LinkState.BACKOFF:
            if len(listening) < self._k and not self._settled.is_set():
                self._dial(1)
            self._watch_for_loss(listening)
            if not self._queue and all(one.failing for one in self._dialled.values()):
                self._settled.set()  # nobody lives: whoever waits shall know

    def _came_up(self, link: BrokerLink) -> None:
        key = link.broker.broker_id
        if key not in self._dialled:  # a delivery had it connected
            self._dialled[key] = link
            self._queue = [b for b in self._queue if b.broker_id != key]
        if len(self._listening()) >= self._k:
            self._settle()
        elif self.protected:
            self._choose()
        elif self._settling is None:
            self._settling = self._loop.call_later(GRACE, self._settle)

    def _listening(self) -> list[BrokerLink]:
        return [link for link in self._dialled.values() if link.listening]

    def _dial(self, count: int) -> None:
        """The next `count` brokers; goes on by itself while fewer than K listen."""
        wave, self._queue = self._queue[:count], self._queue[count:]
        for broker in wave:
            link = self._link(broker)
            self._dialled[broker.broker_id] = link
            link.want()
        if self._hedge is not None:
            self._hedge.cancel()
        self._hedge = self._loop.call_later(HEDGE, self._more) if self._queue else None

    def _more(self) -> None:
        self._hedge = None
        if len(self._listening()) < self._k:
            self._dial(len(self._dialled))

    def _settle(self) -> None:
        self._settling = None
        self._choose()
        self._settled.set()

    def _choose(self) -> None:
        """Protect the best of those that listen now; give up what is dialled beyond need."""
        live = {link.broker.broker_id: link for link in self._listening()}
        before = set(self.protected)
        for broker in rendezvous_set(list(self._ranking.values()), lambda b: b.broker_id in live, self._k):
            self.protected.setdefault(broker.broker_id, live[broker.broker_id])
        self._trim()
        if len(live) >= self._k:
            if self._hedge is not None:
                self._hedge.cancel()
                self._hedge = None
            for key, link in list(self._dialled.items()):
                if key not in self._top and key not in self.protected and not link.listening:
                    del self._dialled[key]
                    self._queue.append(link.broker)
                    self._release(link)
        if set(self.protected) != before:
            self._on_change()

    def _trim(self) -> None:
        """At most twice K: those that died first go first."""
        while len(self.protected) > 2 * self._k:
            worst = min(self.protected.values(), key=lambda link: (link.listening, link.since))
            del self.protected[worst.broker.broker_id]

    def _watch_for_loss(self, listening: list[BrokerLink]) -> None:
        if not self._settled.is_set() or len(listening) >= self._k or not self._queue:
            return
        if not listening:
            self._dial(self._k)
        elif self._refill is None:
            self._refill = self._loop.call_later(REFILL_AFTER, self._fill)

    def _fill(self) -> None:
        self._refill = None
        if len(self._listening()) < self._k:
            self._dial(self._k)
