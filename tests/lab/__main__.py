"""The lab from the terminal: ``python -m tests.lab``.

    python -m tests.lab nats                       what NATs there are
    python -m tests.lab prove [NAT...]             measure them, and compare
    python -m tests.lab run --a port-restricted --b symmetric-random --delay 20 -- COMMAND
                                                   two homes, brokers and coturn; COMMAND runs at home a
    python -m tests.lab clean                      remove what killed labs have left behind

There is no shell in it on purpose: a topology lives as long as one command, so nothing is forgotten.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from tests.lab import Host, Lab, LabError, Nat, sweep
from tests.lab.process import end
from tests.lab.proof import Measured, measure_tcp, measure_udp
from tests.stages import AS_ROOT

__all__ = ["main"]

INSIDE = "WARPGATE_LAB_INSIDE"  # set for ourselves once we are in a user namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the lab; the exit code is the command's, 2 for a wrong call or a missing part."""
    options = _parser().parse_args(argv)
    if os.geteuid() != 0 and INSIDE not in os.environ and options.do is not _list_nats:
        again = [*AS_ROOT, sys.executable, "-m", "tests.lab", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(again, env=os.environ | {INSIDE: "1"}, check=False).returncode
    try:
        code: int = options.do(options)
    except (LabError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Networks to try things in.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("nats", help="list the kinds of NAT")
    listing.set_defaults(do=_list_nats)
    prove = commands.add_parser("prove", help="measure NATs with plain sockets, and compare with their entry")
    prove.add_argument("nats", nargs="*", metavar="NAT", help="all if none is given")
    prove.set_defaults(do=_prove)
    run = commands.add_parser("run", help="run a command at home a, with home b, brokers and coturn around")
    for side in ("a", "b"):
        run.add_argument(f"--{side}", metavar="NAT", default="open", help=f"NAT of home {side} (open)")
    run.add_argument("--delay", type=float, default=0.0, metavar="MS", help="one way on each line, ms (0)")
    run.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="lost on each line (0)")
    run.add_argument("--families", default="4,6", choices=["4", "6", "4,6"], help="(4,6)")
    run.add_argument("--brokers", type=int, default=3, metavar="N", help="how many brokers (3)")
    run.add_argument("--at-b", metavar="COMMAND", help="runs at home b meanwhile; ended with the other")
    run.add_argument("command", nargs="+", metavar="-- COMMAND", help="runs at home a")
    run.set_defaults(do=_run)
    clean = commands.add_parser("clean", help="remove what killed labs have left")
    clean.set_defaults(do=_clean)
    return parser


def _list_nats(options: argparse.Namespace) -> int:
    print(f"{'NAT':<22} {'mapping':<8} {'filtering':<10} ports")
    for nat in Nat:
        what = nat.behaviour
        print(
            f"{nat.slug:<22} {what.mapping.name:<8} {what.filtering.name:<10} {what.allocation.name.lower()}"
        )
    return 0


def _prove(options: argparse.Namespace) -> int:
    wrong = 0
    for nat in [Nat.named(slug) for slug in options.nats] or list(Nat):
        with Lab() as lab:
            net = lab.internet((4,))
            a, prober = net.home("a", nat), net.server("prober", addresses=2)
            for transport, measure in (("UDP", measure_udp), ("TCP", measure_tcp)):
                if transport == "UDP" and not nat.behaviour.udp:
                    continue
                seen = measure(a, prober)
                right = _agrees(nat, seen)
                wrong += not right
                found = f"{seen.mapping.name:<5} {seen.filtering.name:<5} {seen.allocation.name.lower():<11}"
                samples = " ".join(str(outside) for _, outside in seen.ports[:4])
                print(
                    f"{nat.slug:<22} {transport}  {found} {'as it says' if right else 'WRONG':<11} {samples}"
                )
    return 1 if wrong else 0


def _agrees(nat: Nat, seen: Measured) -> bool:
    what = nat.behaviour
    return (seen.mapping, seen.filtering, seen.allocation) == (what.mapping, what.filtering, what.allocation)


def _run(options: argparse.Namespace) -> int:
    families = tuple(int(family) for family in options.families.split(","))
    line = {"delay": options.delay / 1000, "loss": options.loss / 100}
    with Lab() as lab, contextlib.ExitStack() as stack:
        net = lab.internet(families)
        a, b = (
            net.home(name, Nat.named(kind), **line) for name, kind in (("a", options.a), ("b", options.b))
        )
        brokers = net.brokers(options.brokers)
        coturn = net.coturn()
        services = {
            "WARPGATE_BROKERS": ",".join(broker.url(families[0]) for broker in brokers),
            "WARPGATE_STUN": coturn.stun(families[0]),
            "WARPGATE_TURN": coturn.turn_url(families[0], credentials=True),
        }
        if options.at_b:
            stack.callback(end, _start(b, shlex.split(options.at_b), services))
        first = _start(a, options.command, services)
        stack.callback(end, first)
        return first.wait()


def _start(host: Host, argv: Sequence[str], services: dict[str, str]) -> subprocess.Popen[str]:
    """On our own terminal, so no pipes."""
    return host.popen(argv, env=host.environment(**services), stdin=None, stdout=None, stderr=None)


def _clean(options: argparse.Namespace) -> int:
    for prefix in sweep.stale_prefixes():
        for path in sweep.sweep(prefix):
            print(f"removed {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
