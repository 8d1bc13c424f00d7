"""All sessions of one node: the table, the dispatch, the policy.

The order of checks on what comes in is the order of their cost, and nothing is sent, dialled or allocated
for a stranger: first byte, length, tag, then (once per message id) the seal and signature, then replay,
accept policy, limits. Only after that does a session exist.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable

from warpgate_core.address import NodeAddress
from warpgate_core.config import Limits
from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.initiator import InitiatorSession
from warpgate_core.engine.paths import DatagramPath, read_frame
from warpgate_core.engine.responder import ResponderSession
from warpgate_core.engine.session import Session
from warpgate_core.errors import (
    InputError,
    NoBrokerError,
    NodeClosedError,
    ProtocolError,
    RemoteError,
    WarpgateError,
)
from warpgate_core.identity import Identity
from warpgate_core.net.edge import DatagramSocket, Edge
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import DatagramMux, Pipe
from warpgate_core.registry import Registry
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.messages import Offer, Refusal, RefusalCode, SessionMessage, decode
from warpgate_core.signal.envelope import Envelope, EnvelopeCodec, MessageType, Sealed
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT, Signaller
from warpgate_core.strategy import Strategy
from warpgate_core.tasks import TaskSet

__all__ = ["Engine"]

_LOG = logging.getLogger("warpgate.engine")

HELLO_TIMEOUT = 10.0  # s for the first frame on an accepted connection: three retransmitted SYNs' worth
MAX_HELLOS = 256  # accepted connections that have not said who they are
TOMBSTONES = 1_024  # tags of past sessions, whose late frames are dropped without opening an envelope
MAX_HISTORY = 256  # peers whose last winning strategy is remembered

REFUSALS = {
    RefusalCode.OTHER: "",
    RefusalCode.POLICY: "its accept policy does not admit this key",
    RefusalCode.BUSY: "it has too many sessions under way; try again later",
    RefusalCode.NO_COMMON_STRATEGY: "it runs none of the strategies that were offered",
    RefusalCode.VERSION: "it speaks another version of the protocol",
    RefusalCode.CLOSING: "it is shutting down",
}


class Engine:
    """Sessions of one node.

    Args:
        identity: who we are.
        codec: seals and opens, with the same identity.
        guard: replay protection, shared with the router.
        edge: the network; its callbacks are set here.
        signaller: None if there is no broker; direct connections still work.
        registry: strategies.
        limits: see `Limits`.
        accepts: policy: may this public key (33 bytes) open a session with us?
        address: gives this node's address now.
        on_pipe: called with each pipe that a peer opened.
        infrastructure: own servers, which a peer must not make us dial.
        get_time: wall clock, for replay protection.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        codec: EnvelopeCodec,
        guard: ReplayGuard,
        edge: Edge,
        signaller: Signaller | None,
        registry: Registry,
        limits: Limits,
        accepts: Callable[[bytes], bool],
        address: Callable[[], NodeAddress],
        on_pipe: Callable[[Pipe], None],
        infrastructure: frozenset[Endpoint] = frozenset(),
        get_time: Callable[[], float],
    ) -> None:
        self.identity = identity
        self.codec = codec
        self.edge = edge
        self.registry = registry
        self.address = address
        self.infrastructure = infrastructure
        self._guard = guard
        self._signaller = signaller
        self._limits = limits
        self._accepts = accepts
        self._on_pipe = on_pipe
        self._get_time = get_time
        self._sessions: dict[bytes, InitiatorSession | ResponderSession] = {}
        self._per_peer: dict[bytes, int] = {}
        self._tombstones: OrderedDict[bytes, None] = OrderedDict()
        self._history: OrderedDict[bytes, str] = OrderedDict()
        self._settled: dict[bytes, DatagramPath] = {}
        self._muxes: dict[tuple[int, Endpoint], DatagramMux] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._hellos: set[StreamLink] = set()
        self._tasks = TaskSet("engine")
        self._closed = False
        edge.on_stream = self._on_stream
        edge.on_datagram = self._on_datagram
        if signaller is not None:
            signaller.on_envelope = self._on_envelope

    # -- what the node asks for ------------------------------------------------------------------

    async def connect(
        self,
        peer: NodeAddress,
        strategies: Iterable[type[Strategy]],
        *,
        timeout: float,
        patience: float,
        transports: frozenset[str],
        watch: Callable[[Session], None] | None = None,
    ) -> Pipe:
        """Open a session as initiator and return its pipe.

        Args:
            peer: whom to reach.
            strategies: those that may take part.
            timeout: seconds until it is given up.
            patience: seconds for which a relay is held back at most.
            transports: what is acceptable, a subset of {"tcp", "udp"}.
            watch: called with the session before it starts, e.g. to watch its trace.

        Raises:
            ConnectError: no pipe came about.
            NodeClosedError: the node is closed, or closes meanwhile.
            InputError: the peer is this node itself.
        """
        if self._closed:
            raise NodeClosedError("the node is closed")
        if peer.public_key == self.identity.public_key:
            raise InputError("this address is the node's own; there is nobody else to connect to")
        session = InitiatorSession(
            self,
            peer,
            transports,
            {cls.spec.name: cls for cls in strategies if cls.spec.transports & transports},
            timeout=timeout,
            patience=patience,
            last_winner=self._history.get(peer.public_key),
        )
        if watch is not None:
            watch(session)
        task = self._enter(session)
        try:
            pipe = await asyncio.shield(session.result)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if not session.result.cancelled() and session.result.exception() is None:
                await session.result.result().close()
            raise
        self._remember(peer.public_key, pipe.strategy)
        return pipe

    async def close(self) -> None:
        """End every session and wait until all of it has ended. Pipes stay with their owners."""
        self._closed = True
        for link in tuple(self._hellos):
            link.abort()
        await self._tasks.close()

    @property
    def sessions(self) -> int:
        """How many sessions are under way."""
        return len(self._sessions)

    @property
    def abandoned(self) -> int:
        """How many strategies ignored their cancellation and still run."""
        return len(self._abandoned)

    # -- what sessions ask for -------------------------------------------------------------------

    def seal(self, recipient: bytes, payload: bytes) -> Sealed:
        """Seal a session message. Of type CONTROL, so that no application message is mistaken for one."""
        return self.codec.seal(recipient, payload, type=MessageType.CONTROL)

    async def deliver(self, peer: NodeAddress, sealed: Sealed, timeout: float = DELIVERY_TIMEOUT) -> bool:
        """Carry a sealed message to a peer through signalling.

        Raises:
            NetworkError: there is no broker to try.
        """
        if self._signaller is None:
            raise NoBrokerError("no broker is configured; set WARPGATE_BROKERS or NodeConfig(brokers=...)")
        return await self._signaller.deliver(peer.public_key, sealed, peer.hints, timeout)

    def skew(self, peer: bytes) -> float:
        """Seconds that a peer's clock is ahead of ours; 0.0 if that is not known."""
        return (self._signaller.skew(peer) if self._signaller is not None else None) or 0.0

    async def signal(self, peer: NodeAddress, payload: bytes) -> bool:
        """Seal and deliver a session message."""
        return await self.deliver(peer, self.seal(peer.public_key, payload))

    def signal_soon(self, peer: NodeAddress, payload: bytes) -> None:
        """Seal and deliver in the background, as far as it goes."""
        if self._signaller is not None and not self._closed:
            self._tasks.start(self._signal_quietly(peer, payload), "goodbye")

    async def _signal_quietly(self, peer: NodeAddress, payload: bytes) -> None:
        try:
            await self.signal(peer, payload)
        except WarpgateError as error:
            _LOG.debug("a goodbye was not delivered: %s", error)

    def abandon(self, task: asyncio.Task[None]) -> None:
        """Keep a task that ignored its cancellation, so that it is not lost sight of."""
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def mux(self, sock: DatagramSocket, remote: Endpoint) -> DatagramMux:
        """What tells the UDP pipes between two endpoints apart; made for the first of them."""
        key = (id(sock), remote)
        if key not in self._muxes:
            self._muxes[key] = DatagramMux(
                sock,
                remote,
                other=lambda data: self._on_datagram(data, remote, sock),
                idle=lambda: self._forget_mux(key),
            )
        return self._muxes[key]

    def _forget_mux(self, key: tuple[int, Endpoint]) -> None:
        self._muxes.pop(key, None)

    def channel_in_use(self, sock: DatagramSocket, remote: Endpoint, channel: int) -> bool:
        """Whether a UDP pipe is open there."""
        mux = self._muxes.get((id(sock), remote))
        return mux is not None and mux.in_use(channel)

    def settled_on(self, tag: bytes, path: DatagramPath, pipe: Pipe) -> None:
        """Frames of this session belong to a pipe now, for as long as it is open."""
        self._settled[tag] = path
        pipe.add_close_callback(lambda _: self._unsettle(tag))

    def _unsettle(self, tag: bytes) -> None:
        path = self._settled.pop(tag, None)
        if path is not None:
            path.retire()

    # -- sessions --------------------------------------------------------------------------------

    def _enter(self, session: InitiatorSession | ResponderSession) -> asyncio.Task[None]:
        self._sessions[session.tag] = session
        self._per_peer[session.peer_key] = self._per_peer.get(session.peer_key, 0) + 1
        return self._tasks.start(self._live(session), f"session {session.tag.hex()}")

    async def _live(self, session: InitiatorSession | ResponderSession) -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session.tag, None)
            self._per_peer[session.peer_key] -= 1
            if not self._per_peer[session.peer_key]:
                del self._per_peer[session.peer_key]
            self._tombstones[session.tag] = None
            if len(self._tombstones) > TOMBSTONES:
                self._tombstones.popitem(last=False)

    def _remember(self, peer: bytes, strategy: str) -> None:
        self._history[peer] = strategy
        self._history.move_to_end(peer)
        if len(self._history) > MAX_HISTORY:
            self._history.popitem(last=False)

    def _respond(
        self, offer: Offer, envelope: Envelope, sealed: bytes | None
    ) -> ResponderSession | RefusalCode:
        """Make a session for a verified offer, or say why not."""
        if self._closed:
            return RefusalCode.CLOSING
        if not self._accepts(envelope.sender):
            return RefusalCode.POLICY
        if (
            len(self._sessions) >= self._limits.max_sessions
            or self._per_peer.get(envelope.sender, 0) >= self._limits.max_sessions_per_peer
        ):
            return RefusalCode.BUSY
        peer = NodeAddress.decode(offer.address)
        if peer.public_key != envelope.sender:
            raise ProtocolError("the offer holds somebody else's address")
        mine = self.registry.strategies
        common = {name: mine[name] for name in offer.sections if name in mine}
        if not common:
            return RefusalCode.NO_COMMON_STRATEGY
        session = ResponderSession(self, offer, envelope.payload, sealed, peer, common)
        session.result.add_done_callback(self._on_result)
        self._enter(session)
        return session

    def _on_result(self, future: asyncio.Future[Pipe]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._on_pipe(future.result())

    def _refuse(self, offer: Offer, envelope: Envelope, code: RefusalCode) -> Sealed:
        digest = hashlib.sha256(envelope.payload).digest()
        payload = Refusal(offer.session, digest, code, REFUSALS[code]).encode()
        return self.seal(envelope.sender, payload)

    # -- what comes in ---------------------------------------------------------------------------

    def _on_envelope(self, envelope: Envelope) -> bool:
        """From the router: verified, fresh, not a replay. What is not ours is the application's."""
        if envelope.type is not MessageType.CONTROL:
            return False
        try:
            message = decode(envelope.payload)
            self._dispatch(message, envelope)
        except RemoteError as error:
            _LOG.debug("dropped a message of %s: %s", envelope.sender.hex()[:12], error)
        except WarpgateError as error:
            _LOG.debug("refused a message of %s: %s", envelope.sender.hex()[:12], error)
        return True

    def _dispatch(self, message: SessionMessage, envelope: Envelope) -> None:
        if self._closed:
            return
        session = self._sessions.get(message.session[:8])
        if session is not None:
            if session.peer_key == envelope.sender and session.session_id == message.session:
                session.on_any(message, envelope.payload)
            return
        if isinstance(message, Offer) and message.session[:8] not in self._tombstones:
            made = self._respond(message, envelope, None)
            if isinstance(made, RefusalCode):
                self._tasks.start(self._send_refusal(message, envelope, made), "refusal")

    async def _send_refusal(self, offer: Offer, envelope: Envelope, code: RefusalCode) -> None:
        if self._limits.silent_refusals or code is RefusalCode.CLOSING:
            return
        try:
            peer = NodeAddress.decode(offer.address)
            await self.deliver(peer, self._refuse(offer, envelope, code))
        except WarpgateError as error:
            _LOG.debug("a refusal was not delivered: %s", error)

    def _on_datagram(self, data: bytes, remote: Endpoint, sock: DatagramSocket) -> None:
        """From the edge: a datagram that is not STUN and belongs to no pipe."""
        try:
            if self._closed:
                return
            frame = Frame.decode(data)
            settled = self._settled.get(frame.tag)
            if settled is not None:
                if settled.sock is sock and settled.path.remote == remote:
                    settled.after(frame, len(data))
                return
            session = self._sessions.get(frame.tag)
            if session is None:
                made = self._from_path(frame)
                if isinstance(made, Frame):
                    refusal = made.encode()
                    if len(refusal) <= len(data):
                        sock.send(refusal, remote)
                    return
                session = made
            if session is not None:
                session.on_frame(frame, remote, sock, len(data))
        except WarpgateError as error:
            _LOG.debug("dropped a datagram from %s: %s", remote, error)

    def _on_stream(self, link: StreamLink) -> None:
        """From the edge: an accepted connection, which must say who it is."""
        if self._closed or len(self._hellos) >= MAX_HELLOS:
            link.abort()
            return
        self._hellos.add(link)
        self._tasks.start(self._welcome(link), "hello")

    async def _welcome(self, link: StreamLink) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                frame = await read_frame(link)
            session = self._sessions.get(frame.tag)
            if session is None:
                made = self._from_path(frame)
                if isinstance(made, Frame):
                    link.write(made.encode())
                session = made if isinstance(made, Session) else None
            if session is None:
                link.close()
            else:
                session.on_stream(link, frame)
        except (WarpgateError, TimeoutError) as error:
            _LOG.debug("dropped a connection from %s: %s", link.remote, error)
            link.abort()
        except asyncio.CancelledError:
            link.abort()
            raise
        finally:
            self._hellos.discard(link)

    def _from_path(self, frame: Frame) -> ResponderSession | Frame | None:
        """A frame of no session we know: an offer makes one, or gives the refusal to send back."""
        if frame.kind is not FrameKind.OFFER or self._closed or frame.tag in self._tombstones:
            return None
        envelope = self.codec.open(frame.envelope)
        if envelope.type is not MessageType.CONTROL:
            raise ProtocolError("the envelope in an OFFER frame is an application's message")
        offer = decode(envelope.payload)
        if not isinstance(offer, Offer) or offer.session[:8] != frame.tag:
            raise ProtocolError("the envelope in an OFFER frame holds no offer of that session")
        self._guard.check_and_add(envelope.message_id, envelope.timestamp, self._get_time())
        made = self._respond(offer, envelope, frame.envelope)
        if not isinstance(made, RefusalCode):
            return made
        if self._limits.silent_refusals:
            return None
        sealed = self._refuse(offer, envelope, made)
        return Frame(FrameKind.REFUSAL, frame.tag, bytes(12), frame.nonce, envelope=sealed.data)
