"""Candidate paths on real transports: a stream or a (socket, remote endpoint) pair under proof.

Each drives one sans-I/O `PathProof`. A stream has a task that reads frames until nothing but a nomination
can follow; a datagram path has a timer and no task, since thousands of them must be cheap. Both become a
`Pipe` in one step, with no byte lost or mixed up in between.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, PipeError, ProtocolError, StrategyError, WarpgateError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import Consent, DatagramMux, DatagramPipe, Path, Pipe, Preamble, StreamPipe
from warpgate_core.session.frames import CONFIRM_SIZE, HEADER, Frame, FrameKind, frame_length
from warpgate_core.session.keys import SessionKeys
from warpgate_core.session.proof import PathProof, ProofState
from warpgate_core.strategy import Role
from warpgate_core.trace import Phase, Trace

__all__ = ["CandidatePath", "DatagramPath", "PathOwner", "StreamPath", "read_frame"]

PADDED_OFFER = 1_200  # bytes; passes every IPv6 path (RFC 8200 section 5) with room for tunnels, as QUIC does
FIRST_RETRY = 0.100  # s; a lost check costs no more than this on a line of ordinary length
RETRY_GROWTH = 1.5
LAST_RETRY = 0.500  # s; RFC 8445 section 14.3: initial RTO of a connectivity check
PROBE_INTERVAL = 0.020  # s; what a punch may take beyond S + P/2, since one of them arrives just in time
PROBES = 50  # 60 bytes each, for the first second: signalling that takes longer is not quick anyway
NEAR_OPENINGS = 3  # of a responder, in 0.25 s: then the initiator has sent towards us, or never will
CHECK_WINDOW = 5.0  # s from when both ends could be checking; a dozen checks, all lost: 5 % loss does not
NOMINATE_RETRIES = 40  # at LAST_RETRY: 20 s, well beyond any session's own time-out


class PathOwner(Protocol):
    """The session, as a path sees it."""

    role: Role
    peer_key: bytes
    trace: Trace

    @property
    def keys(self) -> SessionKeys | None:
        """The session's keys once known."""

    def take_envelope(self, frame: Frame) -> None:
        """Open the answer or refusal in a frame; unlocks all paths. Raises RemoteError."""

    def path_proven(self, path: CandidatePath) -> None:
        """Packets pass both ways and the peer has proven itself."""

    def path_nominated(self, path: CandidatePath) -> None:
        """As responder: the initiator chose this path."""

    def check_open(self, path: CandidatePath) -> None:
        """As responder, before a nomination is confirmed. Raises ProtocolError if it comes too late."""

    def path_lost(self, path: CandidatePath, error: WarpgateError) -> None:
        """The path broke before it became a pipe."""

    async def ready(self) -> None:
        """As responder: wait until the answer exists."""

    def mux(self, sock: DatagramSocket, remote: Endpoint) -> DatagramMux:
        """What tells the UDP pipes between two endpoints apart."""

    def channel_in_use(self, sock: DatagramSocket, remote: Endpoint, channel: int) -> bool:
        """Whether a pipe is open there."""

    def settled_on(self, path: DatagramPath, pipe: Pipe) -> None:
        """The path is a pipe now; frames of its proof may still come."""

    @property
    def parity(self) -> int:
        """Of the channels that this node gives to pipes with this peer."""


class CandidatePath(ABC):
    """What stream and datagram paths have in common."""

    def __init__(self, owner: PathOwner, proof: PathProof, path: Path) -> None:
        self.owner = owner
        self.proof = proof
        self.path = path
        self.round_trip = 0.0
        self.closed = False
        self.inbound = False
        self._began = self._asked = asyncio.get_running_loop().time()
        self._proven: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        # A path whose owner has stopped waiting may still fail; that is no news to anybody.
        self._proven.add_done_callback(lambda future: future.cancelled() or future.exception())

    @property
    def strategy(self) -> str:
        """Name of the strategy that made it."""
        return self.proof.strategy

    def when_proven(self, callback: Callable[[Path], None]) -> None:
        """Call back, soon, when it is proven; never if it is not."""

        def tell(future: asyncio.Future[Path]) -> None:
            if not future.cancelled() and future.exception() is None:
                callback(future.result())

        self._proven.add_done_callback(tell)

    async def wait_proven(self) -> Path:
        """Wait until proven (as responder: or nominated)."""
        return await asyncio.shield(self._proven)

    @abstractmethod
    def nominate(self) -> Pipe:
        """As initiator: choose this path, and turn it into the pipe at once."""

    @abstractmethod
    def accept(self) -> Pipe:
        """As responder: the initiator chose it; turn it into the pipe."""

    @abstractmethod
    def _transmit(self, frame: Frame) -> None:
        """Send one frame."""

    @abstractmethod
    def close(self) -> None:
        """Give up the path. Does nothing to a pipe that was made of it."""

    def unlock(self, keys: SessionKeys, envelope: bytes | None) -> None:
        """The session's secret is known now (as responder: and the sealed answer)."""
        self.proof.unlock(keys, envelope)

    def take(self, frame: Frame, limit: int | None = None) -> None:
        """Take one frame of the peer's and send the replies.

        Args:
            frame: with this session's tag.
            limit: no reply may have more bytes than this.

        Raises:
            RemoteError: it proves nothing; nothing has changed.
        """
        if frame.kind in (FrameKind.ANSWER, FrameKind.REFUSAL) and self.owner.role is Role.INITIATOR:
            self.owner.take_envelope(frame)
            if frame.kind is FrameKind.REFUSAL:
                return
        if frame.kind is FrameKind.NOMINATE and self.owner.role is Role.RESPONDER:
            self.owner.check_open(self)
            self._check_channel(frame.channel)
        before = self.proof.state
        for reply in self.proof.receive(frame):
            if limit is None or len(reply.encode()) <= limit:
                self._transmit(reply)
        self._progress(before)

    @abstractmethod
    def _check_channel(self, channel: int) -> None:
        """As responder: whether a pipe can be made on the channel that a NOMINATE names."""

    def _progress(self, before: ProofState) -> None:
        state = self.proof.state
        if state >= ProofState.PROVEN > before:
            self.round_trip = asyncio.get_running_loop().time() - self._asked
            self.owner.trace.add(
                "prove",
                Phase.COMPLETE,
                f"{self.path} in {self.round_trip * 1000:.0f} ms",
                strategy=self.strategy,
            )
            if not self._proven.done():
                self._proven.set_result(self.path)
            self.owner.path_proven(self)
        if state is ProofState.CONFIRMED > before:
            if self.owner.role is Role.RESPONDER:
                self.owner.path_nominated(self)
            else:
                self.owner.trace.add("confirm", Phase.COMPLETE, str(self.path), strategy=self.strategy)

    def _fail(self, error: WarpgateError) -> None:
        if self.closed:
            return
        self.close()
        if not self._proven.done():
            self._proven.set_exception(error)
        self.owner.path_lost(self, error)


class StreamPath(CandidatePath):
    """A TCP connection under proof.

    Args:
        link: the connection; owned by the path until a pipe is made of it.
        dialled: this end made it, so this end speaks first.
    """

    def __init__(
        self, owner: PathOwner, proof: PathProof, path: Path, link: StreamLink, *, dialled: bool
    ) -> None:
        super().__init__(owner, proof, path)
        self._link = link
        self._dialled = dialled
        link.add_lost_callback(self._on_lost)

    async def drive(self, first: Frame | None = None) -> None:
        """Read and write frames until the path is proven (initiator) or nominated (responder).

        Args:
            first: a frame that was read already.
        """
        try:
            await self.owner.ready()
            if self._dialled:
                self._transmit(self.proof.opening())
            if first is not None:
                self.take(first)
            while not self._done_reading():
                self.take(await read_frame(self._link))
        except WarpgateError as error:
            self._fail(error)

    def _done_reading(self) -> bool:
        wanted = ProofState.PROVEN if self.owner.role is Role.INITIATOR else ProofState.CONFIRMED
        return self.closed or self.proof.state >= wanted

    def _transmit(self, frame: Frame) -> None:
        self._link.write(frame.encode())

    def nominate(self) -> Pipe:
        """See `CandidatePath`."""
        self._transmit(self.proof.nominate())
        self.closed = True
        return self._pipe(Preamble(CONFIRM_SIZE, self._confirm))

    def accept(self) -> Pipe:
        """See `CandidatePath`."""
        self.closed = True
        return self._pipe(None)

    def _check_channel(self, channel: int) -> None:
        if channel:
            raise ProtocolError("a stream has no channels")

    def _pipe(self, preamble: Preamble | None) -> Pipe:
        return StreamPipe(
            self._link,
            peer=self.owner.peer_key,
            path=self.path,
            strategy=self.strategy,
            trace=self.owner.trace,
            preamble=preamble,
        )

    def _confirm(self, data: bytes) -> None:
        self.take(Frame.decode(data))

    def _on_lost(self, error: PipeError | None) -> None:
        self._fail(
            NetworkError(f"the connection to {self.path.remote} ended before it was proven and chosen")
        )

    def close(self) -> None:
        """See `CandidatePath`."""
        if not self.closed:
            self.closed = True
            self._link.close()


async def read_frame(link: StreamLink) -> Frame:
    """Read one frame off a stream.

    Raises:
        ProtocolError: not a frame of ours.
        PipeError: the connection ended.
    """
    header = await link.read_exactly(HEADER)
    return Frame.decode(header + await link.read_exactly(frame_length(header)))


class DatagramPath(CandidatePath):
    """A local UDP socket and a remote endpoint under proof.

    Args:
        sock: one that outlives the session, or that the strategy closes after the race.
    """

    def __init__(self, owner: PathOwner, proof: PathProof, path: Path, sock: DatagramSocket) -> None:
        super().__init__(owner, proof, path)
        self.sock = sock
        self._timer: asyncio.Handle | None = None
        self._retry = FIRST_RETRY
        self._give_up_at: float | None = None
        self._sent_nominations = 0
        self._channel = 0
        self._probe_timer: asyncio.TimerHandle | None = None
        self._probes = 0
        self._near = 0
        self._openings = 0

    def start(self, hops: int = 0) -> None:
        """Send the first check, and go on until something comes back.

        Args:
            hops: see `Attempt.check`; 0: no limit.
        """
        if self._timer is None and not self.closed:
            answered = self.owner.role is Role.INITIATOR and self.owner.keys is not None
            self._near = 0 if answered else hops
            self._check()
            if self.owner.role is Role.INITIATOR and self.owner.keys is None:
                self._probe_timer = asyncio.get_running_loop().call_later(PROBE_INTERVAL, self._probe)

    def _probe(self) -> None:
        self._probe_timer = None
        if self.closed or self.owner.keys is not None or self._probes >= PROBES:
            return
        self._probes += 1
        self._transmit(self.proof.probe())
        self._probe_timer = asyncio.get_running_loop().call_later(PROBE_INTERVAL, self._probe)

    def expire(self, *, alone: bool = False) -> None:
        """From now on both ends can be checking: give up in `CHECK_WINDOW` seconds.

        Args:
            alone: the peer will never check towards us, so what we have sent so far counts too.
        """
        if self._give_up_at is None:
            begins = self._began if alone else asyncio.get_running_loop().time()
            self._give_up_at = begins + CHECK_WINDOW

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        if self.closed or self.proof.opened:
            return
        if self._give_up_at is not None and loop.time() >= self._give_up_at:
            text = f"{self.path.remote} did not answer any check"
            self._fail(StrategyError(self.strategy, "checking", text))
            return
        self._asked = loop.time()
        self._transmit(self.proof.opening())
        self._openings += 1
        if self._openings == NEAR_OPENINGS and self.owner.role is Role.RESPONDER:
            self._near = 0
        self._timer = loop.call_later(self._retry, self._check)
        self._retry = min(self._retry * RETRY_GROWTH, LAST_RETRY)

    def _transmit(self, frame: Frame) -> None:
        data = frame.encode(PADDED_OFFER if frame.kind is FrameKind.OFFER else 0)
        if self._near:
            self.sock.send_near(data, self.path.remote, self._near)
        else:
            self.sock.send(data, self.path.remote)

    def take(self, frame: Frame, limit: int | None = None) -> None:
        """See `CandidatePath`."""
        self._near = 0  # both NATs let us through
        super().take(frame, limit)

    def unlock(self, keys: SessionKeys, envelope: bytes | None) -> None:
        """The peer has answered: check at once with the secret, and not for ever."""
        super().unlock(keys, envelope)
        if self.owner.role is Role.INITIATOR:
            self._near = 0  # the peer has answered, so it has sent towards us
        if self._timer is not None and not self.proof.opened:
            self._timer.cancel()
            self._retry = FIRST_RETRY
            self.expire()
            self._timer = asyncio.get_running_loop().call_soon(self._check)

    def _check_channel(self, channel: int) -> None:
        taken = self.owner.channel_in_use(self.sock, self.path.remote, channel)
        if taken and self.proof.state is not ProofState.CONFIRMED:
            raise ProtocolError(f"channel {channel} carries another pipe")

    def nominate(self) -> Pipe:
        """See `CandidatePath`."""
        self._stop_timer()
        self._channel = self.owner.mux(self.sock, self.path.remote).reserve(self.owner.parity)
        frame = self.proof.nominate(self._channel)
        pipe = self._pipe()
        self._transmit(frame)
        self._timer = asyncio.get_running_loop().call_later(self._nomination_retry(), self._renominate, pipe)
        return pipe

    def accept(self) -> Pipe:
        """See `CandidatePath`."""
        self._stop_timer()
        self._channel = self.proof.channel
        return self._pipe()

    def _nomination_retry(self) -> float:
        return min(max(FIRST_RETRY, 2 * self.round_trip), LAST_RETRY)

    def _renominate(self, pipe: Pipe) -> None:
        self._timer = None
        self._sent_nominations += 1
        if (
            pipe.closed
            or self.proof.state is ProofState.CONFIRMED
            or self._sent_nominations > NOMINATE_RETRIES
        ):
            return
        self._transmit(self.proof.nominate(self._channel))
        self._timer = asyncio.get_running_loop().call_later(self._nomination_retry(), self._renominate, pipe)

    def _pipe(self) -> Pipe:
        keys = self.owner.keys
        if keys is None:
            raise ProtocolError("a pipe cannot be made before the session's secret is known")
        self.closed = True
        other = Role.RESPONDER if self.owner.role is Role.INITIATOR else Role.INITIATOR
        pipe = DatagramPipe(
            self.owner.mux(self.sock, self.path.remote).channel(self._channel),
            self.path.remote,
            peer=self.owner.peer_key,
            path=self.path,
            strategy=self.strategy,
            trace=self.owner.trace,
            consent=Consent(keys.of(self.owner.role), keys.of(other), asyncio.get_running_loop().time()),
            channel=self._channel,
        )
        self.owner.settled_on(self, pipe)
        return pipe

    def after(self, frame: Frame, size: int) -> None:
        """A frame for a path that is a pipe already: CONFIRM, or a NOMINATE that was repeated."""
        self.take(frame, size)
        if self.proof.state is ProofState.CONFIRMED and self.owner.role is Role.INITIATOR:
            self._stop_timer()

    def retire(self) -> None:
        """The pipe that was made of it has ended."""
        self._stop_timer()

    def _stop_timer(self) -> None:
        for timer in (self._timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._probe_timer = None

    def close(self) -> None:
        """See `CandidatePath`."""
        if not self.closed:
            self.closed = True
            self._stop_timer()
