"""One broker of the pool for as long as it is wanted: connect, stay, come back.

One task per wanted broker. It connects, subscribes to our inbox (acknowledgements come back there, so
on every broker), waits until the connection ends, and tries again after a back-off with jitter.
Everything else happens in callbacks. Time is the loop's own, which never jumps.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from warpgate_core.errors import BrokerError
from warpgate_core.net.threads import in_thread
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.dial import Dialer
from warpgate_core.signal.timing import Backoff, RoundTrip

__all__ = ["CONNECT_TIMEOUT", "BrokerLink", "LinkEvents", "LinkState"]

if TYPE_CHECKING:
    from warpgate_core.signal.mqtt import MqttClient

_CLIENT: Final = "warpgate_core.signal.mqtt"

_LOG = logging.getLogger("warpgate.signal")

CONNECT_TIMEOUT: Final = 10.0  # s for TCP, TLS, WebSocket and CONNACK together; 4 round trips of 2.5 s
ANSWER_TIMEOUT: Final = 5.0  # s for a broker that is connected to answer a SUBSCRIBE
GIVEN_UP_AFTER: Final = 1.0  # s; a broker that we stop waiting for after this long has failed as well
PROBE_INTERVAL: Final = 10.0  # s between two questions whether a silent broker still lives


class LinkState(StrEnum):
    """Where a link stands."""

    IDLE = "idle"  # not wanted at the moment
    CONNECTING = "connecting"
    UP = "up"
    BACKOFF = "waiting to retry"
    CLOSED = "closed"


@dataclass(slots=True)
class LinkEvents:
    """What a link reports to its pool.

    Args:
        on_state: the state changed, or the subscription was confirmed.
        on_payload: a message came. Must not raise.
    """

    on_state: Callable[[BrokerLink], None]
    on_payload: Callable[[BrokerLink, bytes], None]


class BrokerLink:
    """The connection to one broker.

    Args:
        broker: which one.
        dialer: opens its streams.
        topic: our inbox.
        events: whom to tell.

    Attributes:
        state: see `LinkState`.
        listening: the broker confirmed the subscription to our inbox.
        latency: seconds that the broker took to answer SUBSCRIBE; None before.
        error: why it is not up, for people; "" if nothing went wrong since.
        users: deliveries under way that may use it.
        last_used: loop time of the last message either way.
        round_trip: measured time from a message to its acknowledgement by this broker.
        since: loop time of the last change of state.
    """

    def __init__(self, broker: Broker, dialer: Dialer, topic: str, events: LinkEvents) -> None:
        self._loop = asyncio.get_running_loop()
        self.broker = broker
        self._dialer = dialer
        self._topic = topic
        self._events = events
        self._client: MqttClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._backoff = Backoff(random.Random())  # noqa: S311 - jitter
        self._watchers: set[Callable[[BrokerLink], None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._probed = self._loop.time() - PROBE_INTERVAL
        self._not_before = self._loop.time()  # no attempt before this
        self.users = 0
        self.state = LinkState.IDLE
        self.listening = False
        self.latency: float | None = None
        self.error = ""
        self.since = self.last_used = self._loop.time()
        self.round_trip = RoundTrip()

    @property
    def up(self) -> bool:
        """Whether messages can be sent."""
        return self.state is LinkState.UP

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed and the next one is not due yet."""
        return self.state is LinkState.BACKOFF

    def want(self) -> None:
        """Connect, and stay connected. Does not shorten a back-off."""
        if self._task is None and self.state is not LinkState.CLOSED:
            self._task = self._loop.create_task(self._run(), name=f"broker {self.broker.url}")
            self._task.add_done_callback(_report)
            late = self._not_before > self._loop.time()
            self._set(LinkState.BACKOFF if late else LinkState.CONNECTING)
        self.last_used = self._loop.time()

    def retry(self) -> None:
        """Try again now: the network has changed, so earlier failures mean nothing."""
        self._backoff.reset()
        self.wake()

    def wake(self) -> None:
        """End the present back-off; if that attempt fails too, the next one is as long as ever."""
        self._not_before = self._loop.time()
        self._wake.set()

    async def release(self) -> None:
        """Disconnect and be idle until wanted again."""
        await self._end(LinkState.IDLE)

    async def close(self) -> None:
        """Disconnect for good; bounded in time."""
        await self._end(LinkState.CLOSED)

    async def _end(self, state: LinkState) -> None:
        task, self._task = self._task, None
        if self.state is LinkState.CONNECTING and self._loop.time() - self.since >= GIVEN_UP_AFTER:
            self._failed("no answer so far")
        tasks = [t for t in (task, self._probe) if t is not None]
        for t in tasks:
            t.cancel()
        if self.state is not LinkState.CLOSED:
            self._set(state)
        if tasks:
            await asyncio.wait(tasks)

    def send(self, topic: str, data: bytes) -> bool:
        """Publish. False if the broker cannot take it now."""
        if not self.up or self._client is None or not self._client.send(topic, data):
            return False
        self.last_used = self._loop.time()
        return True

    def watch(self, watcher: Callable[[BrokerLink], None]) -> None:
        """Call `watcher` each time the link comes up."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[BrokerLink], None]) -> None:
        """The opposite of `watch`."""
        self._watchers.discard(watcher)

    def suspect(self) -> None:
        """A message by this broker stayed unanswered: ask whether it lives; reconnect if it does not answer.

        A broker that hangs with its connections open would otherwise be noticed by keepalive only, a
        minute later.
        """
        now = self._loop.time()
        if self.listening and self._probe is None and now - self._probed >= PROBE_INTERVAL:
            self._probed = now
            self._probe = self._loop.create_task(self._ask(), name=f"probe {self.broker.url}")

    async def _ask(self) -> None:
        client = self._client
        try:
            if client is not None:
                await client.join(self._topic, ANSWER_TIMEOUT)
        except BrokerError as error:
            if client is not None:
                client.fail(BrokerError(f"it stopped answering: {error}"))
        finally:
            self._probe = None

    async def _run(self) -> None:
        while True:
            await self._wait_until(self._not_before)
            self._set(LinkState.CONNECTING)
            try:
                await self._session()
            except BrokerError as error:
                self._failed(str(error))

    async def _wait_until(self, then: float) -> None:
        """Sit out a back-off; `retry` ends it early."""
        self._wake.clear()
        if then <= self._loop.time():
            return
        self._set(LinkState.BACKOFF)
        try:
            async with asyncio.timeout_at(then):
                await self._wake.wait()
        except TimeoutError:
            pass  # the usual end of a back-off

    async def _session(self) -> None:
        """One connection, from dialling to its end. Raises BrokerError whatever ended it."""
        client: MqttClient | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                client_class = await _client_class()
                stream = await self._dialer.open(self.broker)
                self._client = client = client_class(stream, self.broker, self._received)
                await client.start()
            await self._stay(client)
        except TimeoutError as error:
            words = "it accepts connections, but does not answer" if client else "no answer"
            raise BrokerError(f"{words} (waited {CONNECT_TIMEOUT:g} s)") from error
        finally:
            if client is not None:
                if self._client is client:  # not that of a new session: this one may end slowly
                    self._client = None
                await client.stop()

    async def _stay(self, client: MqttClient) -> None:
        asked = time.monotonic()  # finer than uvloop's clock, which moves once a turn
        join = self._loop.create_task(client.join(self._topic, ANSWER_TIMEOUT), name="subscribe")
        # By the time this runs, SUBSCRIBE is queued; what is published from now on stands behind it.
        up = self._loop.call_soon(self._is_up)
        try:
            await join
            self.latency = time.monotonic() - asked
            self.round_trip.guess(self.latency)
            self.listening = True
            self._backoff.connected(self._loop.time())
            self._events.on_state(self)
            raise BrokerError(await client.wait_lost())
        finally:
            up.cancel()
            join.cancel()
            self.listening = False

    def _is_up(self) -> None:
        self.error = ""
        self._set(LinkState.UP)
        for watcher in tuple(self._watchers):
            watcher(self)

    def _failed(self, reason: str) -> None:
        _LOG.debug("broker %s: %s", self.broker.url, reason)
        self.error = reason
        now = self._loop.time()
        self._not_before = now + self._backoff.next(now)

    def _set(self, state: LinkState) -> None:
        self.state = state
        self.since = self._loop.time()
        self._events.on_state(self)

    def _received(self, data: bytes) -> None:
        self.last_used = self._loop.time()
        self._events.on_payload(self, data)

    def __repr__(self) -> str:
        return f"<BrokerLink {self.broker.url} {self.state}>"


async def _client_class() -> type[MqttClient]:
    """The MQTT library: 60 ms to import, which neither `import warpgate_core` nor the event loop pays."""
    loaded = getattr(sys.modules.get(_CLIENT), "MqttClient", None)  # absent while it is being imported
    if loaded is None:
        module = await in_thread("import", partial(importlib.import_module, _CLIENT))
        loaded = module.MqttClient
    found: type[MqttClient] = loaded
    return found


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.error("%s ended by a defect", task.get_name(), exc_info=task.exception())
