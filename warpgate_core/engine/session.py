"""One end of one session on the event loop: what initiator and responder have in common.

Strategies run as tasks, paths come and go, messages arrive; `close` ends all of it. What is specific to
a role is in `initiator.py` and `responder.py`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from typing import TYPE_CHECKING

from warpgate_core.address import NodeAddress
from warpgate_core.engine.attempt import SessionAttempt
from warpgate_core.engine.paths import CandidatePath, DatagramPath
from warpgate_core.engine.table import PathTable
from warpgate_core.errors import (
    NetworkError,
    PluginError,
    StrategyError,
    WarpgateError,
)
from warpgate_core.pipe import Pipe
from warpgate_core.session.keys import EphemeralKey
from warpgate_core.session.messages import Message, MessageUse, SessionMessage
from warpgate_core.strategy import MAX_SECTION, Role, Strategy
from warpgate_core.tasks import cancel_within
from warpgate_core.trace import Phase

if TYPE_CHECKING:
    from warpgate_core.engine.engine import Engine

__all__ = ["CONTRIBUTE_BOUND", "GRACE", "Session"]

_LOG = logging.getLogger("warpgate.session")

CONTRIBUTE_BOUND = 0.020  # s the offer or answer waits for sections; the rest follows by message
GRACE = 0.5  # s that a cancelled strategy has to release what it holds; then it is left behind, and said so


class Session(PathTable):
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
        super().__init__(engine, role, session_id, peer, transports, strategies.keys())
        loop = asyncio.get_running_loop()
        self.session_id = session_id
        self.local = engine.address()
        self.signal_round_trip: float | None = None
        self.ephemeral = EphemeralKey()
        self.result: asyncio.Future[Pipe] = loop.create_future()
        self.result.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.failures: dict[str, StrategyError] = {}
        self._strategies = strategies
        self._attempts = {name: SessionAttempt(self, name) for name in strategies}
        self._contributions: dict[str, bytes] = {}
        self._heard_of: set[str] = set()
        self._contributed = asyncio.Event()
        self._go = asyncio.Event()
        self._strategy_tasks: dict[str, asyncio.Task[None]] = {}

    # -- what the roles differ in ---------------------------------------------------------------

    @abstractmethod
    async def run(self) -> None:
        """Live from beginning to end. Sets `result`."""

    @abstractmethod
    def strategy_ended(self, name: str) -> None:
        """A strategy's task has ended; its failure, if any, is in `failures`."""

    @abstractmethod
    def retire(self, name: str, transport: str) -> None:
        """See `Attempt.retire`."""

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

    def beacon_answered(self, strategy: str, path: DatagramPath) -> None:
        """See `PathTable`."""
        if strategy in self._attempts:
            path.when_proven(self._attempts[strategy].discover)

    def on_any(self, message: SessionMessage, payload: bytes) -> None:
        """Any message of this session, signed by the peer."""
        if isinstance(message, Message):
            self.on_message(message)
        else:
            self.on_signal(message, payload)

    @abstractmethod
    def on_signal(self, message: SessionMessage, payload: bytes) -> None:
        """Any other message than a strategy's."""

    # -- the end ---------------------------------------------------------------------------------

    async def wind_up(self, winner: CandidatePath | None) -> None:
        """Cancel every strategy, close every path but the winner. Bounded by `GRACE`."""
        self.close_paths(winner)
        stubborn = await cancel_within(set(self._strategy_tasks.values()), GRACE)
        for task in stubborn:
            _LOG.error("%s ignored its cancellation for %.1f s and is left behind", task.get_name(), GRACE)
            self.engine.abandon(task)
            self.tasks.disown(task)
        await self.tasks.close()
        self.forget_paths()
