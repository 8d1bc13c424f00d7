"""Binding transactions on one UDP socket (RFC 8489 section 6.2.1).

An answer counts only if it carries the transaction id of a request that is still open, and comes from
where that request went; with CHANGE-REQUEST, where the other source *is* the answer, from anywhere.

The first retransmission comes after the measured round trip (RFC 6298, as RFC 8489 says), and after
200 ms while nothing was measured, not after the 500 ms that RFC 8489 asks for: a handful of 20-byte
requests per node congests nothing, one lost packet would triple the time to start, and for the same
reason RFC 8445 section 14.3 lets the timeout follow the pace. Doubling and count stay as they are written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.net.stun import encode_request, parse_reply, transaction_of

__all__ = ["Binding", "Schedule", "StunClient", "StunCounters"]

FIRST_RTO = 0.2  # s, see above; a round trip half around the world takes that long
MIN_RTO = 0.05  # s; below, the scheduling of a busy machine looks like loss (measured: 20 ms on two cores)
MAX_PENDING = 64  # requests under way on one socket; discovery has 20
_MAX_MEASURED = 64  # servers whose round trip is remembered
_RTT_GAIN, _VARIANCE_GAIN, _VARIANCES = 1 / 8, 1 / 4, 4  # RFC 6298 section 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a request is sent again, and when it is given up.

    Args:
        tries: how often it is sent (Rc, RFC 8489 section 6.2.1).
        growth: factor from one pause to the next.
        last: the wait after the last one, in first pauses (Rm, same section).
        first: the first pause in seconds; None: from what was measured.
    """

    tries: int = 7
    growth: float = 2.0
    last: float = 16.0
    first: float | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """What one transaction found out.

    Args:
        local: our own endpoint, from which the request was sent.
        server: where the request was sent.
        source: where the answer came from.
        mapped: our endpoint as the server saw it.
        other: the server's other address and port (RFC 5780), None if it has none.
        rtt: seconds from the (last) request to the answer.
    """

    local: Endpoint
    server: Endpoint
    source: Endpoint
    mapped: Endpoint
    other: Endpoint | None = None
    rtt: float = 0.0


@dataclass(slots=True)
class _Transaction:
    server: Endpoint
    request: bytes
    any_source: bool
    schedule: Schedule
    pause: float
    answer: asyncio.Future[Binding]
    sent: int = 0
    sent_at: float = 0.0
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class StunCounters:
    """Answers that were not used.

    Args:
        wrong_source: right transaction id, but not from where we asked.
        malformed: right transaction id and source, but not a usable answer.
    """

    wrong_source: int = 0
    malformed: int = 0


@dataclass(slots=True)
class _Measured:
    smoothed: float
    variance: float

    def update(self, rtt: float) -> None:
        self.variance += _VARIANCE_GAIN * (abs(self.smoothed - rtt) - self.variance)
        self.smoothed += _RTT_GAIN * (rtt - self.smoothed)


@dataclass(slots=True)
class StunClient:
    """The transactions of one socket.

    Args:
        local: the socket's own endpoint.
        send: sends one datagram from that socket, never blocks.
    """

    local: Endpoint
    send: Callable[[bytes, Endpoint], None]
    counters: StunCounters = field(default_factory=StunCounters)
    _pending: dict[bytes, _Transaction] = field(default_factory=dict)
    _measured: dict[Endpoint, _Measured] = field(default_factory=dict)

    async def binding(
        self,
        server: Endpoint,
        *,
        change_ip: bool = False,
        change_port: bool = False,
        schedule: Schedule = Schedule(),
    ) -> Binding:
        """Ask `server` how it sees this socket. The first request leaves before the first suspension.

        Args:
            server: where to ask.
            change_ip: the answer shall come from the server's other address.
            change_port: the answer shall come from the server's other port.
            schedule: how often and how long.

        Raises:
            NetworkError: no answer, or the socket was closed.
            ProtocolError: an answer that is none.
        """
        if len(self._pending) >= MAX_PENDING:
            raise NetworkError(f"{len(self._pending)} STUN requests are under way on {self.local} already")
        loop = asyncio.get_running_loop()
        key = os.urandom(12)
        transaction = _Transaction(
            server,
            encode_request(key, change_ip=change_ip, change_port=change_port),
            change_ip or change_port,
            schedule,
            schedule.first if schedule.first is not None else self.rto(server),
            loop.create_future(),
        )
        self._pending[key] = transaction
        try:
            self._transmit(transaction, loop)
            return await transaction.answer
        finally:
            del self._pending[key]
            if transaction.timer is not None:
                transaction.timer.cancel()

    def rto(self, server: Endpoint) -> float:
        """Seconds until the first retransmission to `server`."""
        measured = self._measured.get(server)
        if measured is None:
            return FIRST_RTO
        return max(MIN_RTO, measured.smoothed + _VARIANCES * measured.variance)

    def receive(self, data: bytes, source: Endpoint) -> bool:
        """Take a datagram that looks like STUN; returns whether it was an answer to one of our requests."""
        transaction = self._pending.get(transaction_of(data))
        if transaction is None:
            return False
        if not transaction.any_source and source != transaction.server:
            self.counters.wrong_source += 1  # a guess, or a NAT that rewrites; either way not an answer
            return True
        if transaction.answer.done():
            return True
        try:
            reply = parse_reply(data)
            if reply.mapped.family is not self.local.family:
                raise ProtocolError(f"the mapped address {reply.mapped} is of the wrong family")
        except ProtocolError as error:
            self.counters.malformed += 1
            failure = ProtocolError(f"STUN server {transaction.server}: {error}")
            failure.__cause__ = error
            transaction.answer.set_exception(failure)
            return True
        rtt = asyncio.get_running_loop().time() - transaction.sent_at
        if transaction.sent == 1:  # Karn's rule: of a repeated request nobody knows which was answered
            self._measure(transaction.server, rtt)
        transaction.answer.set_result(
            Binding(self.local, transaction.server, source, reply.mapped, reply.other, rtt)
        )
        return True

    def close(self) -> None:
        """Fail what is under way."""
        for transaction in tuple(self._pending.values()):
            if not transaction.answer.done():
                transaction.answer.set_exception(NetworkError(f"the socket {self.local} was closed"))

    def _transmit(self, transaction: _Transaction, loop: asyncio.AbstractEventLoop) -> None:
        if transaction.answer.done():
            return
        if transaction.sent >= transaction.schedule.tries:
            transaction.answer.set_exception(
                NetworkError(f"STUN server {transaction.server} did not answer {transaction.sent} requests")
            )
            return
        pause = transaction.pause * transaction.schedule.growth**transaction.sent
        transaction.sent += 1
        if transaction.sent == transaction.schedule.tries:
            pause = transaction.pause * transaction.schedule.last
        transaction.sent_at = loop.time()
        transaction.timer = loop.call_later(pause, self._transmit, transaction, loop)
        self.send(transaction.request, transaction.server)

    def _measure(self, server: Endpoint, rtt: float) -> None:
        measured = self._measured.get(server)
        if measured is not None:
            measured.update(rtt)
        elif len(self._measured) < _MAX_MEASURED:
            self._measured[server] = _Measured(rtt, rtt / 2)
