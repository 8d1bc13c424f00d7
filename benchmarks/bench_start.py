"""From nothing to a ready node (sockets, mapped endpoints, brokers, address), and where the time goes.

    uv run python -m benchmarks.bench_start [--runs 20] [--delay 20]

In the lab: a machine whose line has 20 ms one way, so that a round trip to broker and STUN server takes
40 ms. The design allows six of these. On loopback: the same with a mosquitto beside it and nothing in
between, which leaves only our own work. "first" is the first node of a fresh process, which also imports
what is imported late; "next" are further nodes in a warm one. The parts are measured in the same warm
process, each alone; a node starts edge and signalling side by side.

The counterpart in the same run: a bare aiomqtt client that connects, subscribes and is acknowledged.

Needs what the lab needs (root or a user namespace, nftables, mosquitto, coturn).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.table import show, spread
from tests.lab import Host, LabUnavailable, unavailable
from tests.lab.e2e.world import make_world, plugins

__all__ = ["main"]

ROUND_TRIPS = 6  # DESIGN section 4: node ready
ROOT = Path(__file__).resolve().parents[1]
FIRSTS = 5  # fresh processes


async def time_of(action: Callable[[], Awaitable[object]]) -> float:
    """Seconds."""
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


async def inside(brokers: list[str], stun: list[str], runs: int) -> dict[str, list[float]]:
    """Runs on the machine: every part `runs` times, in turn."""
    began = time.perf_counter()
    import aiomqtt

    from warpgate_core import Endpoint, Identity, Node, NodeConfig, Registry, Router
    from warpgate_core.net.system import SystemEdge

    found: dict[str, list[float]] = {"import": [time.perf_counter() - began]}
    names = plugins()

    async def node() -> None:
        async with Node(config):
            keep("next node", time.perf_counter() - started)

    async def edge() -> None:
        made = SystemEdge(stun=stun)
        await made.start()
        keep("edge: sockets and STUN", time.perf_counter() - started)
        await made.close()

    async def router() -> None:
        made = Router(identity, get_time=time.time, servers=brokers)
        await made.start()
        await made.ready()
        keep("signalling: brokers", time.perf_counter() - started)
        await made.close()

    async def discovery() -> None:
        await asyncio.to_thread(Registry(disable=names).load)
        keep("plugins: discovery", time.perf_counter() - started)

    async def bare() -> None:
        host, port = Endpoint.parse(brokers[0].removeprefix("mqtt://"))
        async with aiomqtt.Client(host, port) as client:
            await client.subscribe("benchmark", qos=1)
            keep("bare aiomqtt: connect, subscribe", time.perf_counter() - started)

    def keep(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(seconds)

    identity = Identity.generate()
    config = NodeConfig(identity=identity, brokers=brokers, stun=stun, disable=names)
    started = time.perf_counter()
    async with Node(config):
        found["first node"] = [time.perf_counter() - started]
    for _ in range(runs):
        for part in (node, edge, router, discovery, bare):
            started = time.perf_counter()
            await part()
    return found


def run_on(prefix: list[str], brokers: list[str], stun: list[str], runs: int) -> dict[str, list[float]]:
    """`inside` on a machine, in fresh processes: the first node of each, the rest from the last one."""
    merged: dict[str, list[float]] = {}
    for number in range(FIRSTS):
        wanted = runs if number == FIRSTS - 1 else 0
        task = json.dumps({"brokers": brokers, "stun": stun, "runs": wanted})
        argv = [*prefix, sys.executable, "-m", "benchmarks.bench_start", "--inside", task]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
        for name, values in json.loads(done.stdout).items():
            merged.setdefault(name, []).extend(values)
    return merged


def report(title: str, found: dict[str, list[float]], bound: float | None) -> bool:
    """Print a table; says whether the medians of whole nodes are within the bound."""
    print(title + "\n")
    table, kept = [], True
    for name, values in found.items():
        p50, p95, p99 = spread(values)
        row = [name, str(len(values)), *(f"{value * 1e3:.1f}" for value in (p50, p95, p99))]
        if bound is None or not name.endswith("node"):
            table.append([*row, "", ""])
        else:
            kept &= p50 <= bound
            table.append([*row, f"{bound * 1e3:.0f}", f"{p50 / bound:.2f}"])
    show(["ms", "runs", "p50", "p95", "p99", "bound", "p50/bound"], table)
    print()
    return kept


def in_the_lab(delay: float, runs: int) -> bool:
    """Behind a line with a delay."""
    with make_world() as world:
        host: Host = world.home("a", delay=delay)
        services = world.services((4,))
        found = run_on(host.namespace.prefix(), services["brokers"], services["stun"], runs)
    title = f"lab: a round trip to a broker takes {2 * delay * 1e3:g} ms, the bound is {ROUND_TRIPS} of them"
    return report(title, found, ROUND_TRIPS * 2 * delay)


async def on_loopback(runs: int) -> None:
    """With nothing in between."""
    from tests.fixtures.brokers import Mosquitto

    async with Mosquitto() as broker:
        found = await asyncio.to_thread(run_on, [], [broker.url], [], runs)
    report("loopback: one broker, no STUN", found, None)


def main() -> int:
    """Measure and print; 1 if the median of a node's start is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20, help="of each part in a warm process (20)")
    parser.add_argument("--delay", type=float, default=20.0, help="ms one way of the line (20)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(asyncio.run(inside(**json.loads(options.inside)))))
        return 0
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 2
    try:
        kept = in_the_lab(options.delay / 1e3, options.runs)
    except LabUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    asyncio.run(on_loopback(options.runs))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
