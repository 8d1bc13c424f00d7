"""What ``import warpgate_core`` costs, beside ``import asyncio`` in the same run.

Each import runs in a fresh interpreter, several times in turn so that a busy moment of the machine hits all
alike; the median counts. Aim: 120 ms with asyncio. Then the modules that cost most, from
``-X importtime``. Run it as ``uv run python -m benchmarks.bench_import [--json]``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections import defaultdict

__all__ = ["main", "measure", "slowest"]

AIM = 0.120  # s, DEPENDENCIES: import budget of warpgate_core
SUBJECTS = {
    "nothing (an empty program)": "pass",
    "asyncio": "import asyncio",
    "warpgate_core, with asyncio": "import asyncio, warpgate_core",
    "one strategy's needs": "from warpgate_core import Strategy, register",
    "warpgate_core.strategy alone": "import warpgate_core.strategy",
    "pytest plugin": "import warpgate_core.testing.pytest_plugin",
    "aioice (for comparison)": "import aioice",
    "aiomqtt (for comparison)": "import aiomqtt",
}
TIMER = """
import time; start = time.perf_counter()
{code}
end = time.perf_counter()
import sys; print(end - start, len(sys.modules))
"""


def measure(rounds: int) -> dict[str, tuple[float, int]]:
    """Median seconds and number of modules for each subject."""
    times: dict[str, list[float]] = defaultdict(list)
    modules: dict[str, int] = {}
    for _ in range(rounds):
        for name, code in SUBJECTS.items():
            out = _python("-c", TIMER.format(code=code)).stdout.split()
            times[name].append(float(out[0]))
            modules[name] = int(out[1])
    return {name: (statistics.median(times[name]), modules[name]) for name in SUBJECTS}


def slowest(count: int) -> list[tuple[float, str]]:
    """Packages by the seconds that their own modules take in ``import asyncio, warpgate_core``."""
    total: dict[str, float] = defaultdict(float)
    for line in _python("-X", "importtime", "-c", "import asyncio, warpgate_core").stderr.splitlines():
        found = re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s*([\w.]+)", line)
        if found:
            parts = found[2].split(".")
            total[".".join(parts[:2]) if parts[0] == "warpgate_core" else parts[0]] += int(found[1]) / 1e6
    return sorted(((seconds, name) for name, seconds in total.items()), reverse=True)[:count]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = measure(options.rounds)
    costly = slowest(12)
    if options.json:
        print(json.dumps({"seconds": {k: v[0] for k, v in results.items()}, "slowest": costly, "aim": AIM}))
        return 0
    base = results["asyncio"][0]
    print(f"{'import of':<32} {'ms':>8} {'over asyncio':>13} {'modules':>8}")
    for name, (seconds, modules) in results.items():
        print(f"{name:<32} {seconds * 1e3:>8.1f} {(seconds - base) * 1e3:>13.1f} {modules:>8}")
    whole = results["warpgate_core, with asyncio"][0]
    verdict = "reached" if whole <= AIM else f"missed by {(whole - AIM) * 1e3:.0f} ms"
    print(f"\naim {AIM * 1e3:.0f} ms: {verdict}")
    print("\nown time of packages, with the clock of -X importtime running:")
    for seconds, name in costly:
        print(f"{name:<32} {seconds * 1e3:>8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
