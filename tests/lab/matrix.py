"""Every kind of NAT twice in one internet, and one connection between two of them at a time.

`test_matrix.py` asserts on a selection of pairs, `benchmarks/bench_nat_matrix.py` measures them all; both
get the same `Outcome` from here. A pair that cannot be joined is an outcome, not an error.

Processes live as long as the world, because starting one costs a third of a second; nodes live for one
attempt, because the sockets of a node that has met its peer before come with the NAT mappings of that time,
and the second connection would be measured through doors that the first one opened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.lab import Broker, Coturn, Host, Lab, Nat
from tests.lab.e2e.agent import Agent, AgentError, Joined, Started
from tests.lab.e2e.world import DELAY
from tests.lab.turn.coturn import TurnServerProgram

__all__ = ["RELAYS", "Matrix", "Outcome", "make_matrix", "possible"]

BROKERS = 3
HTTPS = 443  # the only TCP port that leaves an only-443 network: brokers and the relay listen there
STUN_PORT = 3478  # RFC 8489 section 14.1
MESSAGE_WITHIN = 5.0  # s; a message takes 0.04
REPEAT = 0.5  # s until a datagram that nobody received is sent again
FAMILIES = (4,)  # IPv6 is not translated, so it would hide what the NATs do
TROUBLE = (AgentError, TimeoutError, RuntimeError, OSError)  # of an agent that refuses, hangs or has died
RELAYS = ("turn",)  # plugins that are off when no relay is wanted
SETTLED = {True: 5.0, False: 1.0}  # s that a node may take to know its NAT, with and without UDP
SIDES = ("calls", "answers")

_SYMMETRIC = {Nat.SYMMETRIC_RANDOM, Nat.SYMMETRIC_SEQUENTIAL, Nat.PORT_CHUNKED, Nat.CARRIER_SYMMETRIC}


def possible(a: Nat, b: Nat) -> bool:
    """Whether a pair is to be joined without a relay within the bounds of the strategies.

    Not possible: only-443 to anybody (nobody's mapped port is 443); two mappings that both depend on the
    destination, unless both are predictable; and the same over TCP alone, where nobody can guess fast enough.
    """
    if Nat.ONLY_443 in (a, b):
        return False
    if a in _SYMMETRIC and b in _SYMMETRIC:
        return a is b is Nat.SYMMETRIC_SEQUENTIAL
    return not (Nat.UDP_BLOCKED in (a, b) and ({a, b} & _SYMMETRIC))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt.

    Args:
        caller, callee: slugs of the NATs.
        relay: whether relays were allowed.
        strategy, transport, kind: of the pipe; "" without one.
        seconds: until the caller held the pipe, or an error.
        messages: one went each way.
        error: the sentence of the error; "" if there was none.
        causes: what each strategy said.
        left: what was still there afterwards and should not be; "" is right.
        trace: the caller's steps.
    """

    caller: str
    callee: str
    relay: bool
    strategy: str = ""
    transport: str = ""
    kind: str = ""
    seconds: float = 0.0
    messages: bool = False
    error: str = ""
    causes: list[str] = field(default_factory=list)
    left: str = ""
    trace: list[dict[str, Any]] = field(default_factory=list)

    @property
    def joined(self) -> bool:
        """A pipe that carries messages both ways."""
        return self.messages and not self.error


class Matrix:
    """The internet, its services and the homes; see `make_matrix`."""

    def __init__(self, lab: Lab, stack: ExitStack, delay: float, loss: float) -> None:
        self._stack = stack
        self.net = lab.internet(FAMILIES)
        self._line: dict[str, Any] = {"delay": delay, "loss": loss}
        self.brokers = [self._broker(number) for number in range(1, BROKERS + 1)]
        self.stun: Coturn = self.net.coturn()
        host = self.net.server("turn")
        options = ("--aux-server", f"{host.ip4}:{HTTPS}")
        self.turn = stack.enter_context(TurnServerProgram(host, options, port=STUN_PORT))
        self.hosts: dict[tuple[Nat, str], Host] = {}
        self._agents: dict[tuple[Nat, str], Agent] = {}
        self._count = 0

    def _broker(self, number: int) -> str:
        host = self.net.server(f"broker{number}")
        Broker(host, [f"listener {HTTPS} {host.ip4}"])
        return f"mqtt://{host.ip4}:{HTTPS}"

    def host(self, nat: Nat, side: str) -> Host:
        """The machine behind this NAT on this side, built when first asked for."""
        if (nat, side) not in self.hosts:
            self.hosts[nat, side] = self.net.home(f"{nat.slug}-{side}", nat, **self._line)
        return self.hosts[nat, side]

    def agent(self, nat: Nat, side: str) -> Agent:
        """The program there, started when first asked for."""
        if (nat, side) not in self._agents:
            self._agents[nat, side] = self._stack.enter_context(Agent(self.host(nat, side)))
        return self._agents[nat, side]

    def services(self, relay: bool) -> dict[str, Any]:
        """The `NodeConfig` fields that name what there is in this world."""
        base, _, server = self.turn.url("udp").rpartition("@")
        host = server.partition(":")[0]
        return {
            "brokers": self.brokers,
            "stun": [self.stun.stun()],
            "families": list(FAMILIES),
            "turn": [self.turn.url("udp"), f"{base}@{host}:{HTTPS}?transport=tcp"] if relay else [],
            "disable": [] if relay else list(RELAYS),
        }

    def attempt(self, caller: Nat, callee: Nat, *, relay: bool, timeout: float = 20.0) -> Outcome:
        """Start a node on each side, connect them, send a message each way, and end both."""
        self._count += 1
        name = f"node{self._count}"
        outcome = Outcome(caller.slug, callee.slug, relay)
        told: dict[str, Any] = {}
        here = there = None
        try:
            here, there = self._start(caller, callee, name, relay)
            told = self._connect(here, there, timeout)
        except TROUBLE as error:
            told = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            for one in zip((caller, callee), SIDES, strict=True):  # which may be dead: the next gets new ones
                self._agents.pop(one, None)
        finally:
            left = [*_left(here, "caller"), *_left(there, "callee")]
            for node in (here, there):
                if node is not None:
                    with contextlib.suppress(*TROUBLE):
                        node.stop()
        values = {name: getattr(outcome, name) for name in Outcome.__slots__}
        return Outcome(**values | told | {"left": ", ".join(left)})

    def _start(self, caller: Nat, callee: Nat, name: str, relay: bool) -> tuple[Started, Started]:
        services = self.services(relay)
        agents = self.agent(caller, SIDES[0]), self.agent(callee, SIDES[1])
        config = [services | {"seed": f"{agent.host.name} {name}"} for agent in agents]
        asked = [agent.begin("start", node=name, **one) for agent, one in zip(agents, config, strict=True)]
        made = [Started(a, name, **f.result(30.0)) for a, f in zip(agents, asked, strict=True)]
        kinds = zip(made, (caller, callee), strict=True)
        settled = [node.begin("settle", timeout=SETTLED[kind.behaviour.udp]) for node, kind in kinds]
        for asking in settled:
            with contextlib.suppress(
                AgentError
            ):  # where UDP is blocked, the last STUN request ends after 25 s
                asking.result(30.0)
        here, there = (node.refreshed() for node in made)
        return here, there

    def _connect(self, here: Started, there: Started, timeout: float) -> dict[str, Any]:
        accepting = there.begin("accept", timeout=timeout + 5.0)
        try:
            mine = here.connect(there, timeout=timeout)
        except AgentError as error:
            return {  # and `accepting` ends when the node is closed
                "error": error.text,
                "causes": [text for _, text in error.inner],
                "seconds": error.seconds,
                "trace": error.trace,
            }
        theirs = there.joined(accepting)
        good = _messages(mine, theirs)
        trace = mine.call("trace")
        closing = mine.begin("close")
        theirs.call("close")
        closing.result(10.0)
        return {
            "strategy": mine.strategy,
            "transport": mine.transport,
            "kind": mine.kind,
            "seconds": mine.seconds,
            "messages": good,
            "error": "" if good else "the pipe carries no messages",
            "trace": trace,
        }


@contextmanager
def make_matrix(delay: float = DELAY, loss: float = 0.0) -> Iterator[Matrix]:
    """A world for pairs, with lines of `delay` seconds one way that lose a share `loss`."""
    with Lab() as lab, ExitStack() as stack:
        yield Matrix(lab, stack, delay, loss)


def _messages(here: Joined, there: Joined) -> bool:
    return all(_message(*ends) for ends in ((here, there), (there, here)))


def _message(sender: Joined, receiver: Joined) -> bool:
    """Whether one message arrives; over UDP it is repeated, as the network may lose it."""
    arrived: Future[Any] = receiver.begin("receive", timeout=MESSAGE_WITHIN)
    text = f"{sender.pipe} says hello"
    while not arrived.done():
        sender.call("send", text=text)
        try:
            return bool(arrived.result(REPEAT if sender.transport == "udp" else MESSAGE_WITHIN + 1.0) == text)
        except TimeoutError:
            continue
        except AgentError:
            return False
    return arrived.exception() is None and bool(arrived.result() == text)


def _left(node: Started | None, side: str) -> list[str]:
    """What a node still holds after the attempt; pipes that the end of a failed attempt left waiting too."""
    if node is None:
        return []
    try:
        held: dict[str, int] = node.call("busy")
    except TROUBLE as error:
        return [f"{side}: {type(error).__name__}"]
    return [f"{side}: {count} {what}" for what, count in held.items() if count]
