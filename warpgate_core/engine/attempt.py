"""The `Attempt` that strategies are given: a narrow, bounded view of one session."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, StrategyError, VettingError
from warpgate_core.net.edge import DatagramSocket, LentSocket, LocalInterface, TcpMapping
from warpgate_core.net.stream import StreamLink
from warpgate_core.pipe import Path
from warpgate_core.session.proof import ProofState
from warpgate_core.strategy import MAX_SECTION, Attempt
from warpgate_core.trace import Phase

if TYPE_CHECKING:
    from warpgate_core.engine.session import Session

__all__ = ["SessionAttempt"]

DIAL_WINDOW = 8.0  # s for a TCP connection: SYNs at 0, 1, 3 and 7 s (RFC 6298 section 5) and a second more
SILENT = "{} did not answer: it is off, or a firewall drops what we send"
INBOX = 32  # messages; a strategy that needs more round trips than this has no bound to reach


class SessionAttempt(Attempt):
    """See `Attempt` for what each method promises."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.role = session.role
        self.name = name
        self.local = session.local
        self.transports = session.transports
        self.tag = session.tag
        self.stage = "starting"
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue(INBOX)
        self.section: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._found: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        self.section.add_done_callback(lambda future: future.cancelled() or future.exception())

    @property
    def peer(self) -> NodeAddress:
        """See `Attempt`."""
        return self._session.peer_address

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """See `Attempt`."""
        return self._session.engine.edge.interfaces

    @property
    def sockets(self) -> tuple[DatagramSocket, ...]:
        """See `Attempt`."""
        return self._session.engine.edge.sockets

    @property
    def round_trip(self) -> float | None:
        """See `Attempt`."""
        return self._session.signal_round_trip

    def now(self) -> float:
        """See `Attempt`."""
        return asyncio.get_running_loop().time()

    def note(self, step: str, detail: str = "", phase: Phase | None = None) -> None:
        """See `Attempt`."""
        self.stage = f"{step} {detail}".strip()
        self._session.trace.add(step, phase or Phase.NOTE, detail, strategy=self.name)

    async def peer_section(self) -> bytes:
        """See `Attempt`."""
        self.stage = "waiting for the peer's answer"
        return await asyncio.shield(self.section)

    async def peer_answered(self) -> None:
        """See `Attempt`."""
        self.stage = "waiting for the peer's answer"
        await self._session.peer_answered()

    async def send(self, data: bytes) -> None:
        """See `Attempt`."""
        if len(data) > MAX_SECTION:
            raise StrategyError(self.name, "sending", f"a message of {len(data)} bytes is over {MAX_SECTION}")
        await self._session.send_message(self.name, data)

    async def receive(self) -> bytes:
        """See `Attempt`."""
        return await self.inbox.get()

    def vet(self, endpoint: Endpoint) -> Endpoint:
        """See `Attempt`."""
        return self._session.vet(endpoint)

    async def dial(self, remote: Endpoint, *, local: Endpoint | None = None, kind: str = "host") -> Path:
        """See `Attempt`."""
        self.vet(remote)
        self.note("dial", str(remote), Phase.STARTED)
        self.stage = f"dialling {remote}"
        try:
            async with asyncio.timeout(DIAL_WINDOW):
                link = await self.open_stream(remote, local=local)
        except (NetworkError, TimeoutError) as failure:
            error = failure if isinstance(failure, NetworkError) else NetworkError(SILENT.format(remote))
            self.note("dial", str(error), Phase.FAILED)
            raise error from failure.__cause__
        self._session.trace.add("dial", Phase.COMPLETE, str(remote), strategy=self.name)
        return await self.prove_stream(link, kind=kind)

    async def open_stream(self, remote: Endpoint, *, local: Endpoint | None = None) -> StreamLink:
        """See `Attempt`."""
        return await self._session.engine.edge.dial(self.vet(remote), local=local)

    def tcp_mapping(self, local: Endpoint) -> AbstractAsyncContextManager[TcpMapping]:
        """See `Attempt`."""
        return self._session.engine.edge.tcp_mapping(local)

    async def prove_stream(self, link: StreamLink, *, kind: str = "host") -> Path:
        """See `Attempt`."""
        path = self._session.add_stream(link, self.name, kind, dialled=True)
        try:
            return await path.wait_proven()
        except BaseException:
            path.close()
            raise

    def accept_stream(self, link: StreamLink) -> None:
        """See `Attempt`: as if it had come in at the node's own listener."""
        accept = self._session.engine.edge.on_stream
        if accept is None:
            link.abort()
        else:
            accept(link)

    def accept_datagram(self, data: bytes, remote: Endpoint, sock: DatagramSocket) -> None:
        """See `Attempt`: as if it had come in at one of the node's own sockets."""
        accept = self._session.engine.edge.on_datagram
        if accept is not None:
            accept(data, remote, sock)

    async def check(
        self, remote: Endpoint, *, sock: DatagramSocket | None = None, kind: str = "host", hops: int = 0
    ) -> Path:
        """See `Attempt`."""
        self.vet(remote)
        sock = sock or self._session.engine.edge.socket_for(remote)
        if sock is None:
            raise VettingError(f"this node has no UDP socket for {remote}")
        path = self._session.datagram_path(sock, remote, self.name, kind)
        self.note("check", f"{remote} from {sock.local}", Phase.STARTED)
        self.stage = f"checking {remote}"
        path.start(hops)
        if self._session.both_checking:
            path.expire()
        try:
            return await path.wait_proven()
        except asyncio.CancelledError:
            if path.proof.state is ProofState.OPEN:  # else the peer may have proven it, and choose it
                path.close()
            raise

    async def open_socket(self, local: Endpoint) -> LentSocket:
        """See `Attempt`."""
        return await self._session.engine.edge.open_socket(local)

    async def mapped(self, sock: LentSocket) -> Endpoint:
        """See `Attempt`."""
        return await self._session.engine.edge.mapped(sock)

    def beacon(self, remote: Endpoint, *, sock: DatagramSocket | None = None) -> None:
        """See `Attempt`."""
        self.vet(remote)
        sock = sock or self._session.engine.edge.socket_for(remote)
        if sock is None:
            raise VettingError(f"this node has no UDP socket for {remote}")
        self._session.send_beacon(self.name, sock, remote)

    def discover(self, path: Path) -> None:
        """A beacon was answered, and the path is proven."""
        if not self._found.done():
            self._found.set_result(path)

    async def found(self) -> Path:
        """See `Attempt`."""
        return await asyncio.shield(self._found)

    def retire(self, transport: str) -> None:
        """See `Attempt`."""
        self._session.retire(self.name, transport)

    async def settled(self) -> None:
        """See `Attempt`."""
        self.stage = "waiting for the peer to come"
        await self._session.settled(self.name)
