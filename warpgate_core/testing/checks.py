"""What every strategy must keep to, as functions of a `Subject` that raise `ConformanceError`.

They say nothing about how well a strategy connects, only that it connects where nothing stands in the way
and harms nobody where something does. Each text is for the strategy's author. Rejected: one large test (its
first failure hides the others), and asking strategies for test hooks (what is tested would not be what
runs).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from warpgate_core.errors import ConnectError, StrategyError, WarpgateError
from warpgate_core.pipe import Pipe
from warpgate_core.strategy import MAX_SECTION, Attempt, Role, Strategy, register
from warpgate_core.testing.stage import ConformanceError, Diary, Stage, Subject, watched

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceError",
    "check_alone",
    "check_blocked",
    "check_blocking",
    "check_cancelling",
    "check_connects",
    "check_contribution",
    "check_rubbish",
    "check_spec",
    "check_two_at_once",
]

GRACE: Final = 0.5  # s that a cancelled strategy has; the engine's own bound
SLACK: Final = 1.0  # s on top of a bound before it counts as broken: a busy machine on loopback
LATEST_SECTION: Final = 5.0  # s; a section that comes later is of no use to a race of 20
STEP_BOUND: Final = 0.1  # s of real time between two awaits; asyncio's own slow_callback_duration
MOMENTS: Final = 10  # moments of cancellation while a path comes about, and as many where none can
BRIEF: Final = {"memory": 5.0, "loopback": 0.5}  # s for which an end that lies is kept company


def _require(condition: object, text: str) -> None:
    if not condition:
        raise ConformanceError(text)


# -- the checks ----------------------------------------------------------------------------------


def check_spec(subject: Subject) -> None:
    """It is registered, complete, and says in one line what it does."""
    try:
        subject.registry(subject.cls).create(subject.cls.spec.name)
    except WarpgateError as error:
        raise ConformanceError(str(error)) from error
    _require(subject.cls.spec.summary, "the class has no docstring; its first line is shown in lists")

    async def scenario(stage: Stage) -> None:
        for role in Role:
            found = subject.cls.plausible(role, stage.alice.address, stage.bob.address)
            _require(
                isinstance(found, frozenset) and found <= subject.cls.spec.transports,
                f"plausible() returned {found!r}, not a frozenset out of {set(subject.cls.spec.transports)}",
            )

    subject.play(scenario)


def check_contribution(subject: Subject) -> None:
    """It contributes bytes, not too many, not too late, at both ends."""

    async def scenario(stage: Stage) -> None:
        await _attempt(stage)
        for actor in (stage.alice, stage.bob):
            _require(actor.diary.made, f"contribute() was never called as {actor.name}")
            _require(actor.diary.sections, f"contribute() has not returned in time as {actor.name}")
            for role, section, seconds in actor.diary.sections:
                _require(
                    isinstance(section, bytes), f"contribute() returned {type(section).__name__} as {role}"
                )
                size = len(section)
                _require(
                    size <= MAX_SECTION, f"contribute() returned {size} bytes as {role}, not {MAX_SECTION}"
                )
                _require(seconds <= LATEST_SECTION, f"contribute() took {seconds:.1f} s as {role}")

    subject.play(scenario)


def check_connects(subject: Subject) -> None:
    """By every transport it claims, it connects two machines between which nothing stands."""
    for transport in sorted(subject.cls.spec.transports):
        subject.play(partial(_connect_and_talk, transport=transport))


async def _connect_and_talk(stage: Stage, transport: str) -> None:
    name = stage.subject.cls.spec.name
    try:
        pipe = await stage.alice.connect(stage.bob, frozenset((transport,)), stage.subject.limit)
    except ConnectError as error:
        raise ConformanceError(
            f"no {transport} path although nothing stands in the way: {_flat(error)}"
        ) from error
    async with asyncio.timeout(stage.subject.limit):
        other = await stage.bob.accepted.get()
    for end in (pipe, other):
        _require(end.strategy == name, f"the pipe is of strategy {end.strategy!r}, not {name!r}")
        _require(
            end.path.transport == transport, f"a {end.path.transport} path where {transport} was asked for"
        )
    await _talk(pipe, other, b"there and back")
    _check_diaries(stage)


def check_blocked(subject: Subject) -> None:
    """Where nothing gets through, it fails in time and says why."""

    async def scenario(stage: Stage) -> None:
        if stage.cut():
            _require(await _attempt(stage) is None, "a path was proven over a network that was cut")

    async def nobody(stage: Stage) -> None:
        stage.signalling.is_down = True
        stage.cut()
        await _attempt(stage)

    subject.play(scenario)
    subject.play(nobody)


def check_alone(subject: Subject) -> None:
    """It copes with a peer that does not have it."""
    subject.play(
        _attempt,
        alice=lambda cls, diary: [watched(cls, diary), _Bystander],
        bob=lambda cls, diary: [_Bystander],
    )


def check_rubbish(subject: Subject) -> None:
    """It survives a section and messages that are empty, damaged, random or as long as can be."""
    real = dict.fromkeys(Role, b"")

    async def listen(stage: Stage) -> None:
        await _attempt(stage)
        for actor in (stage.alice, stage.bob):
            real.update((role, section) for role, section, _ in actor.diary.sections)

    subject.play(listen)
    rng = random.Random(7)  # noqa: S311 - the same rubbish each time
    for liar, role in (("bob", Role.RESPONDER), ("alice", Role.INITIATOR)):
        for rubbish in _rubbish(real[role], rng):
            subject.play(_meet_a_liar, **{liar: partial(_lying, rubbish)})  # type: ignore[arg-type]


def _rubbish(real: bytes, rng: random.Random) -> list[bytes]:
    """Sections that nobody means, each once."""
    flipped = bytes([real[0] ^ 0x80]) + real[1:] if real else b"\x80"
    found = [b"", b"\x00", b"\xff" * MAX_SECTION, rng.randbytes(48), rng.randbytes(MAX_SECTION)]
    found += [real[:-1], real[: len(real) // 2], real + b"\x00", real * 2, flipped]
    return [section[:MAX_SECTION] for section in dict.fromkeys(found) if section != real]


def _lying(rubbish: bytes, cls: type[Strategy], diary: Diary) -> list[type[Strategy]]:
    """An end that contributes rubbish, sends rubbish, and does nothing else."""

    async def contribute(self: Strategy, attempt: Attempt) -> bytes:
        return rubbish

    async def run(self: Strategy, attempt: Attempt) -> None:
        for message in (rubbish, b"", b"\xff" * MAX_SECTION):
            await attempt.send(message)
        await attempt.settled()

    async def close(self: Strategy) -> None:
        return None

    return [watched(cls, diary, contribute=contribute, run=run, close=close)]


async def _meet_a_liar(stage: Stage) -> None:
    """Until the honest end has had enough, or for a while."""
    attempt = asyncio.create_task(_attempt(stage))
    ended = [asyncio.create_task(actor.diary.ended.wait()) for actor in (stage.alice, stage.bob)]
    try:
        async with asyncio.timeout(BRIEF[stage.subject.network]):
            await asyncio.gather(*ended)
            await attempt
    except TimeoutError:
        pass  # it waits for more, which may be right; the end of the session must end it
    finally:
        for task in (attempt, *ended):
            task.cancel()
        await asyncio.wait((attempt, *ended))
    if not attempt.cancelled() and (error := attempt.exception()) is not None:
        raise error
    _check_diaries(stage)


def check_cancelling(subject: Subject) -> None:
    """Cancelled at any moment, it ends at once and leaves nothing behind."""
    took = 0.0

    async def measure(stage: Stage) -> None:
        nonlocal took
        start = asyncio.get_running_loop().time()
        await _attempt(stage)
        took = asyncio.get_running_loop().time() - start

    subject.play(measure)
    for cut in (False, True) if subject.network == "memory" else (False,):
        span = subject.limit / 2 if cut else took
        for number in range(MOMENTS):
            subject.play(partial(_cancel_after, seconds=span * number / MOMENTS, cut=cut))


async def _cancel_after(stage: Stage, seconds: float, cut: bool) -> None:
    loop = asyncio.get_running_loop()
    if cut:
        stage.cut()
    task = asyncio.create_task(_attempt(stage))
    await asyncio.sleep(seconds)
    start = loop.time()
    task.cancel()
    await asyncio.wait([task])
    await stage.alice.engine.close()
    await stage.bob.engine.close()
    late = loop.time() - start
    _require(late <= 2 * GRACE + SLACK, f"cancelled after {seconds:.3f} s it took {late:.1f} s to end")
    _check_diaries(stage)


def check_two_at_once(subject: Subject) -> None:
    """Two attempts side by side do not disturb each other."""
    transport = min(subject.cls.spec.transports)
    subject.play(partial(_two_at_once, transport=transport))


async def _two_at_once(stage: Stage, transport: str) -> None:
    kinds = frozenset((transport,))
    attempts = [stage.alice.connect(stage.bob, kinds, stage.subject.limit) for _ in range(2)]
    pipes = await asyncio.gather(*attempts, return_exceptions=True)
    for found in pipes:
        if isinstance(found, BaseException):
            text = _flat(found) if isinstance(found, ConnectError) else repr(found)
            raise ConformanceError(f"of two attempts at once one failed: {text}") from found
    words = [b"first", b"second"]
    for found, word in zip(pipes, words, strict=True):
        assert isinstance(found, Pipe)
        await found.send(word)
    async with asyncio.timeout(stage.subject.limit):
        others = [await stage.bob.accepted.get() for _ in range(2)]
        heard = sorted([await other.recv() for other in others])
    _require(heard == words, f"two pipes that carried {words} gave {heard} at the other end")
    _check_diaries(stage)


def check_blocking(subject: Subject) -> None:
    """It never holds up the event loop."""
    worst: list[tuple[float, str]] = []
    for _ in range(3):  # a busy machine may stop us once, or twice; the same step three times is the strategy

        async def scenario(stage: Stage) -> None:
            await _attempt(stage)
            worst.append(max(stage.alice.diary.longest, stage.bob.diary.longest))

        subject.play(scenario)
    seconds, method = min(worst)
    _require(
        seconds <= STEP_BOUND,
        f"{method}() held up the event loop for {seconds * 1000:.0f} ms between two awaits; do what blocks "
        "in a thread",
    )


# -- what checks have in common ------------------------------------------------------------------


@register("bystander", rank=100)
class _Bystander(Strategy):
    """Does nothing, so that there is a session to be alone in."""

    async def run(self, attempt: Attempt) -> None:
        await attempt.peer_section()
        raise StrategyError(attempt.name, "standing by", "it never does anything")


async def _attempt(stage: Stage) -> Pipe | None:
    """One attempt of alice's: its pipe, or None if it failed as it may."""
    loop = asyncio.get_running_loop()
    subject, start = stage.subject, loop.time()
    pipe = None
    try:
        pipe = await stage.alice.connect(stage.bob, subject.cls.spec.transports, subject.limit)
    except ConnectError as error:
        own = [
            e
            for e in error.exceptions
            if isinstance(e, StrategyError) and e.strategy == subject.cls.spec.name
        ]
        _require(own, f"the failure says nothing about {subject.cls.spec.name}: {_flat(error)}")
    took = loop.time() - start
    bound = subject.limit + GRACE + SLACK
    _require(took <= bound, f"an attempt of {subject.limit:g} s ended after {took:.1f} s")
    _check_diaries(stage)
    return pipe


def _check_diaries(stage: Stage) -> None:
    for actor in (stage.alice, stage.bob):
        for method, error in actor.diary.raised:
            raise ConformanceError(
                f"{method}() raised {error!r} as {actor.name}; raise StrategyError, or let a WarpgateError "
                "pass"
            ) from error


async def _talk(one: Pipe, other: Pipe, data: bytes) -> None:
    for sender, receiver in ((one, other), (other, one)):
        await sender.send(data)
        found = b""
        while len(found) < len(data):
            found += await receiver.recv(timeout=5.0)
        _require(found == data, f"a pipe of {one.path} carried {found!r} in place of {data!r}")


def _flat(error: ConnectError) -> str:
    return f"{error.message} [" + "; ".join(str(e) for e in error.exceptions) + "]"


# -- all of them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: short, stable.
        summary: what a strategy does that passes.
        function: the check itself.
    """

    name: str
    summary: str
    function: Callable[[Subject], None]

    def bind(self, subject: Subject) -> Callable[[], None]:
        """The check as a function without arguments.

        It raises `ConformanceError` if the strategy breaks the contract, `LeakError` if it leaves something
        behind, and `DeadlockError` if it waits for what can never happen.
        """
        return partial(self.function, subject)


def _check(function: Callable[[Subject], None]) -> Check:
    name = function.__name__.removeprefix("check_").replace("_", "-")
    return Check(name, (function.__doc__ or "").strip(), function)


CHECKS: Final = tuple(
    _check(function)
    for function in (
        check_spec,
        check_contribution,
        check_connects,
        check_blocked,
        check_alone,
        check_rubbish,
        check_cancelling,
        check_two_at_once,
        check_blocking,
    )
)
