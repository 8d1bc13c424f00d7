"""The candidate paths of one session: which there are, how many there may be, and what comes in for them.

Apart from `Session`, which runs the strategies: a path may be begun by a strategy of ours or by a frame of
the peer's, and the rules for both (accepted transports, bounds, vetting, fresh nonces) are in one place.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.beacons import Beacons
from warpgate_core.engine.paths import CandidatePath, DatagramPath, StreamPath
from warpgate_core.engine.vetting import MAX_HOSTS, MAX_PORTS, Vetter
from warpgate_core.errors import PluginError, ProtocolError, RemoteError, VettingError, WarpgateError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import DatagramMux, Path, Pipe
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.keys import SessionKeys
from warpgate_core.session.proof import PathProof
from warpgate_core.strategy import Role
from warpgate_core.tasks import TaskSet
from warpgate_core.trace import Phase, Trace

if TYPE_CHECKING:
    from warpgate_core.engine.engine import Engine
    from warpgate_core.signal.envelope import Sealed

__all__ = ["MAX_NONCES", "MAX_PATHS", "PathTable"]

MAX_PATHS = 64  # candidate paths under proof per session; twice as many as hosts may be named
MAX_NONCES = 256  # of the peer's ends of streams: four times as many as there may be paths


class PathTable(ABC):
    """The paths of one session; is the `PathOwner` of each.

    Args:
        engine: what it runs on.
        role: which end.
        session_id: 16 bytes; the first eight are the tag.
        peer: the peer's address as known now.
        transports: what the initiator accepts.
        names: of the strategies that take part.
    """

    def __init__(
        self,
        engine: Engine,
        role: Role,
        session_id: bytes,
        peer: NodeAddress,
        transports: frozenset[str],
        names: Iterable[str],
    ) -> None:
        self.engine = engine
        self.role = role
        self.tag = session_id[:8]
        self.peer_key = peer.public_key
        self.peer_address = peer
        self.transports = transports
        self.trace = Trace(asyncio.get_running_loop().time, self.tag.hex())
        self.keys: SessionKeys | None = None
        self.envelope: Sealed | None = None
        self.tasks = TaskSet(f"session {self.tag.hex()} ({role})")
        self._names = tuple(names)
        self._paths: list[CandidatePath] = []
        self._by_remote: dict[tuple[int, Endpoint], DatagramPath] = {}
        self._beacons = Beacons()
        self._nonces: set[bytes] = set()
        self._vetter = Vetter(engine.edge.interfaces, engine.infrastructure)
        self._vetted: dict[str, set[int]] = {}
        self._over = False

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
    async def ready(self) -> None:
        """See `PathOwner`."""

    @abstractmethod
    def beacon_answered(self, strategy: str, path: DatagramPath) -> None:
        """A path was made by the answer to a beacon of this strategy's."""

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
        if nonce is not None:
            self.beacon_answered(strategy, path)
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
        return frame.strategy if frame.strategy in self._names else self._names[0]

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

    def close_paths(self, winner: CandidatePath | None) -> None:
        """Take no more, and close all but the winner."""
        self._over = True
        for path in self._paths:
            if path is not winner:
                path.close()

    def forget_paths(self) -> None:
        """The session is over."""
        self._beacons.clear()
        self._paths.clear()
        self._by_remote.clear()
