"""How often and how soon `probe` finds a port: ``python -m tests.lab.probe.bench [--runs N] [--lab]``.

In memory, with virtual time: lines of 20 ms, signalling of 50 ms one way. With ``--lab`` between real NATs of
the lab, on lines of 20 ms, with real brokers: half a minute for ten runs of one pair.
"""

from __future__ import annotations

import argparse

from tests.lab import Nat
from tests.lab.e2e.world import make_world
from tests.lab.probe.laboratory import Homes
from tests.lab.probe.memory import PAIRS, measure

_CONE, _RANDOM, _COUNTED = Nat.PORT_RESTRICTED, Nat.SYMMETRIC_RANDOM, Nat.SYMMETRIC_SEQUENTIAL
LAB_PAIRS = [
    (_CONE, _RANDOM),
    (_RANDOM, _CONE),
    (_CONE, Nat.CARRIER_SYMMETRIC),
    (Nat.CARRIER_SYMMETRIC, _CONE),
    (_CONE, _COUNTED),
    (_COUNTED, _CONE),
    (_COUNTED, _COUNTED),
    (_CONE, Nat.PORT_CHUNKED),
    (Nat.PORT_CHUNKED, _CONE),
]


def main() -> None:
    """Print one line for each pair."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.probe.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--loss", type=float, default=0.0, help="share from 0 to 1, on each of the two lines")
    parser.add_argument("--lab", action="store_true", help="between real NATs")
    options = parser.parse_args()
    if options.lab:
        with make_world() as world:
            homes = Homes(world)
            for client, server in LAB_PAIRS:
                found = homes.measure(client, server, options.runs)
                print(f"{client.slug:>21} to {server.slug:<21} {found}", flush=True)
            print(*homes.failures, sep="\n")
        return
    for one, other in PAIRS:
        found = measure(one, other, options.runs, loss=options.loss)
        print(f"{one:>21} to {other:<21} {found}", flush=True)


if __name__ == "__main__":
    main()
