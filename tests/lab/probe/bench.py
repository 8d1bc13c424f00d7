"""How often and how soon `probe` finds a port: ``python -m tests.lab.probe.bench [--runs N] [--loss L]``.

In memory, with virtual time: lines of 20 ms, signalling of 50 ms one way.
"""

from __future__ import annotations

import argparse

from tests.lab.probe.memory import PAIRS, measure


def main() -> None:
    """Print one line for each pair."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.probe.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--loss", type=float, default=0.0, help="share from 0 to 1, on each of the two lines")
    options = parser.parse_args()
    for one, other in PAIRS:
        found = measure(one, other, options.runs, loss=options.loss)
        print(f"{one:>21} to {other:<21} {found}", flush=True)


if __name__ == "__main__":
    main()
