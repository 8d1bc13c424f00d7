"""The end that was asked."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.paths import CandidatePath
from warpgate_core.engine.session import Session
from warpgate_core.errors import NetworkError, NodeClosedError, ProtocolError, StrategyError, WarpgateError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.race.plan import plan_race
from warpgate_core.session.frames import Frame
from warpgate_core.session.keys import derive
from warpgate_core.session.messages import Answer, End, MessageUse, Offer, SessionMessage
from warpgate_core.strategy import Role, Strategy
from warpgate_core.tasks import finish
from warpgate_core.trace import Phase

if TYPE_CHECKING:
    from warpgate_core.engine.engine import Engine

__all__ = ["ResponderSession"]

MAX_TIMEOUT = 60.0  # s that an initiator may keep a session of ours alive
EARLY = 16  # datagrams kept until the answer exists, some 20 ms
LATE = (
    5.0  # s added to the initiator's own time-out: its last word may be retransmitted three times (RFC 6298)
)


class ResponderSession(Session):
    """See `Session`.

    Args:
        offer: what the initiator proposes, verified and accepted by policy.
        payload: the offer's bytes, for the transcript.
        envelope: the offer as it came over a path, sealed; None if it came through signalling.
    """

    def __init__(
        self,
        engine: Engine,
        offer: Offer,
        payload: bytes,
        envelope: bytes | None,
        peer: NodeAddress,
        strategies: dict[str, type[Strategy]],
    ) -> None:
        super().__init__(engine, Role.RESPONDER, offer.session, peer, offer.transports, strategies)
        self._offer = offer
        self._payload = payload
        self._offer_envelope = envelope
        self._early: list[tuple[Frame, Endpoint, DatagramSocket, int]] = []
        self._ready = asyncio.Event()
        self._winner: CandidatePath | None = None
        self.trace.add("offer", Phase.COMPLETE, f"from {peer.public_key.hex()[:12]}")

    async def run(self) -> None:
        """See `Session`. Sets `result` to the pipe, or to an error that nobody need read."""
        try:
            async with asyncio.timeout(min(self._offer.timeout, MAX_TIMEOUT) + LATE):
                await self._begin()
                await asyncio.wait([self.result])
        except TimeoutError:
            self._fail("the initiator chose no path in time")
        except WarpgateError as error:
            self._fail(str(error))
        finally:
            if not self.result.done():
                self.result.set_exception(NodeClosedError("the session was cancelled"))
            await finish(self.wind_up(self._winner))

    def _fail(self, text: str) -> None:
        if not self.result.done():
            self.trace.add("session", Phase.FAILED, text)
            self.result.set_exception(NetworkError(text))

    async def _begin(self) -> None:
        self.take_sections(self._offer.sections)
        plan = plan_race(
            self._strategies.values(),
            self.role,
            self.local,
            self.peer_address,
            self.transports,
            patience=0.0,
        )
        self.start_strategies(plan.starts)
        sections = await self.sections()
        answer = Answer(
            self.session_id,
            hashlib.sha256(self._payload).digest(),
            self.ephemeral.public,
            self.local.encode(),
            sections,
        ).encode()
        shared = self.ephemeral.exchange(self._offer.ephemeral)
        keys = derive(shared, self._payload, answer, self.peer_key, self.engine.identity.public_key)
        self.envelope = self.engine.seal(self.peer_key, answer)
        self.unlock(keys)
        self.trace.add("answer", Phase.COMPLETE, f"{len(answer)} bytes")
        self._ready.set()
        early, self._early = self._early, []
        for frame, remote, sock, size in early:
            self.on_frame(frame, remote, sock, size)
        self.tasks.start(self._signal_answer(), "answer")
        self.go()

    async def _signal_answer(self) -> None:
        assert self.envelope is not None
        try:
            sent = await self.engine.deliver(self.peer_address, self.envelope)
            error = "the initiator did not acknowledge the answer"
        except NetworkError as failure:
            sent, error = False, str(failure)
        self.trace.add("signal", Phase.COMPLETE if sent else Phase.FAILED, "" if sent else error)
        if sent:
            for path in self._paths:
                path.proof.peer_has_answer = True

    async def ready(self) -> None:
        """See `PathOwner`."""
        await self._ready.wait()

    def verify_offer(self, frame: Frame) -> None:
        """See `Session`."""
        if self._offer_envelope is None:
            envelope = self.engine.codec.open(frame.envelope)
            if (envelope.sender, envelope.payload) != (self.peer_key, self._payload):
                raise ProtocolError("another offer under this session's tag")
            self._offer_envelope = frame.envelope
        elif self._offer_envelope != frame.envelope:
            raise ProtocolError("another offer under this session's tag")

    def on_frame(self, frame: Frame, remote: Endpoint, sock: DatagramSocket, size: int) -> None:
        """See `Session`. What comes before the answer exists waits for it."""
        if self._ready.is_set():
            super().on_frame(frame, remote, sock, size)
        elif len(self._early) < EARLY:
            self._early.append((frame, remote, sock, size))

    @property
    def both_checking(self) -> bool:
        """See `Session`."""
        return True

    async def peer_answered(self) -> None:
        """See `Session`."""
        await self._ready.wait()

    async def delivered(self) -> None:
        """See `Session`: the initiator made it. A message may well overtake the answer."""
        await self._ready.wait()

    async def settled(self, name: str) -> None:
        """See `Session`: the race ends by cancelling whoever waits here."""
        await asyncio.get_running_loop().create_future()

    def on_signal(self, message: SessionMessage, payload: bytes) -> None:
        """A message of this session, signed by the initiator."""
        if isinstance(message, End):
            self._fail(f"the initiator ended the session: {message.text}")

    def take_envelope(self, frame: Frame) -> None:
        """See `PathOwner`. A responder gets no answers."""
        raise ProtocolError(f"{frame.kind.name} sent to a responder")

    def peer_strategy_failed(self, name: str, text: str) -> None:
        """See `Session`: the initiator needs no help to end."""

    def strategy_ended(self, name: str) -> None:
        """See `Session`: tell the initiator what failed here, so that it does not wait for it."""
        failure = self.failures.get(name)
        if failure is not None and not self.result.done():
            self.tasks.start(self._report(name, failure.detail), f"report of {name}")

    async def _report(self, name: str, text: str) -> None:
        data = text.encode("ascii", "replace")[:200]
        try:
            await self.send_message(name, data, MessageUse.FAILED)
        except StrategyError as error:
            self.trace.add("signal", Phase.FAILED, f"report of {name}: {error.detail}")

    def retire(self, name: str, transport: str) -> None:
        """See `Session`: the initiator holds nothing back for our sake that its own plan does not know."""

    def path_proven(self, path: CandidatePath) -> None:
        """See `PathOwner`: the initiator decides."""

    def check_open(self, path: CandidatePath) -> None:
        """See `PathOwner`."""
        if self._winner is not path and (self.result.done() or self._winner is not None):
            raise ProtocolError("a nomination after the session's end")

    def path_nominated(self, path: CandidatePath) -> None:
        """See `PathOwner`."""
        self._winner = path
        self.trace.add("nominate", Phase.COMPLETE, str(path.path), strategy=path.strategy)
        self.result.set_result(path.accept())
