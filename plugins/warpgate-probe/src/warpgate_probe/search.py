"""The two halves of a search: one end opens many ports, the other tries many.

What the opening end sends first makes the mapping at its own NAT and lets the cone in. It passes the
cone's NAT only where the cone has sent to that very port before, so early probes are not lost either: what
they opened, the other end's first packet comes through. From the first packet that comes in anywhere,
everything is the core's: proof, choice and the pipe.

Sockets are kept until the race is over and not only until one is found: of two hits the initiator may
choose the other one. That is one round trip more.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence

from warpgate_core import (
    Allocation,
    Attempt,
    Endpoint,
    LentSocket,
    NetworkError,
    Phase,
    StrategyError,
)
from warpgate_probe.descriptors import affordable, descriptors_left
from warpgate_probe.messages import MAX_RUNS, Kind, Message
from warpgate_probe.options import ProbeOptions
from warpgate_probe.order import FEWEST, FOLLOWED, Run, chance, search_order, sockets_for, window
from warpgate_probe.pace import Pace
from warpgate_probe.pairing import Method, Pairing
from warpgate_probe.talk import Talk

__all__ = ["Sockets", "open_ports", "try_ports"]

ECHO = 1.0  # s for the answer to the last probe: a round trip half around the world, and a repeated check
LATER = 2.0  # s that the trying end may begin later than the opening one: signalling, both ways


class Sockets:
    """The sockets of one attempt: opened one by one, freed together."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.open: list[LentSocket] = []

    async def add(self, local: Endpoint) -> LentSocket:
        """One more. Raises NetworkError."""
        sock = await self._attempt.open_socket(local)
        self.open.append(sock)
        return sock

    def free(self) -> None:
        """Let go of all; one that carries a pipe stays open with it."""
        sockets, self.open = self.open, []
        for sock in sockets:
            sock.let_go()


async def open_ports(
    attempt: Attempt, pairing: Pairing, options: ProbeOptions, sockets: Sockets, talk: Talk
) -> None:
    """Be the end whose port is not known: open many.

    Raises:
        StrategyError: too few descriptors are left, or nobody came.
    """
    own = pairing.symmetric
    follow = pairing.method is Method.FOLLOW
    wanted = FOLLOWED if follow else sockets_for(own.nat.chunk, options.sockets)
    count = affordable(min(wanted, options.sockets), descriptors_left())
    if count < min(FEWEST, wanted, options.sockets):
        raise StrategyError(
            attempt.name, "opening ports", f"only {count} file descriptors can be spared; raise `ulimit -n`"
        )
    remote = pairing.outside(pairing.cone)
    counted = follow and own.nat.allocation is Allocation.SEQUENTIAL
    before = await _ask(attempt, own.internal, sockets) if counted else None
    attempt.note("open", f"{count} ports towards {remote}", Phase.STARTED)
    opened = await _open(attempt, own.internal, remote, count, sockets)
    if follow:
        after = await _ask(attempt, own.internal, sockets) if before is not None else None
        runs = _told(opened, own.nat.step, before, after)
        await talk.say(Message(Kind.PORTS, runs=runs))
    bound = options.probes / options.rate + ECHO + LATER
    if not await _wait(attempt, bound):
        text = f"{len(opened)} ports were open towards {remote}, and in {bound:.1f} s nothing came in"
        raise StrategyError(attempt.name, "waiting", text)


def _told(opened: Sequence[LentSocket], step: int, before: int | None, after: int | None) -> list[Run]:
    """Where the ports are: as counted; or where nobody could tell, or ports are kept, our own."""
    if before is not None:
        return window(before, after, step, len(opened))
    return [Run(sock.local.port, 1, 1) for sock in opened[:MAX_RUNS]]


async def _ask(attempt: Attempt, local: Endpoint, sockets: Sockets) -> int | None:
    """The port that the NAT gives out just now; None if no STUN server says."""
    try:
        return (await attempt.mapped(await sockets.add(local))).port
    except NetworkError as error:
        attempt.note("predict", str(error), Phase.FAILED)
        return None


async def _open(
    attempt: Attempt, local: Endpoint, remote: Endpoint, count: int, sockets: Sockets
) -> list[LentSocket]:
    """Open ports and send from each; fewer than wanted if the system has no more."""
    opened: list[LentSocket] = []
    for _ in range(count):
        try:
            sock = await sockets.add(local)
        except NetworkError as error:
            if len(opened) < min(FEWEST, count):
                raise
            attempt.note("open", f"{len(opened)} ports, then: {error}")
            break
        attempt.beacon(remote, sock=sock)
        opened.append(sock)
    return opened


async def try_ports(
    attempt: Attempt, pairing: Pairing, options: ProbeOptions, own: Endpoint, talk: Talk
) -> None:
    """Be the end whose port is known: try many.

    Args:
        own: `internal` of the interface to send from.

    Raises:
        StrategyError: none of them was it.
    """
    other = pairing.symmetric
    assert other.external is not None  # `choose` takes no others
    sock = next((sock for sock in attempt.sockets if sock.local.host == own.host), None)
    runs = (await talk.hear(Kind.PORTS)).runs if pairing.method is Method.FOLLOW else ()
    rng = random.Random(secrets.randbits(64))  # noqa: S311 - seeded by the system's own randomness
    ports = search_order(rng, options.probes, other.nat.chunk, runs)
    host = other.external.host
    where = "where the peer says" if runs else "in its block first" if other.nat.chunk else "at random"
    attempt.note("search", f"{len(ports)} ports of {host}, {where}", Phase.STARTED)
    pace = Pace(options.rate, len(ports))
    found = asyncio.ensure_future(attempt.found())
    try:
        queue = iter(ports)
        while pace.left and not found.done():
            for _ in range(pace.take(attempt.now())):
                attempt.beacon(Endpoint(host, next(queue)), sock=sock)
            await asyncio.wait((found,), timeout=pace.pause(attempt.now()))
        await asyncio.wait((found,), timeout=ECHO)
        if not found.done():
            raise StrategyError(attempt.name, "searching", _failure(len(ports), pairing, options))
    finally:
        found.cancel()


def _failure(tried: int, pairing: Pairing, options: ProbeOptions) -> str:
    external = pairing.symmetric.external
    host = external.host if external is not None else "the peer"
    if pairing.method is Method.FOLLOW or pairing.symmetric.nat.chunk is not None:
        return f"none of {tried} ports of {host} that were likely answered"
    share = chance(options.sockets, tried)
    return f"none of {tried} ports of {host} answered; {share:.0%} of such searches find one, so try again"


async def _wait(attempt: Attempt, bound: float) -> bool:
    """Whether a path was found within `bound` seconds."""
    try:
        async with asyncio.timeout(bound):
            await attempt.found()
    except TimeoutError:
        return False
    return True
