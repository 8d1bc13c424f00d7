"""One end of one session on the event loop: what initiator and responder have in common.

Strategies run as tasks, paths come and go, messages arrive; `close` ends all of it. What is specific to
a role is in `initiator.py` and `responder.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.attempt import SessionAttempt
from warpgate_core.engine.beacons import Beacons
from warpgate_core.engine.paths import CandidatePath, DatagramPath, StreamPath
from warpgate_core.engine.vetting import MAX_HOSTS, MAX_PORTS, Vetter
from warpgate_core.errors import (
    NetworkError,
    PluginError,
    ProtocolError,
    RemoteError,
    StrategyError,
    VettingError,
    WarpgateError,
)
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import DatagramMux, Path, Pipe
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.keys import EphemeralKey, SessionKeys
from warpgate_core.session.messages import Message, MessageUse, SessionMessage
from warpgate_core.session.proof import PathProof
from warpgate_core.strategy import MAX_SECTION, Role, Strategy
from warpgate_core.tasks import TaskSet, cancel_within
from warpgate_core.trace import Phase, Trace

if TYPE_CHECKING:
    from warpgate_core.engine.engine import Engine
    from warpgate_core.signal.envelope import Sealed

__all__ = ["CONTRIBUTE_BOUND", "GRACE", "Session"]

_LOG = logging.getLogger("warpgate.session")

CONTRIBUTE_BOUND = 0.020  # s the offer or answer waits for sections; the rest follows by message
GRACE = 0.5  # s that a cancelled strategy has to release what it holds; then it is left behind, and said so
MAX_PATHS = 64  # candidate paths under proof per session; as many as endpoints may be named
MAX_NONCES = 256


class Session(ABC):
    """One end of one session.

    Args:
        engine: what it runs on.
        role: which end.
        session_id: 16 bytes; the first eight are the tag.
        peer: the peer's address as known now.
        transports: what the initiator accepts.
        strategies: name to class, those that take part.
    """

    def __init__(
        self,
        engine: Engine,
        role: Role,
        session_id: bytes,
        peer: NodeAddress,
        transports: frozenset[str],
        strategies: dict[str, type[Strategy]],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.engine = engine
        self.role = role
        self.session_id = session_id
        self.tag = session_id[:8]
        self.peer_key = peer.public_key
        self.peer_address = peer
        self.local = engine.address()
        self.transports = transports
        self.trace = Trace(loop.time, self.tag.hex())
        self.signal_round_trip: float | None = None
        self.keys: SessionKeys | None = None
        self.envelope: Sealed | None = None
        self.ephemeral = EphemeralKey()
        self.result: asyncio.Future[Pipe] = loop.create_future()
        self.result.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.failures: dict[str, StrategyError] = {}
        self.tasks = TaskSet(f"session {self.tag.hex()} ({role})")
        self._strategies = strategies
        self._attempts = {name: SessionAttempt(self, name) for name in strategies}
        self._contributions: dict[str, bytes] = {}
        self._heard_of: set[str] = set()
        self._contributed = asyncio.Event()
        self._go = asyncio.Event()
        self._strategy_tasks: dict[str, asyncio.Task[None]] = {}
        self._paths: list[CandidatePath] = []
        self._by_remote: dict[tuple[int, Endpoint], DatagramPath] = {}
        self._nonces: set[bytes] = set()
        self._beacons = Beacons()
        self._vetter = Vetter(engine.edge.interfaces, engine.infrastructure)
        self._vetted: dict[str, set[int]] = {}
        self._over = False

    # -- what the roles differ in ---------------------------------------------------------------

    @abstractmethod
    async def run(self) -> None:
        """Live from beginning to end. Sets `result`."""

    @abstractmethod
    def take_envelope(self, frame: Frame) -> None:
        """See `PathOwner`."""

    @abstractmethod
    def path_proven(self, path: CandidatePath) -> None:
        """See `PathOwner`."""

    @abstractmethod
    def path_nominated(self, path: CandidatePath) -> None:
        """See `PathOwner`."""

    @abstractmethod
    def strategy_ended(self, name: str) -> None:
        """A strategy's task has ended; its failure, if any, is in `failures`."""

    @abstractmethod
    def retire(self, name: str, transport: str) -> None:
        """See `Attempt.retire`."""

    @abstractmethod
    async def ready(self) -> None:
        """See `PathOwner`."""

    @abstractmethod
    async def peer_answered(self) -> None:
        """See `Attempt.peer_answered`."""

    @abstractmethod
    async def settled(self, name: str) -> None:
        """See `Attempt.settled`."""

    @abstractmethod
    async def delivered(self) -> None:
        """Wait until the peer knows the session. Raises StrategyError if signalling has failed."""

    @property
    @abstractmethod
    def both_checking(self) -> bool:
        """Whether the peer can be checking already, so that silence means something."""

    # -- strategies ------------------------------------------------------------------------------

    def start_strategies(self, starts: dict[str, float]) -> None:
        """Start every strategy's task: it contributes now, and runs after `go`."""
        for name, delay in starts.items():
            coro = self._run_strategy(name, delay)
            self._strategy_tasks[name] = self.tasks.start(coro, name)
        if not starts:
            self._contributed.set()

    async def sections(self) -> dict[str, bytes | None]:
        """Wait for the contributions, within the bound. None stands for what follows later."""
        try:
            async with asyncio.timeout(CONTRIBUTE_BOUND):
                await self._contributed.wait()
        except TimeoutError:
            self.trace.add("contribute", Phase.NOTE, "some sections follow later")
        waiting = [name for name in self._strategy_tasks if name not in self.failures]
        return {name: self._contributions.get(name) for name in waiting}

    def go(self) -> None:
        """The offer or answer is sealed: strategies may run."""
        self._go.set()

    async def _run_strategy(self, name: str, delay: float) -> None:
        attempt = self._attempts[name]
        try:
            strategy = self.engine.registry.create(name)
            try:
                await self._contribute(strategy, attempt)
                await self._go.wait()
                if delay:
                    await asyncio.sleep(delay)
                await strategy.run(attempt)
            finally:
                await strategy.close()
        except StrategyError as error:
            self.failures[name] = error if error.strategy else StrategyError(name, error.stage, error.detail)
        except WarpgateError as error:
            failure = StrategyError(name, attempt.stage, str(error))
            failure.__cause__ = error
            self.failures[name] = failure
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._over:
                raise
            _LOG.exception("strategy %s broke its contract", name)
            failure = StrategyError(name, attempt.stage, f"the plugin raised {error!r}")
            failure.__cause__ = error
            self.failures[name] = failure
        finally:
            self._has_contributed(name)
        if name in self.failures:
            self.trace.add("strategy", Phase.FAILED, self.failures[name].detail, strategy=name)
        self.strategy_ended(name)

    async def _contribute(self, strategy: Strategy, attempt: SessionAttempt) -> None:
        name = attempt.name
        section = await strategy.contribute(attempt)
        if not isinstance(section, bytes) or len(section) > MAX_SECTION:
            raise PluginError(
                f"contribute() must return at most {MAX_SECTION} bytes, it returned "
                f"{f'{len(section)} bytes' if isinstance(section, bytes) else type(section).__name__}"
            )
        late = self._go.is_set()
        self._contributions[name] = section
        self._has_contributed(name)
        if late:
            self.tasks.start(self._send_late_section(name, section), f"late section of {name}")

    def _has_contributed(self, name: str) -> None:
        self._heard_of.add(name)
        if self._heard_of >= self._strategy_tasks.keys():
            self._contributed.set()

    async def _send_late_section(self, name: str, section: bytes) -> None:
        try:
            await self.send_message(name, section, MessageUse.SECTION)
        except WarpgateError as error:
            self.trace.add("contribute", Phase.FAILED, f"section not delivered: {error}", strategy=name)

    def take_sections(self, sections: dict[str, bytes | None]) -> None:
        """The peer's sections are known."""
        for name, attempt in self._attempts.items():
            if attempt.section.done():
                continue
            if name not in sections:
                text = "the peer does not run this strategy"
                attempt.section.set_exception(StrategyError(name, "reading the peer's answer", text))
            elif (section := sections[name]) is not None:
                attempt.section.set_result(section)

    def sections_failed(self, error: StrategyError) -> None:
        """The peer's sections will never be known."""
        for attempt in self._attempts.values():
            if not attempt.section.done():
                attempt.section.set_exception(StrategyError(attempt.name, error.stage, error.detail))

    # -- messages --------------------------------------------------------------------------------

    async def send_message(self, name: str, data: bytes, use: MessageUse = MessageUse.DATA) -> None:
        """Send one message to the peer's same strategy. See `Attempt.send`."""
        await self.delivered()
        payload = Message(self.session_id, name, data, use).encode()
        try:
            sent = await self.engine.signal(self.peer_address, payload)
        except NetworkError as error:
            raise StrategyError(name, "signalling", str(error)) from error
        if not sent:
            raise StrategyError(name, "signalling", "the peer did not acknowledge a message in time")

    def on_message(self, message: Message) -> None:
        """A message of the peer's, verified."""
        attempt = self._attempts.get(message.strategy)
        if attempt is None:
            return
        match message.use:
            case MessageUse.DATA:
                if attempt.inbox.full():
                    self.trace.add("message", Phase.NOTE, "dropped, too many wait", strategy=attempt.name)
                else:
                    attempt.inbox.put_nowait(message.data)
            case MessageUse.SECTION:
                if not attempt.section.done():
                    attempt.section.set_result(message.data)
            case MessageUse.FAILED:
                text = message.data.decode("ascii", "replace")
                self.trace.add("strategy", Phase.FAILED, text, strategy=attempt.name, remote=True)
                self.peer_strategy_failed(attempt.name, text)

    @abstractmethod
    def peer_strategy_failed(self, name: str, text: str) -> None:
        """The peer's half of a strategy has given up."""

    # -- paths -----------------------------------------------------------------------------------

    def vet(self, endpoint: Endpoint) -> Endpoint:
        """See `Attempt.vet`."""
        self._vetter.check(endpoint)
        if endpoint.host not in self._vetted and len(self._vetted) >= MAX_HOSTS:
            raise VettingError(f"the peer named more than {MAX_HOSTS} hosts")
        ports = self._vetted.setdefault(endpoint.host, set())
        if endpoint.port not in ports and len(ports) >= MAX_PORTS:
            raise VettingError(f"the peer named more than {MAX_PORTS} ports of {endpoint.host}")
        ports.add(endpoint.port)
        return endpoint

    def fresh(self, nonce: bytes) -> bool:
        """Whether a path nonce is new in this session; remembers it."""
        if nonce in self._nonces or len(self._nonces) >= MAX_NONCES:
            return False
        self._nonces.add(nonce)
        return True

    def add_stream(
        self, link: StreamLink, strategy: str, kind: str, *, dialled: bool, first: Frame | None = None
    ) -> StreamPath:
        """Begin the proof of a TCP connection.

        Raises:
            ProtocolError: no such path is wanted; the connection is closed.
        """
        if "tcp" not in self.transports:
            link.close()
            raise ProtocolError("a TCP path was made, and the initiator accepts UDP only")
        if not self._has_room():
            link.close()
            raise ProtocolError("the session is over, or has too many paths")
        proof = self._proof(strategy, stream=True)
        path = StreamPath(self, proof, Path("tcp", link.local, link.remote, kind), link, dialled=dialled)  # type: ignore[arg-type]
        path.inbound = not dialled
        self._paths.append(path)
        self.tasks.start(path.drive(first), f"proof of {path.path}")
        return path

    def datagram_path(self, sock: DatagramSocket, remote: Endpoint, strategy: str, kind: str) -> DatagramPath:
        """The path from `sock` to `remote`, new if there is none yet.

        Raises:
            ProtocolError: no such path is wanted.
        """
        if "udp" not in self.transports:
            raise ProtocolError("a UDP path was made, and the initiator accepts TCP only")
        known = self._by_remote.get((id(sock), remote))
        if known is not None and not known.closed:
            return known
        if not self._has_room():
            raise ProtocolError("the session is over, or has too many paths")
        path = self._new_datagram_path(sock, remote, strategy, kind)
        self._enter(path)
        return path

    def _new_datagram_path(
        self, sock: DatagramSocket, remote: Endpoint, strategy: str, kind: str
    ) -> DatagramPath:
        nonce = self._beacons.nonce(sock, remote)
        proof = self._proof(strategy, stream=False, nonce=nonce)
        path = DatagramPath(self, proof, Path("udp", sock.local, remote, kind), sock)  # type: ignore[arg-type]
        if nonce is not None and strategy in self._attempts:
            path.when_proven(self._attempts[strategy].discover)
        return path

    def send_beacon(self, name: str, sock: DatagramSocket, remote: Endpoint) -> None:
        """See `Attempt.beacon`.

        Raises:
            PluginError: too early, too many or too fast.
        """
        if self.keys is None:
            raise PluginError("a beacon before the peer has answered; await attempt.peer_answered() first")
        if self._over or "udp" not in self.transports:
            return
        now = asyncio.get_running_loop().time()
        nonce = self._beacons.send(sock, remote, secrets.token_bytes(12), now)
        frame = Frame(FrameKind.CHECK, self.tag, nonce, strategy=name, wants_reply=True)
        sock.send(frame.signed(self.keys.of(self.role), stream=False).encode(), remote)

    def _enter(self, path: DatagramPath) -> None:
        self._paths.append(path)
        self._by_remote[(id(path.sock), path.path.remote)] = path

    def _has_room(self) -> bool:
        """Whether one more path may be under proof. The oldest that a stranger may have begun makes room."""
        if self._over:
            return False
        self._paths = [path for path in self._paths if not path.closed]
        if len(self._paths) >= MAX_PATHS:
            oldest = next((path for path in self._paths if path.inbound and not path.proof.proven), None)
            if oldest is None:
                return False
            oldest.close()
            self._paths.remove(oldest)
        self._by_remote = {key: path for key, path in self._by_remote.items() if not path.closed}
        return True

    def _proof(self, strategy: str, *, stream: bool, nonce: bytes | None = None) -> PathProof:
        envelope = self.envelope.data if self.envelope is not None else b""
        return PathProof(
            self.role,
            self.tag,
            nonce or secrets.token_bytes(12),
            strategy,
            stream=stream,
            envelope=envelope,
            fresh=self.fresh,
            keys=self.keys,
        )

    def on_any(self, message: SessionMessage, payload: bytes) -> None:
        """Any message of this session, signed by the peer."""
        if isinstance(message, Message):
            self.on_message(message)
        else:
            self.on_signal(message, payload)

    @abstractmethod
    def on_signal(self, message: SessionMessage, payload: bytes) -> None:
        """Any other message than a strategy's."""

    def verify_offer(self, frame: Frame) -> None:
        """Insist that the offer in a frame is the one this session was made of. Raises RemoteError."""
        raise ProtocolError("an offer sent to the initiator")

    def on_stream(self, link: StreamLink, first: Frame) -> None:
        """A connection that the peer made, with its first frame.

        Raises:
            RemoteError: it proves nothing.
        """
        if first.kind is FrameKind.OFFER:
            self.verify_offer(first)
        kind = self.kind_of(link.remote)
        self.add_stream(link, self.strategy_of(first), kind, dialled=False, first=first)

    def on_frame(self, frame: Frame, remote: Endpoint, sock: DatagramSocket, size: int) -> None:
        """A datagram with this session's tag. What proves nothing changes nothing."""
        if self._over:
            return
        path = self._by_remote.get((id(sock), remote))
        try:
            if frame.kind is FrameKind.OFFER:
                self.verify_offer(frame)
            if path is not None and not path.closed:
                path.take(frame, size)
            elif self._may_begin(frame) and "udp" in self.transports and self._has_room():
                kind = "relay" if sock.is_relay else self.kind_of(remote)
                fresh = self._new_datagram_path(sock, remote, self.strategy_of(frame), kind)
                fresh.inbound = True
                self._enter(fresh)
                try:
                    fresh.take(frame, size)
                except WarpgateError:
                    fresh.close()
                    raise
                asks = self.role is Role.INITIATOR or self._beacons.nonce(sock, remote) is not None
                if asks and not fresh.proof.proven:
                    fresh.expire()
                    fresh.start()
        except RemoteError as error:
            self.trace.add("check", Phase.NOTE, f"{remote}: {error}")

    def _may_begin(self, frame: Frame) -> bool:
        """Whether a frame from where none came before makes a path.

        Also a PROBE: it is the first to come from a NAT that maps per destination, whose port nobody knew,
        and it says no less about who sent it than an OFFER that was overheard.
        """
        return frame.kind is not FrameKind.PROBE or self.role is Role.RESPONDER

    def strategy_of(self, frame: Frame) -> str:
        """To whom a path belongs that the peer began."""
        return frame.strategy if frame.strategy in self._strategies else next(iter(self._strategies))

    def kind_of(self, remote: Endpoint) -> str:
        """Candidate kind of an endpoint that we were reached from."""
        for face in self.peer_address.interfaces:
            if remote.host == face.internal.host:
                return "host"
            if face.external is not None and remote.host == face.external.host:
                return "srflx"
        return "prflx"

    def path_lost(self, path: CandidatePath, error: WarpgateError) -> None:
        """See `PathOwner`."""
        if not self._over:
            self.trace.add("prove", Phase.FAILED, str(error), strategy=path.strategy)

    def mux(self, sock: DatagramSocket, remote: Endpoint) -> DatagramMux:
        """See `PathOwner`."""
        return self.engine.mux(sock, remote)

    def channel_in_use(self, sock: DatagramSocket, remote: Endpoint, channel: int) -> bool:
        """See `PathOwner`."""
        return self.engine.channel_in_use(sock, remote, channel)

    def settled_on(self, path: DatagramPath, pipe: Pipe) -> None:
        """See `PathOwner`."""
        self.engine.settled_on(self.tag, path, pipe)

    @property
    def parity(self) -> int:
        """See `PathOwner`: the lower key has the even channels."""
        return 0 if self.engine.identity.public_key < self.peer_key else 1

    def unlock(self, keys: SessionKeys) -> None:
        """Both ends share a secret from now on."""
        self.keys = keys
        envelope = self.envelope.data if self.role is Role.RESPONDER and self.envelope is not None else None
        for path in self._paths:
            if not path.closed:
                path.unlock(keys, envelope)

    # -- the end ---------------------------------------------------------------------------------

    async def wind_up(self, winner: CandidatePath | None) -> None:
        """Cancel every strategy, close every path but the winner. Bounded by `GRACE`."""
        self._over = True
        for path in self._paths:
            if path is not winner:
                path.close()
        stubborn = await cancel_within(set(self._strategy_tasks.values()), GRACE)
        for task in stubborn:
            _LOG.error("%s ignored its cancellation for %.1f s and is left behind", task.get_name(), GRACE)
            self.engine.abandon(task)
            self.tasks.disown(task)
        await self.tasks.close()
        self._beacons.clear()
        self._paths.clear()
        self._by_remote.clear()
