"""All benchmarks by one command: ``python -m benchmarks [NAME...]``.

    uv run python -m benchmarks                      all of them (but the NAT matrix), short
    uv run python -m benchmarks connect memory       only these
    uv run python -m benchmarks --full --write       as long as figures need, into docs/benchmarks.md

Each is a program of its own (``benchmarks/bench_NAME.py``), in a process of its own, so that none measures
what another has left behind. A benchmark that misses its bound says so and ends with 1, and so does this.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "benchmarks.md"
SHORT = {  # arguments that make a benchmark short; without an entry it runs as it is
    "connect": ["--runs", "5"],
    "import": ["--rounds", "3"],
    "memory": ["--runs", "1"],
    "pipe": ["--seconds", "0.3", "--runs", "2"],
    "signal": ["--runs", "300"],
    "start": ["--runs", "5"],
}
ON_REQUEST = ("nat_matrix",)  # minutes long, with a page of its own: only by name
MISSED, CANNOT = 1, 2  # exit codes of a benchmark: beyond its bound; this machine cannot run it

HEAD = """# Benchmarks

    uv run python -m benchmarks

runs them all, short; with `--full` as long as below; with names (`connect`, `memory`...) only these. Each
table has the counterpart, or the bound, in the same run: figures of different runs and machines do not
compare. This page is written by `uv run python -m benchmarks --full --write`. The NATs have
`uv run python -m benchmarks nat_matrix`.

"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one benchmark went.

    Args:
        name: without ``bench_``.
        code: its exit code.
        seconds: it took.
        output: what it printed.
    """

    name: str
    code: int
    seconds: float
    output: str


def names() -> list[str]:
    """All there are."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def title(name: str) -> str:
    """The first sentence of its docstring, without the full stop."""
    text = ast.get_docstring(ast.parse((FOLDER / f"bench_{name}.py").read_text())) or name
    return text.partition("\n")[0].rstrip(".")


def run(name: str, arguments: list[str]) -> Outcome:
    """Run one, and show what it prints when it has ended."""
    print(f"== {name}: {title(name)}\n", flush=True)
    began = time.monotonic()
    argv = [sys.executable, "-m", f"benchmarks.bench_{name}", *arguments]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent, check=False)
    seconds = time.monotonic() - began
    print(f"{done.stdout.rstrip()}\n\n-- {seconds:.0f} s\n", flush=True)
    return Outcome(name, done.returncode, seconds, done.stdout.rstrip())


def machine() -> list[str]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if cpuinfo.exists()
        else []
    )
    model = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    distributions = ("warpgate-core", "aiomqtt", "cryptography", "coincurve")
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    return [
        f"{model}, {os.cpu_count()} cores; {kernel}; Python {platform.python_version()}",
        ", ".join(f"{name} {version(name)}" for name in distributions),
        f"load of the machine when it began: {os.getloadavg()[0]:.1f}",
    ]


def write(outcomes: list[Outcome], about: list[str], arguments: dict[str, list[str]]) -> None:
    """Make the page."""
    lines = [HEAD, "Measured " + time.strftime("%Y-%m-%d", time.gmtime()) + " on:\n"]
    lines += [f"- {line}" for line in about]
    for one in outcomes:
        command = " ".join(["python -m benchmarks.bench_" + one.name, *arguments[one.name]])
        lines += [
            f"\n## {title(one.name)}\n",
            f"`{command}`, {one.seconds:.0f} s\n",
            "```text",
            one.output,
            "```",
        ]
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"written: {PAGE.relative_to(FOLDER.parent)}")


def main() -> int:
    """Run what was asked for; 1 if one has failed or missed its bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(names())}; all but {', '.join(ON_REQUEST)} if none",
    )
    parser.add_argument("--full", action="store_true", help="as many runs as the figures need")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(names())}")
    chosen = options.names or [name for name in names() if name not in ON_REQUEST]
    arguments = {name: [] if options.full else SHORT.get(name, []) for name in chosen}
    about = machine()
    outcomes = [run(name, arguments[name]) for name in chosen]
    for one in outcomes:
        if one.code:
            words = {MISSED: "beyond its bound", CANNOT: "cannot run here"}
            print(f"{one.name}: {words.get(one.code, f'ended with {one.code}')}")
    if options.write:
        write(outcomes, about, arguments)
    return 1 if any(one.code for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
