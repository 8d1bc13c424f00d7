"""A pipe of messages over UDP: one message, one datagram, one header byte.

Order and arrival are the network's: messages may be lost, doubled or swapped, never merged or cut. A
full queue drops the newest message, as the kernel's does: what is queued was first, and a flood cannot
flush it out. Rejected: dropping the oldest (a burst would then destroy exactly what the application is
about to read), and an `asyncio.Queue` (twice the cost per packet, no bound in bytes).

A message larger than the path's MTU (1,200 bytes fit everywhere, RFC 9000 section 14) is cut into
fragments by the kernel, and is lost as a whole with any of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import InputError, NetworkError, PeerLostError, PipeClosedError, PipeError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.pipe.base import SUB_ALL, Path, Pipe, Sub, check_sub
from warpgate_core.pipe.consent import EXPIRY, Consent, ConsentState, Frame
from warpgate_core.pipe.mux import data_byte
from warpgate_core.trace import Trace

__all__ = ["MAX_MESSAGE", "QUEUE_SIZE", "DatagramPipe"]

MAX_MESSAGE: Final = 65_507 - 1  # bytes: the largest UDP payload over IPv4 (RFC 768, 791) less the header
QUEUE_SIZE: Final = 1024 * 1024  # bytes, overhead counted: 700 full-size packets, or 5 ms at gigabit speed
OVERHEAD: Final = 256  # bytes counted per queued message, so that empty ones are bounded too (4,096)
BURST: Final = 64  # messages sent until others get their turn: about 1 ms of work
ANSWER_TIME: Final = 1.0  # s to go on answering a repeated CLOSE: as long as the peer repeats it


class DatagramPipe(Pipe):
    """A pipe of messages over one path of the node's shared UDP socket.

    Args:
        sock: the socket; stays open when the pipe closes.
        remote: the peer's end; every datagram from there belongs to this pipe from now on.
        peer, path, strategy, trace: see `Pipe`.
        consent: freshness and goodbye, with the session's keys.
        channel: which of the pipes between these two endpoints it is; see `pipe.mux`.
        on_frame: called with a frame of the path's proof that came late (a NOMINATE that was repeated,
            a CONFIRM); None ignores them.

    Attributes:
        dropped: messages that came while the queue was full, and were discarded.
        ignored: datagrams of a kind that this version does not know.
    """

    def __init__(
        self,
        sock: DatagramSocket,
        remote: Endpoint,
        *,
        peer: bytes,
        path: Path,
        strategy: str,
        trace: Trace,
        consent: Consent,
        channel: int = 0,
        on_frame: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(peer=peer, path=path, strategy=strategy, trace=trace)
        self._sock = sock
        self._remote = remote
        self._consent = consent
        self._data = data_byte(channel)
        self._header = bytes((self._data,))
        self._on_frame = on_frame
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended = False
        self._burst = 0
        self.dropped = 0
        self.ignored = 0
        self._released = False
        self._broken: NetworkError | None = None
        sock.attach(remote, self._received)
        sock.on_lost(self._lost)
        self._arm()

    @property
    def closed(self) -> bool:
        """Whether either end closed the pipe, or the peer is lost."""
        return self._ended or self._closing

    @property
    def error(self) -> PipeError | None:
        """See `Pipe.error`."""
        broken = self._broken is not None or self._consent.state is ConsentState.EXPIRED
        return self._error() if broken and not self._closing else None

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one message of 0 to `MAX_MESSAGE` bytes; may be lost on the way. See `Pipe.send`.

        Does not wait for the network; lets other tasks run now and then.

        Raises:
            InputError: the message is too large.
        """
        if self._ended or self._closing:
            raise self._error()
        if len(data) > MAX_MESSAGE:
            raise InputError(f"a message of {len(data)} bytes does not fit a datagram; {MAX_MESSAGE} do")
        self._sock.send(self._header + data, self._remote)
        self._burst += 1
        if self._burst >= BURST:
            self._burst = 0
            await asyncio.sleep(0)

    async def recv(self, sub: Sub = SUB_ALL, timeout: float | None = None) -> bytes:
        """Receive one message, 0 bytes included. See `Pipe.recv`."""
        if sub is not SUB_ALL:
            check_sub(sub)
        if not self._queue:
            if timeout is None:
                await self._wait()
            else:
                try:
                    async with asyncio.timeout(timeout):
                        await self._wait()
                except TimeoutError:
                    raise TimeoutError(f"nothing came from {self._remote} within {timeout:g} s") from None
        data = self._queue.popleft()
        self._queued -= len(data) + OVERHEAD
        return data[1:]

    async def close(self) -> None:
        """Say goodbye and release the path; one round trip, at most a second.

        Messages that nobody received are discarded. Cancelling releases at once.
        """
        if self._over.is_set():
            return
        if self._closing:
            await self._over.wait()
            return
        self._closing = True
        self._queue.clear()
        self._queued = 0
        self._wake()
        self._send_control(self._consent.close(self._loop.time()))
        try:
            if self._consent.state is ConsentState.CLOSING:
                self._arm()
                await self._over.wait()
        finally:
            self._release()
        await self._over.wait()

    async def _wait(self) -> None:
        while not self._queue:
            if self._ended or self._closing:
                raise self._error()
            if self._waiter is not None:
                raise PipeError(f"somebody is already waiting in recv of {self!r}; one at a time")
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _received(self, data: bytes) -> None:
        """One datagram from the remote endpoint (called by the socket)."""
        if data and data[0] == self._data:
            queued = self._queued + len(data) + OVERHEAD
            if queued > QUEUE_SIZE or self._closing:
                self.dropped += 1
                return
            self._queued = queued
            self._queue.append(data)
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
        elif data and Frame.CONSENT_REQUEST <= data[0] <= Frame.CLOSE:
            self._send_control(self._consent.receive(data, self._loop.time()))
            self._follow()
        elif self._on_frame is not None and data and Frame.is_proof(data[0]):
            self._on_frame(data)
        else:
            self.ignored += 1

    def _send_control(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._sock.send(frame, self._remote)

    def _arm(self) -> None:
        """Set the one timer to what consent wants next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._consent.next_at
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        self._timer = None
        # asyncio may call up to its clock's resolution too early: the time is at least what was asked for
        self._send_control(self._consent.poll(max(due, self._loop.time())))
        self._follow()

    def _follow(self) -> None:
        """Do what the state of consent demands."""
        state = self._consent.state
        if state is ConsentState.OPEN:
            if self._timer is None:
                self._arm()
        elif state is ConsentState.CLOSING:
            self._arm()
        elif self._closing or state is ConsentState.EXPIRED:
            self._release()
        elif not self._ended:  # the peer said goodbye: answer for a while if it did not hear our answer
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(ANSWER_TIME, self._release)
            self._wake()

    def _release(self) -> None:
        """Leave nothing behind; harmless twice."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        if not self._released:
            self._released = True
            self._sock.detach(self._remote)
            self._sock.on_released(self._finished)

    def _lost(self, error: NetworkError) -> None:
        """The socket broke (called by the socket)."""
        if not self._ended:
            self._broken = error
            self._release()

    def _error(self) -> PipeError:
        if self._closing:
            return PipeClosedError(f"{self!r} was closed on this side")
        if self._broken is not None:
            return PeerLostError(f"the way to {self._remote} is lost: {self._broken}")
        if self._consent.state is ConsentState.EXPIRED:
            return PeerLostError(f"{self._remote} has not answered for {EXPIRY:g} s: the peer is gone")
        return PipeClosedError(f"the peer at {self._remote} closed the pipe")
