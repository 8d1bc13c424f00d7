"""All broker links of one router: created on demand, shared by everybody, closed when idle.

A link that carries our inbound subscription lives as long as the router. Any other is closed after
`IDLE_CLIENT_TIMEOUT` without traffic, so that a long-running node does not gather connections all over the
pool. Brokers that only a hint names are admitted in bounded number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from warpgate_core.address import BrokerHint
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.dial import Dialer
from warpgate_core.signal.inbound import Inbound
from warpgate_core.signal.link import GIVEN_UP_AFTER, BrokerLink, LinkEvents, LinkState
from warpgate_core.signal.rendezvous import inbox_topic, rank
from warpgate_core.tasks import TaskSet

__all__ = ["IDLE_CLIENT_TIMEOUT", "BrokerPool", "BrokerStatus"]

IDLE_CLIENT_TIMEOUT: Final = 600.0  # s (seed 000)
FOREIGN_LIMIT: Final = 64  # links to brokers that stand in no list of ours; 20 kB each


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """One line about a broker, for people.

    Args:
        name: URL without credentials.
        state: "up", "connecting", "waiting to retry", "idle" or "closed".
        latency: seconds that it took to answer, or None.
        error: why it is not up, or "".
        protected: whether it carries our inbound subscription for life.
    """

    name: str
    state: str
    latency: float | None
    error: str
    protected: bool


class BrokerPool:
    """The links of one router.

    Args:
        brokers: the configured pool.
        own_key: our public key, whose ranking says where we listen.
        dialer: opens streams.
        on_payload: called with each message. Must not raise.
        on_change: called when the set of protected brokers has changed.
        idle_timeout: seconds.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        own_key: bytes,
        dialer: Dialer,
        on_payload: Callable[[BrokerLink, bytes], None],
        on_change: Callable[[], None],
        idle_timeout: float = IDLE_CLIENT_TIMEOUT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.brokers = tuple(brokers)
        self._by_id = {b.broker_id: b for b in brokers}
        self._dialer = dialer
        self._topic = inbox_topic(own_key)
        self._events = LinkEvents(self._on_state, on_payload)
        self._links: dict[str, BrokerLink] = {}
        self._tasks = TaskSet("broker pool")
        self._idle_timeout = idle_timeout
        self._idle: asyncio.TimerHandle | None = None
        self._abandoned: dict[BrokerLink, asyncio.TimerHandle] = {}
        self._any_up = False
        self._closed = False
        self.inbound = Inbound(rank(brokers, own_key), self._pool_link, self.release, on_change)

    def start(self) -> None:
        """Begin to listen."""
        self.inbound.start()

    async def close(self) -> None:
        """Close every link; bounded in time."""
        self._closed = True
        self.inbound.close()
        for timer in (self._idle, *self._abandoned.values()):
            if timer is not None:
                timer.cancel()
        await asyncio.gather(*(link.close() for link in self._links.values()))
        await self._tasks.close()

    def link(self, broker: Broker) -> BrokerLink | None:
        """The link of a broker, of the pool or not; None if there are too many that are not."""
        own = self._by_id.get(broker.broker_id, broker)
        link = self._links.get(own.broker_id)
        if link is None:
            if own.broker_id not in self._by_id and not self._room_for_foreign():
                return None
            link = BrokerLink(own, self._dialer, self._topic, self._events)
            self._links[own.broker_id] = link
        return link

    def _pool_link(self, broker: Broker) -> BrokerLink:
        link = self.link(broker)
        assert link is not None  # brokers of the pool always have one
        return link

    def _room_for_foreign(self) -> bool:
        foreign = [link for key, link in self._links.items() if key not in self._by_id]
        if len(foreign) < FOREIGN_LIMIT:
            return True
        for link in foreign:
            if link.state is LinkState.IDLE and not link.users:
                del self._links[link.broker.broker_id]
                return True
        return False

    def use(self, link: BrokerLink) -> None:
        """Somebody is sending by this link now: connect if need be, and stay until `done`."""
        link.users += 1
        self.warm(link)

    def warm(self, link: BrokerLink) -> None:
        """Somebody is about to send by this link: connect if need be."""
        link.want()
        if self._idle is None and not self._closed:
            self._idle = self._loop.call_later(self._idle_timeout, self._close_idle)

    def done(self, link: BrokerLink) -> None:
        """The opposite of `use`. A connection still being made for nobody has a second to come about.

        Not given up at once: the next message would only dial the same slow or dead broker again.
        """
        link.users -= 1
        if self._is_abandoned(link) and link not in self._abandoned and not self._closed:
            self._abandoned[link] = self._loop.call_later(GIVEN_UP_AFTER, self._give_up, link)

    def _is_abandoned(self, link: BrokerLink) -> bool:
        return link.users == 0 and link.state is LinkState.CONNECTING and not self.inbound.keeps(link)

    def _give_up(self, link: BrokerLink) -> None:
        del self._abandoned[link]
        if self._is_abandoned(link):
            self.release(link)

    def release(self, link: BrokerLink) -> None:
        """Close a link that nobody needs now; it can be wanted again."""
        if not self._closed and link.users == 0:
            self._tasks.start(link.release(), f"release {link.broker.url}")

    def network_changed(self) -> None:
        """Earlier failures mean nothing any more: try every wanted broker again at once."""
        for link in self._links.values():
            if link.failing:
                link.retry()

    def _wake_failing(self) -> None:
        for link in self._links.values():
            if link.failing:
                link.wake()

    @property
    def hints(self) -> tuple[BrokerHint, ...]:
        """The best K of the protected set, for our address; those that live first."""
        return tuple(broker.hint for broker in self.inbound.best())

    @property
    def status(self) -> tuple[BrokerStatus, ...]:
        """Every broker of the pool, and every other one that there is a link to."""
        rows = []
        for key in dict.fromkeys((*self._by_id, *self._links)):
            link = self._links.get(key)
            if link is None:
                rows.append(BrokerStatus(self._by_id[key].url, LinkState.IDLE, None, "", False))
                continue
            protected = key in self.inbound.protected
            rows.append(BrokerStatus(link.broker.url, link.state, link.latency, link.error, protected))
        return tuple(rows)

    def _on_state(self, link: BrokerLink) -> None:
        if self._closed:
            return
        any_up = any(one.up for one in self._links.values())
        if any_up and not self._any_up:
            self._wake_failing()  # the first to come back proves that the network is there
        self._any_up = any_up
        self.inbound.on_state(link)

    def _close_idle(self) -> None:
        self._idle = None
        now, left = self._loop.time(), []
        for link in self._links.values():
            if link.state in (LinkState.IDLE, LinkState.CLOSED) or self.inbound.keeps(link):
                continue
            remaining = link.last_used + self._idle_timeout - now
            if remaining <= 0 and not link.users:
                self.release(link)
            else:
                left.append(max(remaining, 0.001))
        if left:
            self._idle = self._loop.call_later(min(left), self._close_idle)
