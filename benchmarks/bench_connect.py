"""Time from a call to a proven pipe, against the bounds of the design, in a network with real delays.

    uv run python -m benchmarks.bench_connect [--runs 30] [--delay 20] [--loss 0]

Two processes on two machines of the lab (network namespaces), each with a router and a line of 20 ms one
way, three mosquitto brokers and a coturn between them. The nodes are warm: started, and connected once.
The rows take turns in every run, so that whatever else the machine does meets all of them.

P is the peer round trip, S one way from one to the other through a broker; both are measured in the same
network, by plain TCP connections. "network" is what the packets alone need, "own" what is beyond that at
the median: our own work. Below, where the time goes: the medians of the steps in `Pipe.trace`, at the
caller.

Needs what the lab needs (root or a user namespace, nftables, mosquitto, coturn).
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.table import show, spread
from tests.lab import Host, LabUnavailable, unavailable
from tests.lab.e2e.agent import Joined, Started
from tests.lab.e2e.world import World, make_world, meet, part

__all__ = ["main"]

OWN_WORK = 0.030  # s, DESIGN section 4
PROBES = 9  # connections to measure a round trip
STEPS = ("offer complete", "dial started", "dial complete", "check started", "signal complete")
LAST = ("answer complete", "prove complete", "nominate complete")


Formula = Callable[[float, float], float]


@dataclass(slots=True)
class Row:
    """One kind of connection.

    Args:
        name: for people.
        options: of `auto_connect`.
        network: what the packets alone need, as a function of P and S in seconds.
        bound: the same for the design's bound, without our own work.
        text: the bound as it is written.
    """

    name: str
    options: dict[str, Any]
    network: Formula
    bound: Formula
    text: str
    seconds: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)

    def take(self, here: Joined) -> None:
        """One run."""
        self.seconds.append(here.seconds)
        for step in here.trace:
            name = f"{step['step']} {step['phase']}"
            other = name == "prove complete" and not step["detail"].startswith(here.transport)
            if name in (*STEPS, *LAST) and step["strategy"] in ("", here.strategy) and not other:
                self.steps.setdefault(name, []).append(step["at"])


def rows() -> list[Row]:
    """What is measured."""
    tcp, udp = {"transport": "tcp"}, {"transport": "udp"}
    direct, reverse = {"plugins": ["direct"]}, {"plugins": ["reverse"]}

    def once(p: float, s: float) -> float:
        return p

    def twice(p: float, s: float) -> float:
        return 2 * p

    def back(p: float, s: float) -> float:
        return s + 1.5 * p

    def back_bound(p: float, s: float) -> float:
        return s + 2 * p

    return [
        Row("direct TCP", direct | tcp, twice, twice, "2P+30"),
        Row("direct UDP", direct | udp, once, once, "P+30 *"),
        Row("reverse TCP", reverse | tcp, back, back_bound, "S+2P+30"),
        Row("reverse UDP", reverse | udp, back, back_bound, "S+2P+30"),
        Row("all that is built in", {"plugins": ["direct", "reverse"]}, twice, twice, "2P+30"),
    ]


def round_trip(source: Host, target: tuple[str, int]) -> float:
    """Median seconds of a TCP connection, accepted or refused: one round trip."""
    found = []
    for _ in range(PROBES):
        with source.socket(socket.SOCK_STREAM) as probe:
            began = time.perf_counter()
            probe.connect_ex(target)
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure(world: World, a: Started, b: Started, found: Sequence[Row], runs: int) -> None:
    """Every row once in each run; the first run only warms up."""
    for run in range(runs + 1):
        for row in found:
            here, there = meet(a, b, **row.options)
            if run:
                row.take(here)
            part(here, there)


def report(found: Sequence[Row], p: float, s: float) -> bool:
    """Print both tables; says whether every median is within its bound."""
    table, kept = [], True
    for row in found:
        network, bound = row.network(p, s), row.bound(p, s) + OWN_WORK
        p50, p95, p99 = spread(row.seconds)
        kept &= p50 <= bound
        figures = (p50, p95, p99, network, p50 - network, bound)
        table.append([row.name, *map(_ms, figures), row.text, f"{p50 / bound:.2f}"])
    head = ["ms", "p50", "p95", "p99", "network", "own", "bound", "which is", "p50/bound"]
    show(head, table)
    print("\n* not in the design: offer and answer are one round trip\n")
    steps = [name for name in (*STEPS, *LAST) if any(name in row.steps for row in found)]
    lines = []
    for row in found:
        medians = (statistics.median(row.steps[name]) if name in row.steps else None for name in steps)
        lines.append([row.name, *("-" if at is None else _ms(at) for at in medians)])
    show(["ms after the call, median", *(name.removesuffix(" complete") for name in steps)], lines)
    return kept


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"


def main() -> int:
    """Measure and print; 1 if a median is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=30, help="per row, after one that warms up (30)")
    parser.add_argument("--delay", type=float, default=20.0, help="ms one way per line (20)")
    parser.add_argument("--loss", type=float, default=0.0, help="percent lost on each line (0)")
    options = parser.parse_args()
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 2
    found = rows()
    try:
        with make_world() as world:
            a_host, b_host = (
                world.home(name, delay=options.delay / 1e3, loss=options.loss / 100) for name in "ab"
            )
            a, b = (world.agent(host).start(**world.services((4,))) for host in (a_host, b_host))
            p = round_trip(a_host, (b_host.ip4, 9))
            s = sum(round_trip(host, world.brokers[0].endpoint()) for host in (a_host, b_host)) / 2
            measure(world, a, b, found, options.runs)
    except LabUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{options.runs} runs; lines of {options.delay:g} ms one way, {options.loss:g} % loss each; "
        f"measured P = {_ms(p)} ms, S = {_ms(s)} ms\n"
    )
    return 0 if report(found, p, s) else 1


if __name__ == "__main__":
    sys.exit(main())
