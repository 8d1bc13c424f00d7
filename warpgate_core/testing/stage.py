"""The stage on which the conformance kit lets a strategy play: two ends, a network, signalling.

The strategy runs on the engine that ships, as a subclass of itself which keeps a diary: what it
contributed, what it raised, how long each of its steps held up the event loop. Two networks are offered.
In memory, time is virtual and whatever is left behind is found; on loopback, strategies play that open
sockets of their own. Rejected: a fake `Attempt` (a strategy that pleases a fake proves nothing).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.config import Limits
from warpgate_core.endpoint import IP4
from warpgate_core.engine.engine import Engine
from warpgate_core.errors import WarpgateError
from warpgate_core.identity import Identity
from warpgate_core.net.edge import Edge
from warpgate_core.net.system import SystemEdge
from warpgate_core.pipe import Pipe
from warpgate_core.registry import Registry
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.strategy import Attempt, Role, Strategy
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import LeakError, run_virtual
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.testing.signal import MemorySignal

__all__ = ["Actor", "ConformanceError", "Diary", "Stage", "Subject", "watched"]


class ConformanceError(AssertionError):
    """A strategy does not keep to the contract."""


Hosts = Callable[[MemoryNetwork], tuple[Host, Host]]

DELAY: Final = 0.010  # s, one way over each of the two lines of the network in memory
VIRTUAL_LIMIT: Final = 600.0  # s of virtual time for one scenario; the longest session lasts 60
REAL_LIMIT: Final = 60.0  # s for one scenario on loopback
TIMEOUTS: Final = {"memory": 10.0, "loopback": 3.0}  # s until an attempt is given up; loopback is real time
SECRETS: Final = (bytes(31) + b"\x01", bytes(31) + b"\x02")  # fixed keys, so that runs repeat


@dataclass
class Diary:
    """What one end's strategy objects did.

    Attributes:
        sections: role, section and seconds of each contribution.
        raised: everything that is neither a `WarpgateError` nor a cancellation.
        made: objects that began.
        closed: objects whose `close` has ended.
        longest: most seconds that one step held up the event loop, and in which method.
        ended: set when a `run` has ended in whatever way.
    """

    sections: list[tuple[Role, bytes, float]] = field(default_factory=list)
    raised: list[tuple[str, BaseException]] = field(default_factory=list)
    made: int = 0
    closed: int = 0
    longest: tuple[float, str] = (0.0, "")
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, method: str, seconds: float) -> None:
        """A step between two awaits has taken so long, in real time."""
        self.longest = max(self.longest, (seconds, method))

    async def watch(self, method: str, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run one method of the strategy."""
        try:
            return await _Timed(coro, partial(self.step, method))
        except (WarpgateError, asyncio.CancelledError):
            raise
        except BaseException as error:
            self.raised.append((method, error))
            raise


class _Timed:
    """An awaitable that measures every step of a coroutine."""

    def __init__(self, coro: Coroutine[Any, Any, Any], note: Callable[[float], None]) -> None:
        self._coro = coro
        self._note = note

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coro.__await__()
        advance: Callable[[], Any] = partial(next, inner)
        while True:
            start = time.perf_counter()
            try:
                wanted = advance()
            except StopIteration as stop:
                return stop.value
            finally:
                self._note(time.perf_counter() - start)
            try:
                advance = partial(inner.send, (yield wanted))
            except BaseException as error:  # noqa: BLE001 - thrown into the coroutine, as await does
                advance = partial(inner.throw, error)


def watched(cls: type[Strategy], diary: Diary, **instead: Any) -> type[Strategy]:
    """The same strategy, keeping a diary.

    Args:
        cls: a registered strategy.
        diary: where to.
        instead: methods to replace, for an end that misbehaves.
    """

    async def contribute(self: Strategy, attempt: Attempt) -> bytes:
        diary.made += 1
        start = attempt.now()
        section = await diary.watch("contribute", play["contribute"](self, attempt))
        diary.sections.append((attempt.role, section, attempt.now() - start))
        return section  # type: ignore[no-any-return]

    async def run(self: Strategy, attempt: Attempt) -> None:
        try:
            await diary.watch("run", play["run"](self, attempt))
        finally:
            diary.ended.set()

    async def close(self: Strategy) -> None:
        await diary.watch("close", play["close"](self))
        diary.closed += 1

    play = {"contribute": cls.contribute, "run": cls.run, "close": cls.close} | instead
    own = {"contribute": contribute, "run": run, "close": close, "spec": cls.spec, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), own)


@dataclass
class Actor:
    """One end on the stage.

    Attributes:
        engine: the engine that ships.
        diary: of its strategy objects.
        accepted: pipes that the other end opened.
    """

    name: str
    identity: Identity
    engine: Engine
    diary: Diary
    pipes: list[Pipe] = field(default_factory=list)
    accepted: asyncio.Queue[Pipe] = field(default_factory=asyncio.Queue)

    @property
    def address(self) -> NodeAddress:
        """What the other end is told."""
        faces = tuple(
            InterfaceAddress(face.nic, face.internal, face.external, face.nat, face.tcp_external)
            for face in self.engine.edge.interfaces
        )
        return NodeAddress(self.identity.public_key, faces)

    async def connect(self, other: Actor, transports: frozenset[str], timeout: float) -> Pipe:
        """Open a session to the other end, with every strategy there is."""
        pipe = await self.engine.connect(
            other.address,
            self.engine.registry.select(),
            timeout=timeout,
            patience=0.5,
            transports=transports,
        )
        self.pipes.append(pipe)
        return pipe

    def take(self, pipe: Pipe) -> None:
        """The other end opened a pipe."""
        self.pipes.append(pipe)
        self.accepted.put_nowait(pipe)


@dataclass
class Stage:
    """What a scenario plays on.

    Attributes:
        subject: the strategy under test.
        alice: always the initiator, unless the scenario says otherwise.
        bob: the other end.
        signalling: between the two.
        network: the network in memory; None on loopback.
    """

    subject: Subject
    alice: Actor
    bob: Actor
    signalling: MemorySignal
    network: MemoryNetwork | None
    hosts: tuple[Host, Host] | None

    def cut(self) -> bool:
        """Let nothing through between the two any more; False on loopback, where that cannot be."""
        if self.network is None or self.hosts is None:
            return False
        self.network.cut(*self.hosts)
        return True


@dataclass
class Subject:
    """The strategy under test, and where it is to play.

    Args:
        cls: a class with `register` on it.
        network: "memory": virtual time, a network in memory; "loopback": real sockets, for strategies
            that open their own.
        options: its options, as in ``NodeConfig(options={name: ...})``.
        hosts: plugs two hosts into a network in memory, for a strategy that needs a special one; None:
            two machines on the open internet.
        timeout: seconds until an attempt is given up; None: 10 in memory, 3 on loopback.
    """

    cls: type[Strategy]
    network: Literal["memory", "loopback"] = "memory"
    options: Mapping[str, Any] | None = None
    hosts: Hosts | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.network not in TIMEOUTS:
            raise ValueError(f"network is 'memory' or 'loopback', not {self.network!r}")
        if self.timeout is None:
            self.timeout = TIMEOUTS[self.network]

    @property
    def limit(self) -> float:
        """Seconds until an attempt is given up."""
        assert self.timeout is not None
        return self.timeout

    def registry(self, *strategies: type[Strategy]) -> Registry:
        """A registry with these strategies and nothing that happens to be installed."""
        name = self.cls.spec.name
        registry = Registry(discover=False, options={name: self.options} if self.options else None)
        for cls in strategies:
            registry.add(cls)
        return registry

    def play(
        self,
        scenario: Callable[[Stage], Awaitable[object]],
        *,
        alice: Callable[[type[Strategy], Diary], list[type[Strategy]]] | None = None,
        bob: Callable[[type[Strategy], Diary], list[type[Strategy]]] | None = None,
        seed: int = 0,
    ) -> None:
        """Run a scenario from an empty stage to an empty stage.

        Args:
            scenario: what happens.
            alice, bob: make that end's strategies from the subject and a diary; None: the subject, watched.
            seed: of everything random.

        Raises:
            LeakError: a task, timer or socket was left behind.
        """

        async def main() -> None:
            async with self._set(alice or _as_it_is, bob or _as_it_is) as stage:
                await scenario(stage)

        if self.network == "memory":
            run_virtual(main, seed=seed, limit=VIRTUAL_LIMIT)
        else:
            _run_real(main)

    @asynccontextmanager
    async def _set(
        self, *casts: Callable[[type[Strategy], Diary], list[type[Strategy]]]
    ) -> AsyncIterator[Stage]:
        signalling = MemorySignal(Line(delay=DELAY))
        network, hosts, edges = self._edges()
        async with AsyncExitStack() as stack:
            actors = []
            for number, (edge, cast) in enumerate(zip(edges, casts, strict=True)):
                stack.push_async_callback(edge.close)
                actors.append(self._actor(number, edge, signalling, cast))
                stack.push_async_callback(actors[-1].engine.close)
                await edge.start()
            yield Stage(self, actors[0], actors[1], signalling, network, hosts)
            for actor in actors:
                await actor.engine.close()
            for actor in actors:
                _require_obedience(actor)
            await asyncio.gather(*(pipe.close() for actor in actors for pipe in actor.pipes))

    def _edges(self) -> tuple[MemoryNetwork | None, tuple[Host, Host] | None, list[Edge]]:
        if self.network == "loopback":
            return None, None, [SystemEdge(nics="127.0.0.1", families=(IP4,)) for _ in range(2)]
        network = MemoryNetwork()
        hosts = self.hosts(network) if self.hosts is not None else _open_internet(network)
        return network, hosts, [network.edge(host) for host in hosts]

    def _actor(
        self,
        number: int,
        edge: Edge,
        signalling: MemorySignal,
        cast: Callable[[type[Strategy], Diary], list[type[Strategy]]],
    ) -> Actor:
        identity = Identity.from_secret(SECRETS[number])
        codec = EnvelopeCodec(identity, signalling.get_time, asyncio.get_running_loop().time)
        guard, diary = ReplayGuard(), Diary()
        engine = Engine(
            identity=identity,
            codec=codec,
            guard=guard,
            edge=edge,
            signaller=signalling.join(codec, guard),
            registry=self.registry(*cast(self.cls, diary)),
            limits=Limits(),
            accepts=lambda key: True,
            address=lambda: actor.address,
            on_pipe=lambda pipe: actor.take(pipe),  # noqa: PLW0108 - the actor is made below
            get_time=signalling.get_time,
        )
        actor = Actor(("alice", "bob")[number], identity, engine, diary)
        return actor


def _require_obedience(actor: Actor) -> None:
    if actor.engine.abandoned:
        raise ConformanceError(
            f"as {actor.name} it went on half a second after it was cancelled; let CancelledError pass"
        )


def _as_it_is(cls: type[Strategy], diary: Diary) -> list[type[Strategy]]:
    return [watched(cls, diary)]


def _open_internet(network: MemoryNetwork) -> tuple[Host, Host]:
    line = Line(delay=DELAY)
    one = network.host("alice", "198.51.100.1/24", line=line)
    return one, network.host("bob", "203.0.113.1/24", line=line)


def _run_real(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """`asyncio.run`, but a task that ignores its cancellation is reported and not waited for."""
    loop = asyncio.new_event_loop()
    files = _open_files()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), REAL_LIMIT))
        for _ in range(5):  # transports close in the loop's next rounds
            loop.run_until_complete(asyncio.sleep(0))
        left = [f"task {task.get_name()}" for task in asyncio.all_tasks(loop)]
        loop.run_until_complete(loop.shutdown_default_executor())
        left += [f"file descriptor {number}" for number in sorted(_open_files() - files)]
        if left:
            raise LeakError("left behind: " + "; ".join(left))
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _open_files() -> set[int]:
    """Numbers of the open file descriptors, where the system tells; what reads the list is not in it."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return set()
    return {number for number in map(int, names) if _is_open(number)}


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
