"""Small signed messages to a public key, over whichever brokers both ends can reach.

The public face of signalling, used by the node and on its own:

    async with Router(key, on_message, get_time=time.time, servers=["203.0.113.10:1883"]) as router:
        pipe = await router.pipe("03ab...")
        await pipe.send(b"hello")          # 5: the other end has it; 0: it did not say so in time

It only composes: `pool` has the connections, `intake` what comes in, `delivery` what goes out, `inbox` the
handlers. Described in docs/signalling.md.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from warpgate_core.address import BrokerHint
from warpgate_core.errors import ConfigError, EnvelopeError, InputError, NoBrokerError, NodeClosedError
from warpgate_core.identity import Identity, check_public_key
from warpgate_core.signal.brokers import ENVIRONMENT, Broker, parse_hints
from warpgate_core.signal.delivery import Delivery, Outcome
from warpgate_core.signal.dial import Dialer
from warpgate_core.signal.envelope import (
    EnvelopeCodec,
    ReplayGuard,
    Sealed,
    ack_id_of,
    open_ack,
)
from warpgate_core.signal.inbox import Handler, Inbox
from warpgate_core.signal.intake import Intake
from warpgate_core.signal.link import BrokerLink
from warpgate_core.signal.nic import parse_nic
from warpgate_core.signal.pool import IDLE_CLIENT_TIMEOUT, BrokerPool, BrokerStatus
from warpgate_core.signal.rendezvous import K, inbox_topic, rank, rendezvous_set
from warpgate_core.signal.servers import parse_servers
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT, OnEnvelope
from warpgate_core.signal.skew import SkewTable
from warpgate_core.signal.smart_pipe import SmartPipe

__all__ = ["IDLE_CLIENT_TIMEOUT", "BrokerStatus", "Handler", "Router", "SmartPipe"]

_LOG = logging.getLogger("warpgate.signal")

READY_TIMEOUT: Final = 5.0  # s that `async with` waits for a broker; as long as one delivery
MAX_HINTS: Final = 8  # of one destination; a node advertises 3
HEARD_EXPIRY: Final = IDLE_CLIENT_TIMEOUT / 2  # s; the sender may close that connection when it is idle
DESTINATIONS: Final = 1_024  # of which the broker order is remembered; 2 kB each

HintLike = BrokerHint | Mapping[str, object]


def _no_clock() -> float:
    raise AssertionError("never called: marks that no clock was given")


class Router:
    """Sends to keys and receives for one.

    Args:
        kp: our key pair: `Identity`, or what `Identity.of` accepts (keys with ``public_key_hex`` or
        ``vkc``). msg_handler: called with ``(message, sender_key, queue_id, client)`` for every
        message; `add_msg_handler`
            adds more. May be a coroutine function. `client` is the link that the message came by.
        get_time: seconds since 1970. Required, because a wrong clock loses messages without a trace:
            pass an NTP-corrected one, or `time.time` knowingly.
        nic: card or address to go out by; see `parse_nic`. None lets the system choose.
        servers: the broker pool; see `parse_servers`. None reads ``WARPGATE_BROKERS``.
        tls: context for mqtts and wss; by default the system's trust store.
        idle_timeout: seconds without traffic after which an outbound connection is closed.

    Raises:
        TypeError: no `get_time`.
        IdentityError, ConfigError: the key, card or pool cannot be used.
    """

    def __init__(
        self,
        kp: object,
        msg_handler: Handler | None = None,
        get_time: Callable[[], float] = _no_clock,
        nic: object = None,
        servers: object = None,
        *,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = IDLE_CLIENT_TIMEOUT,
    ) -> None:
        self._get_time = _checked_clock(get_time)
        self.identity = Identity.of(kp)
        self._nic = nic
        self._dialer = Dialer(parse_nic(nic), tls)
        self._brokers = parse_servers(servers)
        self._idle_timeout = idle_timeout
        self._handlers: set[Handler] = set() if msg_handler is None else {msg_handler}
        self._pending: dict[bytes, list[Delivery]] = {}
        self._routes: OrderedDict[bytes, list[Broker]] = OrderedDict()
        self._cache: OrderedDict[bytes, tuple[float, tuple[Broker, ...]]] = OrderedDict()
        self._skew = SkewTable()
        self._on_envelope: OnEnvelope | None = None
        self._pool: BrokerPool | None = None
        self._intake: Intake | None = None
        self._inbox: Inbox | None = None
        self.codec = EnvelopeCodec(self.identity, get_time)
        self.guard = ReplayGuard()
        self.on_change: Callable[[], None] | None = None

    # life

    async def start(self) -> None:
        """Begin to connect; does not wait for any broker (see `ready`).

        Raises:
            NoBrokerError: the pool is empty.
        """
        if self._pool is not None:
            return
        if not self._brokers:
            raise NoBrokerError(
                f"no broker is configured: set {ENVIRONMENT} to a comma-separated list such as "
                "203.0.113.10:1883,mqtts://user:password@broker.example, or pass servers="
            )
        inbox = Inbox()
        inbox.handlers = self._handlers
        intake = Intake(self.codec, self.guard, inbox, self._get_time, self._acknowledged, self._heard)
        intake.on_envelope = self._on_envelope
        pool = BrokerPool(
            self._brokers,
            self.identity.public_key,
            self._dialer,
            intake.received,
            self._changed,
            self._idle_timeout,
        )
        self._inbox, self._intake, self._pool = inbox, intake, pool
        pool.start()

    async def ready(self, timeout: float = READY_TIMEOUT) -> bool:
        """Wait until we listen at K brokers, or at as many as live; at most `timeout` seconds.

        Returns:
            Whether at least one broker delivers to us. If not, the search goes on in the background.
        """
        return await self._running().inbound.settled(timeout)

    async def close(self) -> None:
        """Disconnect, cancel handlers, give up deliveries. Bounded in time; may be called twice."""
        pool, inbox = self._pool, self._inbox
        self._pool = self._inbox = None
        for deliveries in list(self._pending.values()):
            for delivery in deliveries:
                if not delivery.outcome.done():
                    delivery.outcome.set_result(Outcome(False))
        async with AsyncExitStack() as stack:
            if pool is not None:
                stack.push_async_callback(pool.close)
            if inbox is not None:
                stack.push_async_callback(inbox.close)

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            if not await self.ready():
                rows = "; ".join(f"{row.name}: {row.error or row.state}" for row in self.brokers)
                _LOG.warning("no broker is alive yet, still trying: %s", rows)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # handlers

    def add_msg_handler(self, handler: Handler) -> None:
        """Call `handler` for every further message. The same one twice counts once."""
        self._handlers.add(handler)

    def del_msg_handler(self, handler: Handler) -> None:
        """The opposite of `add_msg_handler`; unknown handlers are ignored."""
        self._handlers.discard(handler)

    @property
    def on_envelope(self) -> OnEnvelope | None:
        """The engine's own receiver; see `Signaller`."""
        return self._on_envelope

    @on_envelope.setter
    def on_envelope(self, receiver: OnEnvelope | None) -> None:
        self._on_envelope = receiver
        if self._intake is not None:
            self._intake.on_envelope = receiver

    # sending

    async def pipe(
        self,
        dest_pub_hex: str | bytes,
        hint_brokers: Iterable[HintLike] | None = None,
        use_cache: bool = True,
        expiry: float = IDLE_CLIENT_TIMEOUT,
    ) -> SmartPipe:
        """A virtual pipe to a key. Cheap; begins to connect to the brokers that it will need.

        Args:
            dest_pub_hex: 66 hex digits (or 33 bytes).
            hint_brokers: where the destination listens, from its address: `BrokerHint`, or
                ``{"af": ..., "host": ..., "port": ...}``. Tried first.
            use_cache: begin with the brokers that worked last time.
            expiry: seconds that such knowledge lasts.

        Raises:
            IdentityError: not a public key.
            ConfigError: a hint that is none.
            NodeClosedError: the router is not running.
        """
        dest = _key_of(dest_pub_hex)
        hints = parse_hints(hint_brokers)[:MAX_HINTS]
        pool = self._running()
        brokers, first = self._candidates(dest, hints, use_cache)
        for broker in brokers[:first]:
            link = pool.link(broker)
            if link is not None:
                pool.warm(link)
        return SmartPipe(self, dest, hints, use_cache, expiry)

    async def deliver(
        self,
        dest: bytes,
        sealed: Sealed,
        hints: Sequence[BrokerHint] = (),
        timeout: float = DELIVERY_TIMEOUT,
    ) -> bool:
        """Carry sealed bytes to a key; see `Signaller.deliver`."""
        outcome = await self.deliver_by(dest, sealed, parse_hints(hints)[:MAX_HINTS], timeout)
        return outcome.accepted

    async def deliver_by(
        self,
        dest: bytes,
        sealed: Sealed,
        hints: Sequence[Broker],
        timeout: float,
        use_cache: bool = True,
        expiry: float = IDLE_CLIENT_TIMEOUT,
    ) -> Outcome:
        """As `deliver`, with all that a pipe can choose, and all that is known at the end."""
        pool = self._running()
        brokers, first = self._candidates(dest, hints, use_cache)
        if not brokers:
            raise NoBrokerError(f"no broker to try; set {ENVIRONMENT} or pass servers=")
        delivery = Delivery(pool, inbox_topic(dest), sealed, brokers, first, self._get_time)
        self._pending.setdefault(sealed.ack.id, []).append(delivery)
        try:
            async with asyncio.timeout(timeout):
                outcome = await delivery.outcome
        except TimeoutError:
            return Outcome(False)
        finally:
            delivery.close()
            self._pending[sealed.ack.id].remove(delivery)
            if not self._pending[sealed.ack.id]:
                del self._pending[sealed.ack.id]
        if outcome.link is not None:
            self._skew.note(dest, outcome.skew, outcome.error)
            self._remember(dest, outcome.link.broker, expiry)
        return outcome

    def forget(self, dest: bytes) -> None:
        """Drop what is remembered of where `dest` listens. Connections are not touched."""
        self._cache.pop(dest, None)

    # what there is to know

    @property
    def brokers(self) -> tuple[BrokerStatus, ...]:
        """State of every broker, for people."""
        if self._pool is None:
            return tuple(BrokerStatus(b.url, "closed", None, "", False) for b in self._brokers)
        return self._pool.status

    @property
    def hints(self) -> tuple[BrokerHint, ...]:
        """Where we listen, for our address. Changes are told by `on_change`."""
        return self._pool.hints if self._pool is not None else ()

    @property
    def counters(self) -> Mapping[str, int]:
        """Messages accepted, and refused by reason."""
        return self._intake.counters if self._intake is not None else Counter()

    def skew(self, peer: bytes) -> float | None:
        """Seconds that a peer's clock is ahead of ours, from its last acknowledgement; None if unknown."""
        return self._skew.get(peer)

    def network_changed(self) -> None:
        """Try all brokers again at once: the machine has another network, perhaps other addresses."""
        if self._pool is None:
            return
        try:
            self._dialer.binding = parse_nic(self._nic)
        except ConfigError as error:
            _LOG.warning("brokers are reached as before: %s", error)
        self._pool.network_changed()

    # inside

    def _running(self) -> BrokerPool:
        if self._pool is None:
            raise NodeClosedError("the router is not running; use it inside `async with Router(...)`")
        return self._pool

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _candidates(self, dest: bytes, hints: Sequence[Broker], use_cache: bool) -> tuple[list[Broker], int]:
        """Brokers for a destination in the order to try them, and how many to begin with."""
        expires, cached = self._cache.get(dest, (0.0, ())) if use_cache else (0.0, ())
        if cached and expires <= asyncio.get_running_loop().time():
            self.forget(dest)
            cached = ()
        route = self._route(dest)
        order = {b.broker_id: b for b in (*cached, *hints, *route)}
        return list(order.values()), len(cached) or len(hints) or K

    def _route(self, dest: bytes) -> list[Broker]:
        route = self._routes.get(dest)
        if route is None:
            ranking = rank(self._brokers, dest)
            first = rendezvous_set(ranking, lambda _: True)
            route = first + [b for b in ranking if b not in first]
            self._routes[dest] = route
            if len(self._routes) > DESTINATIONS:
                self._routes.popitem(last=False)
        return route

    def _remember(self, dest: bytes, broker: Broker, expiry: float) -> None:
        """The last K brokers that worked; sending to all of them costs little and survives one that hangs."""
        now = asyncio.get_running_loop().time()
        expires, before = self._cache.get(dest, (now, ()))
        others = [one for one in before if one is not broker] if expires > now else []
        self._cache[dest] = (now + expiry, (broker, *others[: K - 1]))
        self._cache.move_to_end(dest)
        if len(self._cache) > DESTINATIONS:
            self._cache.popitem(last=False)

    def _heard(self, sender: bytes, link: BrokerLink) -> None:
        """A sender listens where it sends, so an answer goes there first and needs no new connection."""
        self._remember(sender, link.broker, HEARD_EXPIRY)

    def _acknowledged(self, link: BrokerLink, data: bytes) -> None:
        deliveries = self._pending.get(ack_id_of(data))
        if not deliveries:
            return  # late, or not ours
        try:
            ack = open_ack(data, deliveries[0].sealed.ack)
        except EnvelopeError as error:
            _LOG.debug("acknowledgement refused: %s", error)
            return
        for delivery in deliveries:
            delivery.acknowledged(link, ack)


def _checked_clock(get_time: Callable[[], float]) -> Callable[[], float]:
    if get_time is _no_clock or get_time is None:
        raise TypeError(
            "Router needs get_time=, a function that returns seconds since 1970: an NTP-corrected clock, "
            "or time.time if you trust this machine's. There is no default, because a wrong clock looks "
            "like lost messages"
        )
    value: Any = get_time() if callable(get_time) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError("get_time= is not a function that returns seconds since 1970")
    return get_time


def _key_of(dest: str | bytes) -> bytes:
    try:
        key = bytes.fromhex(dest) if isinstance(dest, str) else bytes(dest)
    except ValueError as error:
        raise InputError("a destination is a public key: 66 hexadecimal digits") from error
    check_public_key(key)
    return key
