"""The test command: ``uv run python -m tests``.

It prepares the machine as far as it may, then runs the stages of `tests.stages` one after the other, all
of them even if one fails, and ends with a table and one plain line that a program can read::

    412 passed, 0 failed, 3 skipped in 340 s

A check without tests (lint, format, types) counts as one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.prepare import IN_CI, prepare
from tests.stages import STAGES, Result, Stage, run_stage

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests.

    Returns:
        0 if all passed, 1 if something failed, 130 if interrupted.
    """
    options = _parser().parse_args(argv)
    start = time.monotonic()
    try:
        problems = prepare()
        passed_on = [*(["-k", options.k] if options.k else []), *options.pytest]
        results = []
        for stage in _chosen(options):
            result = run_stage(stage, passed_on)
            results.append(result)
            if options.exitfirst and result.failed:
                break
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    if not IN_CI:
        problems = []
    print(_table(results))
    for problem in problems:
        print(f"this machine could not be prepared, which is a failure where CI=true: {problem}")
    failed = sum(result.failed for result in results) + len(problems)
    passed = sum(result.passed for result in results)
    skipped = sum(result.skipped for result in results)
    print(
        f"{passed} passed, {failed} failed, {skipped} skipped in {time.monotonic() - start:.0f} s", flush=True
    )
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests",
        description="Lint, type-check and test everything. Arguments after -- go to pytest.",
    )
    names = [stage.name for stage in STAGES]
    parser.add_argument("--stage", action="append", choices=names, help="only this stage (may be repeated)")
    parser.add_argument("--fast", action="store_true", help="leave out the lab, the longest stage")
    parser.add_argument("-x", "--exitfirst", action="store_true", help="end after the first stage that fails")
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests that match, as in pytest")
    parser.add_argument("pytest", nargs="*", metavar="-- PYTEST ARGUMENT", help="passed on to pytest")
    return parser


def _chosen(options: argparse.Namespace) -> list[Stage]:
    stages = [stage for stage in STAGES if not options.stage or stage.name in options.stage]
    if options.k and not options.stage:
        stages = [stage for stage in stages if stage.has_tests]
    return [stage for stage in stages if not (options.fast and stage.needs_root)]


def _table(results: Sequence[Result]) -> str:
    lines = ["", f"{'stage':<12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}"]
    lines += [
        f"{r.stage.name:<12} {r.passed:>7} {r.failed:>7} {r.skipped:>8} {r.seconds:>8.1f}  {r.note}".rstrip()
        for r in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
