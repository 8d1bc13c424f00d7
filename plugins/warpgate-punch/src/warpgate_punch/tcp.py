"""`punch-tcp`: simultaneous open (RFC 9293 section 3.5) from the listeners' own ports.

Both ends dial each other's mapped endpoint from the port whose mapping the other knows, again and again for
a few seconds (`redial` says when). What comes of it is one of three, and all are right: two SYNs cross and
both dials succeed; the later SYN finds the earlier dial waiting; or it finds the listener, whose connection
the core takes by its first frame.

Where the mapped endpoint is in the peer's address already, the initiator dials before the peer has even
heard of it, which opens its own NAT: the responder's first SYN then gets in.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress

from warpgate_core import (
    Attempt,
    Endpoint,
    Mapping,
    NetworkError,
    NodeAddress,
    Phase,
    ProtocolError,
    Role,
    Strategy,
    StrategyError,
    VettingError,
    WarpgateError,
    register,
)
from warpgate_punch.ends import OwnEnds
from warpgate_punch.faces import expected_tcp, is_fixed, is_likely, is_near, outside
from warpgate_punch.pairs import Pair, tcp_pairs, tcp_pairs_to
from warpgate_punch.redial import WINDOW, Outcome, Redial
from warpgate_punch.section import Section

__all__ = ["PunchTcp"]

MAX_PAIRS = 24  # in one attempt: those of the address, of the section, and what followed
MAX_DIALS = 400  # in one attempt, whoever names the endpoints: four pairs of refusing NATs for three seconds
ASK_AGAIN = 0.5  # s without a connection until servers are asked about endpoints that seemed sure
ELSEWHERE = (
    0.3  # s for which a connection between the usual ports may be this session's own; then another port
)
PROOF = 5.0  # s for a proof on a connection that stands; the core gives a check over UDP as long

_OUTCOMES = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.ECONNABORTED: Outcome.REFUSED,
    errno.EADDRNOTAVAIL: Outcome.BUSY,
    errno.EADDRINUSE: Outcome.BUSY,
    errno.ETIMEDOUT: Outcome.SILENT,
}


@register("punch-tcp", rank=31, transports={"tcp"})
class PunchTcp(Strategy):
    """Opens TCP through NATs: both ends dial each other's mapped endpoint at the same time."""

    _meeting: _Meeting | None = None

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """TCP, if the addresses tell of endpoints that both will come from, or only TCP is left.

        A stream that needs a STUN server's word first comes long after a datagram path, which therefore
        does not wait for it. See `Strategy`.
        """
        for mine in local.interfaces:
            for theirs in peer.interfaces:
                if is_near(mine, theirs):
                    return frozenset(("tcp",))
                told = expected_tcp(mine) is not None and expected_tcp(theirs) is not None
                only = outside(mine) is None or outside(theirs) is None
                if (told or only) and is_likely(mine, theirs):
                    return frozenset(("tcp",))
        return frozenset()

    async def contribute(self, attempt: Attempt) -> bytes:
        """Say where this end will dial from, as far as that is known without waiting."""
        self._meeting = _Meeting(attempt)
        return self._meeting.begin()

    async def run(self, attempt: Attempt) -> None:
        """Dial what is known, and what the peer tells."""
        assert self._meeting is not None
        await self._meeting.run()

    async def close(self) -> None:
        """Let go of the mappings."""
        if self._meeting is not None:
            await self._meeting.ends.close()


class _Meeting:
    """One attempt's dials, and what is told to the peer and by it."""

    def __init__(self, attempt: Attempt) -> None:
        self.ends = OwnEnds(attempt.interfaces, attempt.tcp_mapping)
        self._attempt = attempt
        self._rng = random.Random(attempt.tag + attempt.role.encode())  # noqa: S311 - no secret
        self._redials: dict[Pair, Redial] = {}
        self._bounds: dict[Pair, asyncio.Timeout] = {}
        self._unknown = {face.internal for face in attempt.interfaces if not is_fixed(face)}
        self._reachable = {
            face.tcp_external or face.internal
            for face in attempt.peer.interfaces
            if face.tcp_external is not None or face.nat.mapping is Mapping.NONE
        }
        self._dialling: set[asyncio.Task[None]] = set()
        self._budget = MAX_DIALS
        self._told = Section()
        self._expects_more = True
        self._elsewhere = False
        self._proven = 0
        self._failures: dict[str, None] = {}
        self._group = asyncio.TaskGroup()
        self._progress = asyncio.Event()

    def begin(self) -> bytes:
        """Start asking servers where they must be asked; returns the section."""
        self.ends.ask()
        self._told = self.ends.section
        return self._told.encode()

    async def run(self) -> None:
        """Dial until all dials have come to something, or nothing more can come."""
        attempt = self._attempt
        async with self._group as group:
            self._dial(tcp_pairs(attempt.interfaces, attempt.peer))
            helpers = [group.create_task(work()) for work in (self._hear, self._tell, self._ask_again)]
            while self._dialling or self._expects_more:
                self._progress.clear()
                await self._progress.wait()
            for helper in helpers:
                helper.cancel()
        if not self._proven:
            raise StrategyError(attempt.name, "", self._explain())

    # -- telling and hearing ---------------------------------------------------------------------

    async def _tell(self) -> None:
        """Let the peer know what is learnt on the way."""
        while True:
            section = await self.ends.changed()
            if section != self._told:
                self._told = section
                await self._send(section)

    async def _send(self, section: Section) -> None:
        try:
            await self._attempt.send(section.encode())
        except StrategyError as error:
            self._attempt.note("contribute", error.detail, Phase.FAILED)

    async def _ask_again(self) -> None:
        """What seemed sure has led nowhere: ask."""
        with suppress(StrategyError):
            await self._attempt.peer_answered()
        await asyncio.sleep(ASK_AGAIN)
        self.ends.ask(again=True)

    async def _hear(self) -> None:
        """Dial what the peer tells, until it has told all."""
        attempt = self._attempt
        try:
            data = await attempt.peer_section()
            if attempt.role is Role.INITIATOR:
                self._heard()
            self._dial(tcp_pairs(attempt.interfaces, attempt.peer))  # the answer's address may be newer
            async with asyncio.timeout(WINDOW):
                while True:
                    section = Section.decode(data)
                    self._dial(tcp_pairs_to(attempt.interfaces, section.endpoints, attempt.peer))
                    self._expects(section.more)
                    data = await attempt.receive()
        except TimeoutError:
            self._expects(False)
        except ProtocolError as error:
            self._fail(str(error))
            self._expects(False)
        except StrategyError as error:  # the peer does not do this, or cannot be told
            self._fail(error.detail)
            self._heard()
            self._expects(False)

    def _heard(self) -> None:
        """As initiator: the peer has heard of us, and has dialled once.

        If it cannot know where we come from, its SYN opens its own NAT and goes astray, and ours came too
        early: only another one gets in.
        """
        now = self._attempt.now()
        for pair, redial in self._redials.items():
            redial.heard(now)
            bound = self._bounds.get(pair)
            if bound is not None and not bound.expired():
                lost = pair.local in self._unknown and pair.remote not in self._reachable
                bound.reschedule(now if lost else now + redial.patience)

    def _expects(self, more: bool) -> None:
        self._expects_more = more
        self._progress.set()

    # -- dialling --------------------------------------------------------------------------------

    def _dial(self, pairs: Iterable[Pair]) -> list[asyncio.Task[None]]:
        """Begin with every pair that is new."""
        begun = []
        for pair in pairs:
            if pair not in self._redials and len(self._redials) < MAX_PAIRS:
                heard = self._attempt.role is Role.RESPONDER or self._attempt.round_trip is not None
                redial = self._redials[pair] = Redial(self._attempt.now(), self._rng, heard=heard)
                begun.append(self._group.create_task(self._keep_dialling(pair, redial)))
        for task in begun:
            self._dialling.add(task)
            task.add_done_callback(self._ended)
        return begun

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        self._progress.set()

    async def _keep_dialling(self, pair: Pair, redial: Redial) -> None:
        """Dial again and again, until a path is proven or the schedule has ended."""
        self._attempt.note("dial", f"{pair.remote} from {pair.local}", Phase.STARTED)
        while True:
            outcome, error = await self._try(pair, redial.patience)
            if outcome is None:
                return
            if outcome is Outcome.BUSY:
                self._go_elsewhere(pair)
            again = redial.again(outcome, self._attempt.now()) if self._budget > 0 else None
            if again is None:
                break
            await asyncio.sleep(again - self._attempt.now())
        self._fail(error)
        self._attempt.note("dial", f"{pair.remote} {redial.dials} times: {error}", Phase.FAILED)

    async def _try(self, pair: Pair, patience: float) -> tuple[Outcome | None, str]:
        """Dial once and prove what came of it; how it ended (None: proven), in a word and in a sentence."""
        self._budget -= 1
        try:
            async with asyncio.timeout(patience) as self._bounds[pair]:
                link = await self._attempt.open_stream(pair.remote, local=pair.local)
        except TimeoutError:
            return Outcome.SILENT, f"{pair.remote} did not answer"
        except NetworkError as error:
            return _outcome(error), str(error)
        finally:
            del self._bounds[pair]
        # The initiator decides; the responder's proof may rightly wait for the end of the race.
        bound = PROOF if self._attempt.role is Role.INITIATOR else None
        try:
            async with asyncio.timeout(bound):
                await self._attempt.prove_stream(link, kind=pair.kind)
        except (WarpgateError, TimeoutError) as error:
            return Outcome.BROKEN, str(error) or f"{pair.remote} said nothing"
        self._proven += 1
        return None, ""

    def _go_elsewhere(self, pair: Pair) -> None:
        """These two ports are connected already: the initiator takes another port of its own, once."""
        if self._attempt.role is Role.INITIATOR and not self._elsewhere:
            self._elsewhere = True
            self._group.create_task(self._from_another_port(pair))

    async def _from_another_port(self, pair: Pair) -> None:
        """Dial from a fresh port, and have the peer dial it; held until that has come to something."""
        await asyncio.sleep(ELSEWHERE)
        local = Endpoint(pair.local.host, 0)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(WINDOW):
                    mapping = await stack.enter_async_context(self._attempt.tcp_mapping(local))
            except (NetworkError, TimeoutError):
                pass  # no server: where no NAT is in between, any port will do
            else:
                local = mapping.local
                told = Section.of([mapping.external, *self._told.endpoints], more=self._told.more)
                self._group.create_task(self._send(told))
            begun = self._dial([Pair(local, pair.remote, pair.kind)])
            if begun:
                await asyncio.wait(begun)

    # -- the end ---------------------------------------------------------------------------------

    def _fail(self, text: str) -> None:
        self._failures[text] = None

    def _explain(self) -> str:
        reasons = [*self._failures, *self.ends.errors]
        if not self._redials:
            reasons.insert(0, "neither the peer's address nor its section tells a TCP endpoint to dial")
        return "; ".join(reasons[:6])


def _outcome(error: NetworkError) -> Outcome:
    cause = error.__cause__
    if isinstance(error, VettingError):
        return Outcome.FORBIDDEN
    return _OUTCOMES.get(cause.errno or 0, Outcome.FAILED) if isinstance(cause, OSError) else Outcome.FAILED
