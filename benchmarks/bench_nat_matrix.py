"""Every kind of NAT against every other, in the lab: who wins, how long it takes, and what stays apart.

    uv run python benchmarks/bench_nat_matrix.py [--runs N] [--relay | --no-relay] [--pairs a:b,c:d]
        [--both-ways] [--aioice | --aioice-only] [--json FILE] [--write-docs]

Real network namespaces with real NATs, mosquitto and coturn (`tests/lab`); needs root. Each attempt has two
nodes of its own with every plugin that is installed, which know their NATs already ("warm"); the time is that
of `auto_connect`, until the caller holds the pipe. A pair that cannot be joined is a row like any other.
Without ``--relay`` or ``--no-relay`` everything is measured both without and with a relay.
``--write-docs`` writes docs/nat-matrix.md and docs/nat-matrix.svg. ``--from FILE``, given once or more, takes
what ``--json`` stored instead of measuring. ``--aioice`` has aioice join each pair too, right after ours.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Generator
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import nat_matrix_ice as ice  # noqa: E402 - needs the path above
from benchmarks import nat_matrix_page as page  # noqa: E402
from tests.lab import Nat  # noqa: E402
from tests.lab.matrix import Outcome, make_matrix  # noqa: E402

DELAY = 0.020  # s one way per line: P = 80 ms between two homes, S = 40 ms through a broker
TIMEOUT = 20.0  # s; `NodeConfig.timeout`
DOCS = ROOT / "docs"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="connect every kind of NAT with every other")
    parser.add_argument("--runs", type=int, default=1, help="attempts per pair (default %(default)s)")
    parser.add_argument("--relay", action=argparse.BooleanOptionalAction, help="only with, or only without")
    parser.add_argument("--pairs", default="", help="caller:callee,... by the names in docs/testing.md")
    parser.add_argument("--both-ways", action="store_true", help="each pair with either side calling")
    parser.add_argument("--delay", type=float, default=DELAY, help="s one way per line (default %(default)s)")
    parser.add_argument("--loss", type=float, default=0.0, help="share lost per line and direction")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="s (default %(default)s)")
    parser.add_argument("--aioice", action="store_true", help="the same pairs with aioice, for comparison")
    parser.add_argument("--aioice-only", action="store_true", help="with aioice alone")
    parser.add_argument("--json", type=Path, help="store every attempt here")
    parser.add_argument("--from", type=Path, action="append", dest="source", help="do not measure, read this")
    parser.add_argument("--note", default="", help="a sentence for the page, on what else the machine did")
    parser.add_argument("--write-docs", action="store_true", help="write docs/nat-matrix.md and .svg")
    return parser.parse_args()


def pairs_of(text: str, both_ways: bool) -> list[tuple[Nat, Nat]]:
    """What `--pairs` names, or all."""
    if text:
        return [(Nat.named(a), Nat.named(b)) for a, b in (pair.split(":") for pair in text.split(","))]
    return list(product(Nat, Nat)) if both_ways else list(combinations_with_replacement(Nat, 2))


def measure(args: argparse.Namespace) -> Generator[Outcome]:
    """Attempt after attempt; all pairs once, then all again, so that a busy moment does not hit one pair."""
    relays = [False, True] if args.relay is None else [args.relay]
    pairs = pairs_of(args.pairs, args.both_ways)
    with make_matrix(args.delay, args.loss) as matrix:
        for _, relay, (caller, callee) in product(range(args.runs), relays, pairs):
            if not args.aioice_only:
                yield matrix.attempt(caller, callee, relay=relay, timeout=args.timeout)
            if args.aioice or args.aioice_only:
                yield ice.attempt(matrix, caller, callee, relay=relay, delay=args.delay)


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """Where and how this was measured."""
    plugins = {
        point.dist.name: point.dist.version
        for point in importlib.metadata.entry_points(group="warpgate.plugins")
        if point.dist is not None
    }
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "delay": args.delay,
        "loss": args.loss,
        "runs": args.runs,
        "plugins": dict(sorted(plugins.items())),
        "version": importlib.metadata.version("warpgate-core"),
        "aioice": importlib.metadata.version("aioice"),
    }


def tell(outcome: Outcome) -> None:
    """One line as it comes."""
    pair = f"{outcome.caller} -> {outcome.callee}"
    how = f"{outcome.strategy} {outcome.transport} {outcome.kind}" if outcome.joined else outcome.error
    left = f" [left: {outcome.left}]" if outcome.left else ""
    relay = "relay" if outcome.relay else "     "
    print(f"{pair:52} {relay} {outcome.seconds * 1e3:8.0f} ms  {how}{left}", flush=True)


def run(args: argparse.Namespace) -> tuple[list[Outcome], dict[str, Any]]:
    """Measure all; what was measured before an interruption is kept."""
    found: list[Outcome] = []
    where = conditions(args)
    try:
        with contextlib.closing(measure(args)) as attempts:
            for outcome in attempts:
                found.append(outcome)
                tell(outcome)
    finally:
        if args.json:
            stored = {"conditions": where, "outcomes": [dataclasses.asdict(one) for one in found]}
            args.json.write_text(json.dumps(stored) + "\n")
    return found, where


def load(files: list[Path]) -> tuple[list[Outcome], dict[str, Any]]:
    """What `--json` stored; conditions are those of the first file, and what only the last one says."""
    stored = [json.loads(file.read_text()) for file in files]
    return [Outcome(**one) for part in stored for one in part["outcomes"]], (
        stored[-1]["conditions"] | stored[0]["conditions"]
    )


def main() -> int:
    """0 if every pair that can be joined was."""
    args = parse()
    found, where = load(args.source) if args.source else run(args)
    where["note"] = args.note
    cells = page.summarise(one for one in found if one.strategy != page.OTHER)
    others = page.summarise(one for one in found if one.strategy == page.OTHER)
    text = page.markdown(cells, others, where)
    print(text)
    if args.write_docs:
        (DOCS / "nat-matrix.md").write_text(text)
        (DOCS / "nat-matrix.svg").write_text(page.picture(cells, where))
    return 1 if any(cell.wanting for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
