"""The end that makes the offer, and decides."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.engine.explain import explain
from warpgate_core.engine.paths import CandidatePath
from warpgate_core.engine.session import Session
from warpgate_core.errors import (
    ConnectError,
    NetworkError,
    NodeClosedError,
    ProtocolError,
    RefusedError,
    StrategyError,
    WarpgateError,
)
from warpgate_core.race.agreement import Agreement, Candidate
from warpgate_core.race.plan import plan_race
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.keys import derive
from warpgate_core.session.messages import Answer, End, Offer, Refusal, SessionMessage, decode
from warpgate_core.signal.skew import SKEW_NOTICE, in_words
from warpgate_core.strategy import Role, Strategy, Tier
from warpgate_core.tasks import finish
from warpgate_core.trace import Phase

if TYPE_CHECKING:
    from warpgate_core.engine.engine import Engine

__all__ = ["InitiatorSession"]


class InitiatorSession(Session):
    """See `Session`.

    Args:
        timeout: seconds until it is given up.
        patience: seconds for which a relay is held back at most.
    """

    def __init__(
        self,
        engine: Engine,
        peer: NodeAddress,
        transports: frozenset[str],
        strategies: dict[str, type[Strategy]],
        *,
        timeout: float,
        patience: float,
        last_winner: str | None,
    ) -> None:
        super().__init__(engine, Role.INITIATOR, secrets.token_bytes(16), peer, transports, strategies)
        self._timeout = timeout
        self._plan = plan_race(
            strategies.values(),
            self.role,
            self.local,
            peer,
            transports,
            patience=patience,
            last_winner=last_winner,
        )
        self._offer = b""
        self._answer: Answer | None = None
        self._answered = asyncio.Event()
        self._delivered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._delivered.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._signal_failure: StrategyError | None = None
        self._failed_there: dict[str, asyncio.Future[None]] = {}
        self._agreement: Agreement | None = None
        self._candidates: dict[int, CandidatePath] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._winner: CandidatePath | None = None
        self._ended: set[str] = set()

    # -- from beginning to end -------------------------------------------------------------------

    async def run(self) -> None:
        """See `Session`. Sets `result` to the pipe, or to a `ConnectError`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._begin()
                await asyncio.wait([self.result])
        except TimeoutError:
            self._give_up(f"no path within {self._timeout:g} s")
        except WarpgateError as error:
            self._give_up(str(error))
        finally:
            if not self.result.done():
                self.result.set_exception(NodeClosedError("the attempt was cancelled"))
            await self._end()

    async def _begin(self) -> None:
        now = asyncio.get_running_loop().time()
        self._agreement = Agreement(now, self._plan.hold, self._plan.runners)
        self.start_strategies(self._plan.starts)
        sections = await self.sections()
        offer = Offer(
            self.session_id,
            self.ephemeral.public,
            self.transports,
            self._timeout,
            self.local.encode(),
            sections,
        )
        self._offer = offer.encode()
        self.envelope = self.engine.seal(self.peer_key, self._offer)
        self.trace.add("offer", Phase.COMPLETE, f"{len(self._offer)} bytes, {len(sections)} sections")
        self.tasks.start(self._signal_offer(), "offer")
        self.go()
        self._poke()

    async def _signal_offer(self) -> None:
        assert self.envelope is not None
        self.trace.add("signal", Phase.STARTED)
        began = asyncio.get_running_loop().time()
        try:
            sent = await self.engine.deliver(self.peer_address, self.envelope)
            error = "the peer acknowledged nothing; it is offline, or at other brokers"
            skew = self.engine.skew(self.peer_key)
            if not sent and abs(skew) > SKEW_NOTICE:
                error = (
                    f"the peer's clock is {in_words(skew)}; set both clocks right, or use NodeConfig(ntp=...)"
                )
        except NetworkError as failure:
            sent, error = False, str(failure)
        if sent:
            elapsed = (asyncio.get_running_loop().time() - began) * 1000
            self.trace.add("signal", Phase.COMPLETE, f"acknowledged in {elapsed:.0f} ms")
            self._set_delivered(None)
        else:
            self.trace.add("signal", Phase.FAILED, error)
            self._signal_failure = StrategyError("", "signalling the offer", error)
            self._set_delivered(self._signal_failure)
            if self._answer is None:
                self.sections_failed(self._signal_failure)
                self._answered.set()
                for path in self._by_remote.values():
                    path.expire(alone=True)  # who has not heard of us by now will not check towards us

    def _set_delivered(self, error: StrategyError | None) -> None:
        if self._delivered.done():
            return
        if error is None:
            self._delivered.set_result(None)
        else:
            self._delivered.set_exception(error)

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        failed = self.result.cancelled() or self.result.exception() is not None
        if failed and self._offer and self._signal_failure is None:
            end = End(self.session_id, "the initiator has given up").encode()
            self.engine.signal_soon(self.peer_address, end)
        await finish(self.wind_up(self._winner))

    def _give_up(self, why: str) -> None:
        if self.result.done():
            return
        failures: list[Exception] = list(self.failures.values())
        for name in self._strategies.keys() - self.failures.keys():
            attempt = self._attempts[name]
            failures.append(StrategyError(name, attempt.stage, why))
        message = explain(
            self.local,
            self.peer_address,
            why=why,
            answered=self._answer is not None,
            signal_failure=self._signal_failure,
            tiers={cls.spec.tier for cls in self._strategies.values()},
        )
        self.result.set_exception(ConnectError(message, failures or [NetworkError(why)]))

    # -- what the peer says ----------------------------------------------------------------------

    def take_envelope(self, frame: Frame) -> None:
        """See `PathOwner`: an answer or a refusal that came over a path."""
        if self._answer is not None:
            return
        envelope = self.engine.codec.open(frame.envelope)
        if envelope.sender != self.peer_key:
            raise ProtocolError("the answer was signed by somebody else than the peer")
        message = decode(envelope.payload)
        wanted = Answer if frame.kind is FrameKind.ANSWER else Refusal
        if not isinstance(message, wanted) or message.session != self.session_id:
            raise ProtocolError(f"{frame.kind.name} holds something else than the peer's word on our offer")
        self.on_signal(message, envelope.payload)

    def on_signal(self, message: SessionMessage, payload: bytes) -> None:
        """A message of this session, signed by the peer.

        Raises:
            ProtocolError: it does not belong to our offer.
        """
        if isinstance(message, Answer):
            self._on_answer(message, payload)
        elif isinstance(message, Refusal):
            if message.offer_digest != hashlib.sha256(self._offer).digest():
                raise ProtocolError("a refusal of another offer")
            self._refused(message)
        elif isinstance(message, End):
            self._on_end(message)

    def _on_answer(self, answer: Answer, payload: bytes) -> None:
        if self._answer is not None:
            return
        if answer.offer_digest != hashlib.sha256(self._offer).digest():
            raise ProtocolError("an answer to another offer")
        address = NodeAddress.decode(answer.address)
        if address.public_key != self.peer_key:
            raise ProtocolError("the answer holds somebody else's address")
        shared = self.ephemeral.exchange(answer.ephemeral)
        keys = derive(shared, self._offer, payload, self.engine.identity.public_key, self.peer_key)
        self._answer = answer
        self.peer_address = address
        self.signal_round_trip = self.trace.elapsed
        self.trace.add("answer", Phase.COMPLETE, f"{len(answer.sections)} sections")
        self._set_delivered(None)
        self.take_sections(answer.sections)
        self.unlock(keys)
        self._answered.set()

    def _refused(self, refusal: Refusal) -> None:
        code = refusal.code.name.lower().replace("_", " ")
        detail = f"the peer refused: {refusal.text or code}"
        self.trace.add("refused", Phase.FAILED, detail)
        if not self.result.done():
            self.result.set_exception(ConnectError(detail, [RefusedError(refusal.code.name.lower(), detail)]))

    def _on_end(self, end: End) -> None:
        for name, line in end.report:
            self.trace.add("strategy", Phase.FAILED, line, strategy=name, remote=True)
        if not self.result.done() and self._winner is None:
            self._give_up(f"the peer gave up: {end.text}")

    @property
    def both_checking(self) -> bool:
        """See `Session`."""
        return self._answered.is_set()

    async def peer_answered(self) -> None:
        """See `Session`."""
        await self._answered.wait()
        if self._answer is None and self._signal_failure is not None:
            raise self._signal_failure

    async def delivered(self) -> None:
        """See `Session`."""
        await asyncio.shield(self._delivered)

    async def ready(self) -> None:
        """See `PathOwner`: the offer must be sealed."""
        await self._go.wait()

    def peer_strategy_failed(self, name: str, text: str) -> None:
        """See `Session`."""
        future = self._there(name)
        if not future.done():
            future.set_exception(StrategyError(name, "at the peer's end", text))

    async def settled(self, name: str) -> None:
        """See `Session`: until the race ends or the peer's half has failed."""
        await self.peer_answered()
        await asyncio.shield(self._there(name))

    def _there(self, name: str) -> asyncio.Future[None]:
        if name not in self._failed_there:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._failed_there[name] = future
        return self._failed_there[name]

    # -- the race --------------------------------------------------------------------------------

    def strategy_ended(self, name: str) -> None:
        """See `Session`."""
        self._ended.add(name)
        if self._agreement is not None:
            self._agreement.retire(name)
            self._poke()

    def retire(self, name: str, transport: str) -> None:
        """See `Session`."""
        if self._agreement is not None:
            self._agreement.retire(name, transport)
            self._poke()

    def path_proven(self, path: CandidatePath) -> None:
        """See `PathOwner`."""
        if self._agreement is None or self.result.done():
            return
        spec = self._strategies[path.strategy].spec if path.strategy in self._strategies else None
        tier = Tier.RELAY if path.path.kind == "relay" else spec.tier if spec else Tier.DIRECT
        rank = spec.rank if spec else 100
        candidate = Candidate(id(path), path.strategy, path.path.transport, tier, rank, path.round_trip)
        self._candidates[id(path)] = path
        self._agreement.proven(candidate, asyncio.get_running_loop().time())
        self._poke()

    def path_lost(self, path: CandidatePath, error: WarpgateError) -> None:
        """See `PathOwner`."""
        super().path_lost(path, error)
        if self._candidates.pop(id(path), None) is not None and self._agreement is not None:
            self._agreement.lost(id(path))
        self._poke()

    def check_open(self, path: CandidatePath) -> None:
        """Never called: this end nominates."""

    def path_nominated(self, path: CandidatePath) -> None:
        """Never called: this end nominates."""
        raise ProtocolError("the responder does not nominate")

    def _poke(self) -> None:
        """Look whether there is something to decide."""
        if self._agreement is None or self.result.done() or not self._go.is_set():
            return
        now = asyncio.get_running_loop().time()
        decision = self._agreement.decide(now)
        if isinstance(decision.choice, int):
            self._win(self._candidates[decision.choice])
        elif decision.wake_at is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(decision.wake_at, self._poke)
        elif self._ended >= self._strategies.keys() and all(path.closed for path in self._paths):
            self._give_up("every strategy has failed")

    def _win(self, path: CandidatePath) -> None:
        self.trace.add("nominate", Phase.COMPLETE, str(path.path), strategy=path.strategy)
        try:
            pipe = path.nominate()
        except WarpgateError as error:
            self._give_up(str(error))
            return
        self._winner = path
        self.result.set_result(pipe)
