"""Resident memory of an idle node, step by step from a bare interpreter. Linux only (/proc).

    uv run python -m benchmarks.bench_memory [--runs 5]

Each row is a fresh process that reads ``/proc/self/smaps_rollup``: Rss counts every resident page, shared
libraries included (what people see in ``ps``), private only what nobody else has. Median of the runs.
Aim: 40 MiB for an idle node that is subscribed at a broker. The third row is what the two libraries need
that every node needs; the last is the same node once glibc has given back what it keeps (malloc_trim).

Below: what the dearest imports add, each in the order in which a node makes them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.table import show
from tests.lab.e2e.world import plugins

__all__ = ["main"]

AIM = 40.0  # MiB, issue of the first milestone
ROOT = Path(__file__).resolve().parents[1]
EC = "cryptography.hazmat.primitives.asymmetric.ec"
KINDS = ("Rss", "Private_Clean", "Private_Dirty")

READ = """
import sys
def tell():
    found = dict.fromkeys({kinds!r}, 0)
    with open("/proc/self/smaps_rollup") as lines:
        for line in lines:
            name = line.partition(":")[0]
            if name in found:
                found[name] = int(line.split()[1])
    print(found["Rss"], found["Private_Clean"] + found["Private_Dirty"], len(sys.modules))
"""

NODE = """
import asyncio
from warpgate_core import Identity, Node, NodeConfig
async def main():
    async with Node(NodeConfig(identity=Identity.generate(), brokers={brokers!r}, disable={disable!r})):
        {then}
        tell()
asyncio.run(main())
"""

IMPORTS = """
import builtins, json, os, sys
import asyncio
page = os.sysconf("SC_PAGE_SIZE")
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * page
wanted, stack, found = builtins.__import__, [], []
def measured(name, globals=None, locals=None, fromlist=(), level=0):
    before, modules = resident(), len(sys.modules)
    stack.append(0)
    try:
        return wanted(name, globals, locals, fromlist, level)
    finally:
        whole, inner = resident() - before, stack.pop()
        if stack:
            stack[-1] += whole
        if len(sys.modules) > modules and not level:
            found.append((whole - inner, whole, name))
builtins.__import__ = measured
"""


def programs(broker: str) -> dict[str, str]:
    """What is measured, by name."""
    disable = plugins()
    alone = NODE.format(brokers=[], disable=disable, then="pass")
    with_broker = NODE.format(brokers=[broker], disable=disable, then="pass")
    idle = "\nasync def main(): tell()\nasyncio.run(main())"
    trim = "import ctypes; ctypes.CDLL(None).malloc_trim(0)"
    return {
        "bare interpreter": "tell()",
        "asyncio, running": f"import asyncio{idle}",
        "+ cryptography, aiomqtt": f"import asyncio, aiomqtt, {EC}{idle}",
        "import warpgate_core": f"import asyncio, warpgate_core{idle}",
        "idle node, no broker": alone,
        "idle node, one broker": with_broker,
        "the same, trimmed": NODE.format(brokers=[broker], disable=disable, then=trim),
    }


def run(code: str) -> str:
    """Output of a fresh interpreter."""
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def measure(broker: str, runs: int) -> dict[str, list[tuple[float, float, int]]]:
    """Per program (Rss in MiB, private MiB, modules) of each run; the programs take turns."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    before = READ.replace("{kinds!r}", repr(KINDS))
    for _ in range(runs):
        for name, code in programs(broker).items():
            resident, private, modules = run(before + code).split()
            found.setdefault(name, []).append((int(resident) / 1024, int(private) / 1024, int(modules)))
    return found


def dearest(broker: str, count: int) -> list[tuple[str, float, float]]:
    """Imports by what they add themselves: (name, own MiB, MiB with what they import)."""
    node = NODE.format(brokers=[broker], disable=plugins(), then="pass").replace("tell()", "pass")
    rows = json.loads(run(IMPORTS + node + "\nprint(json.dumps(sorted(found, reverse=True)))"))
    return [(name, own / 2**20, whole / 2**20) for own, whole, name in rows[:count]]


async def main(runs: int) -> int:
    """Measure and print; 1 if the aim is missed."""
    from tests.fixtures.brokers import Mosquitto

    async with Mosquitto() as broker:
        found = await asyncio.to_thread(measure, broker.url, runs)
        imports = await asyncio.to_thread(dearest, broker.url, 12)
    table, before = [], 0.0
    for name, values in found.items():
        resident, private, modules = (statistics.median(column) for column in zip(*values, strict=True))
        step = f"{resident - before:+.1f}" if before else ""
        table.append([name, f"{resident:.1f}", step, f"{private:.1f}", f"{modules:.0f}"])
        before = resident
    show(["MiB", "Rss", "more", "private", "modules"], table)
    idle = statistics.median(value[0] for value in found["idle node, one broker"])
    verdict = "reached" if idle <= AIM else f"missed by {idle - AIM:.1f} MiB"
    print(f"\naim {AIM:.0f} MiB: {verdict}; median of {runs} runs\n")
    show(
        ["import adds, MiB", "itself", "in all"],
        [[n, f"{own:.1f}", f"{all_:.1f}"] for n, own, all_ in imports],
    )
    return 0 if idle <= AIM else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes per row (5)")
    if not sys.platform.startswith("linux"):
        sys.exit("this benchmark reads /proc, which only Linux has")
    sys.exit(asyncio.run(main(parser.parse_args().runs)))
