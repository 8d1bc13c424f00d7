"""The kernel's part of a TCP connection in the in-memory network: reliable, in order, with a window.

A small TCP, because loss, cuts and NATs must act on single segments: handshake with simultaneous open,
retransmission, receive window, half close, reset, keepalive, time-wait. Rejected: a pipe between two ends
with a delay (nothing could be lost, cut, filtered or reset on the way) and byte sequence numbers, congestion
control and options (no race depends on them). A random key per connection stands for the initial sequence
number: what belongs to an earlier connection of the same endpoints is told apart by it.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from warpgate_core.endpoint import Endpoint
from warpgate_core.testing.packet import Packet

if TYPE_CHECKING:
    from warpgate_core.testing.host import Host

__all__ = ["Connection", "Kind", "Owner", "Segment", "State"]

SEGMENT: Final = 16 * 1024  # bytes; a jumbo one, so that a megabyte is 64 events and not 700
SEND_BUFFER: Final = 128 * 1024  # bytes; order of Linux's tcp_wmem
RECEIVE_BUFFER: Final = 128 * 1024  # bytes; Linux's default tcp_rmem
HANDSHAKE_RTO: Final = 1.0  # s, RFC 6298 section 2.1; doubles
HANDSHAKE_TIMEOUT: Final = 127.0  # s, Linux's tcp_syn_retries of 6
MIN_RTO: Final = 0.2  # s, Linux's
MAX_RTO: Final = 5.0  # s, so that a mended path is noticed soon
USER_TIMEOUT: Final = 30.0  # s without any progress, as `net.keepalive` asks of a real kernel
KEEPALIVE: Final = (15.0, 5.0)  # s until the first probe, s between probes; as `net.keepalive`
TIME_WAIT: Final = 60.0  # s, Linux's


class Kind(enum.Enum):
    """What a segment is."""

    SYN = enum.auto()
    SYN_ACK = enum.auto()
    ACK = enum.auto()
    DATA = enum.auto()
    FIN = enum.auto()
    RST = enum.auto()
    PROBE = enum.auto()


class State(enum.Enum):
    """Where a connection stands; what each end has closed is apart."""

    SYN_SENT = enum.auto()
    SYN_RECEIVED = enum.auto()
    ESTABLISHED = enum.auto()
    TIME_WAIT = enum.auto()
    CLOSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment.

    Args:
        kind: what it is.
        key: of the sender's connection.
        to_key: of the receiver's connection; 0 if not known yet.
        seq: number of this segment in its direction, for DATA and FIN.
        ack: number of the segment expected next.
        window: bytes the sender has room for.
        data: payload.
    """

    kind: Kind
    key: int
    to_key: int
    seq: int = 0
    ack: int = 0
    window: int = 0
    data: bytes = b""

    @property
    def opens(self) -> bool:
        """Whether it begins a connection."""
        return self.kind is Kind.SYN

    def refusal(self) -> Segment | None:
        """The reset that answers it if nobody wants it."""
        return None if self.kind is Kind.RST else Segment(Kind.RST, 0, self.key)


class Owner(Protocol):
    """What a connection tells its transport."""

    def established(self) -> None:
        """The handshake is done."""

    def readable(self) -> None:
        """There is data, or the end of it."""

    def writable(self) -> None:
        """There is room to send."""

    def broken(self, error: OSError) -> None:
        """It is over without a goodbye."""


class Connection:
    """One end of a TCP connection.

    Args:
        host: where it lives.
        local: own end.
        remote: the other end as seen from here.
        syn: what came in, for an accepted one; None to dial.

    Attributes:
        state: see `State`.
        peer_host: the machine at the other end, once something came from there.
        got_fin: whether the peer has ended its direction.
    """

    def __init__(self, host: Host, local: Endpoint, remote: Endpoint, syn: Segment | None = None) -> None:
        self.host = host
        self.local = local
        self.remote = remote
        self.owner: Owner | None = None
        self.state = State.SYN_SENT if syn is None else State.SYN_RECEIVED
        self.peer_host: Host | None = None
        self.got_fin = False
        self._network = host.network
        self._key = self._network.rng.getrandbits(62) + 1
        self._peer_key = 0 if syn is None else syn.key
        self._window = RECEIVE_BUFFER
        self._queue: deque[bytes | None] = deque()  # None is the end of our direction
        self._queued = 0
        self._unacked: deque[tuple[int, bytes | None]] = deque()
        self._in_flight = 0
        self._next_seq = 0
        self._expected = 0
        self._early: dict[int, bytes | None] = {}
        self._received: deque[bytes] = deque()
        self._unread = 0
        self._ended = False
        self._began = self._heard = self._progressed = self._network.now
        self._rto = MIN_RTO
        self._retries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.host.name} {self.local} to {self.remote} {self.state.name}>"

    @property
    def is_over(self) -> bool:
        """Whether the endpoints may be used again."""
        return self.state in (State.TIME_WAIT, State.CLOSED)

    # -- for the transport -------------------------------------------------------------------

    def start(self, origin: Host | None = None) -> None:
        """Begin the handshake, or answer it."""
        self.peer_host = origin
        self._shake_hands()

    def send(self, data: bytes) -> int:
        """Take as much as there is room for; returns how many bytes that was."""
        room = max(0, SEND_BUFFER - self._queued - self._in_flight)
        taken = data[:room]
        start = 0
        while start < len(taken):
            size = self._network.rng.randint(1, SEGMENT) if self._network.shred else SEGMENT
            self._queue.append(taken[start : start + size])
            start += size
        self._queued += len(taken)
        self._pump()
        return len(taken)

    def read(self) -> bytes | None:
        """The next piece that was received; None if there is none now."""
        if not self._received:
            return None
        data = self._received.popleft()
        before, self._unread = self._unread, self._unread - len(data)
        if before > RECEIVE_BUFFER // 2 >= self._unread:
            self._emit(Kind.ACK)  # tell that there is room again
        return data

    @property
    def at_eof(self) -> bool:
        """Whether everything was read and nothing more will come."""
        return self.got_fin and not self._received

    def shutdown(self) -> None:
        """End our direction after what was sent."""
        if not self._ended and not self.is_over:
            self._ended = True
            self._queue.append(None)
            self._pump()

    def release(self) -> None:
        """The transport is gone; deliver what was sent in the background."""
        self.owner = None
        if self._received:
            self.abort()  # what nobody will read is answered with a reset (RFC 2525 section 2.17)
            return
        self.shutdown()
        self._maybe_finish()
        if not self.is_over:
            self._network.later(TIME_WAIT, self._forget)

    def abort(self) -> None:
        """Reset the connection."""
        self.owner = None
        if not self.is_over:
            if self._peer_key:
                self._emit(Kind.RST)
            self._forget()

    def break_off(self, error: OSError) -> None:
        """It breaks from outside."""
        owner = self.owner
        self._forget()
        if owner is not None:
            owner.broken(error)

    # -- what comes in -----------------------------------------------------------------------

    def receive(self, segment: Segment, origin: Host | None) -> None:
        """One segment came."""
        kind = segment.kind
        if kind is Kind.RST:
            if segment.to_key == self._key:
                refused = self.state is State.SYN_SENT
                self.break_off(_error(errno.ECONNREFUSED if refused else errno.ECONNRESET))
            return
        if segment.to_key not in (0, self._key):  # for an earlier connection of ours
            self._emit_to(Segment(Kind.RST, self._key, segment.key))
            return
        if self._peer_key not in (0, segment.key):  # from a later one of theirs: have them ask (RFC 5961)
            self._emit(Kind.ACK)
            return
        self._peer_key = segment.key
        self.peer_host = origin or self.peer_host
        self._heard = self._network.now
        if kind is Kind.SYN:
            if self.state is State.SYN_SENT:  # simultaneous open, RFC 9293 section 3.5
                self.state = State.SYN_RECEIVED
            self._emit(Kind.SYN_ACK)
            return
        if self.state in (State.SYN_SENT, State.SYN_RECEIVED):
            self._establish()
        if kind is Kind.SYN_ACK or kind is Kind.PROBE:
            self._emit(Kind.ACK)
        self._take_ack(segment)
        if kind in (Kind.DATA, Kind.FIN):
            self._take_data(segment)

    def _establish(self) -> None:
        self._stop_timer()
        self._retries = 0
        self._rto = max(MIN_RTO, 2 * (self._network.now - self._began))
        self.state = State.ESTABLISHED
        self._watchdog = self._network.later(KEEPALIVE[0], self._watch)
        if self.owner is not None:
            self.owner.established()

    def _take_ack(self, segment: Segment) -> None:
        self._window = segment.window
        progress = False
        while self._unacked and self._unacked[0][0] < segment.ack:
            data = self._unacked.popleft()[1]
            self._in_flight -= len(data or b"")
            progress = True
        if progress:
            self._retries = 0
            self._progressed = self._network.now
            self._stop_timer()
        self._pump()
        if progress and self.owner is not None:
            self.owner.writable()
        self._maybe_finish()

    def _take_data(self, segment: Segment) -> None:
        if segment.seq >= self._expected:
            self._early[segment.seq] = None if segment.kind is Kind.FIN else segment.data
        came = False
        while self._expected in self._early:
            data = self._early.pop(self._expected)
            self._expected += 1
            came = True
            if data is None:
                self.got_fin = True
            elif self.owner is None:  # closed here: nobody will read it
                self.abort()
                return
            else:
                self._received.append(data)
                self._unread += len(data)
        self._emit(Kind.ACK)
        if came and self.owner is not None:
            self.owner.readable()
        self._maybe_finish()

    # -- what goes out -----------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what the peer has room for."""
        if self.state is not State.ESTABLISHED:
            return
        while self._queue:
            data = self._queue[0]
            if data is not None and self._in_flight + len(data) > self._window:
                break
            self._queue.popleft()
            size = len(data or b"")
            self._queued -= size
            self._in_flight += size
            if not self._unacked:
                self._progressed = self._network.now
            self._unacked.append((self._next_seq, data))
            self._emit_data(self._next_seq, data)
            self._next_seq += 1
        if self._timer is None and (self._unacked or self._queue):
            self._timer = self._network.later(min(MAX_RTO, self._rto * 2**self._retries), self._retransmit)

    def _retransmit(self) -> None:
        self._timer = None
        self._retries = min(self._retries + 1, 16)
        if self._unacked and self._network.now - self._progressed > USER_TIMEOUT:
            self.break_off(_error(errno.ETIMEDOUT))
            return
        for seq, data in tuple(self._unacked):
            self._emit_data(seq, data)
        if not self._unacked:
            self._emit(Kind.PROBE)  # the window is shut: ask whether it still is
        self._pump()

    def _shake_hands(self) -> None:
        """Send our part of the handshake until it is done."""
        self._timer = None
        if self._network.now - self._began >= HANDSHAKE_TIMEOUT:
            self.break_off(_error(errno.ETIMEDOUT))
            return
        self._emit(Kind.SYN if self.state is State.SYN_SENT else Kind.SYN_ACK)
        self._timer = self._network.later(HANDSHAKE_RTO * 2**self._retries, self._shake_hands)
        self._retries += 1

    def _watch(self) -> None:
        """Keepalive: probe a silent peer, and give it up at last."""
        idle, interval = KEEPALIVE
        silent = self._network.now - self._heard
        if silent >= USER_TIMEOUT:
            self.break_off(_error(errno.ETIMEDOUT))
            return
        if silent >= idle:
            self._emit(Kind.PROBE)
        self._watchdog = self._network.later(idle - silent if silent < idle else interval, self._watch)

    def _emit(self, kind: Kind) -> None:
        self._emit_to(Segment(kind, self._key, self._peer_key, 0, self._expected, self._room))

    def _emit_data(self, seq: int, data: bytes | None) -> None:
        kind = Kind.FIN if data is None else Kind.DATA
        self._emit_to(Segment(kind, self._key, self._peer_key, seq, self._expected, self._room, data or b""))

    def _emit_to(self, segment: Segment) -> None:
        self.host.emit(Packet("tcp", self.local, self.remote, segment, self.host))

    @property
    def _room(self) -> int:
        return max(0, RECEIVE_BUFFER - self._unread)

    # -- the end -----------------------------------------------------------------------------

    def _maybe_finish(self) -> None:
        """Once both ended and nobody holds it any more, only answer what comes late."""
        all_sent = self._ended and not (self._queue or self._unacked)
        if all_sent and self.got_fin and self.owner is None and self.state is State.ESTABLISHED:
            self._stop()
            self.state = State.TIME_WAIT
            self._network.later(TIME_WAIT, self._forget)

    def _forget(self) -> None:
        self._stop()
        self.owner = None
        self.state = State.CLOSED
        if self.host.connections.get((self.local, self.remote)) is self:
            del self.host.connections[self.local, self.remote]

    def _stop(self) -> None:
        self._stop_timer()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
