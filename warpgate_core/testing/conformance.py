"""Runs the conformance checks on a strategy, with or without a test runner.

::

    python -m warpgate_core.testing.conformance my_package:MyWay [--network loopback] [--json]

The checks themselves are in `warpgate_core.testing.checks`; for pytest see
`warpgate_core.testing.pytest_plugin`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from warpgate_core.errors import PluginError, WarpgateError
from warpgate_core.strategy import Strategy
from warpgate_core.testing.checks import CHECKS, Check, ConformanceError
from warpgate_core.testing.loop import DeadlockError, LeakError
from warpgate_core.testing.stage import Subject

__all__ = ["CHECKS", "Check", "ConformanceError", "Outcome", "Subject", "main", "run_checks"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check: `error` is "" if it passed."""

    check: Check
    error: str
    seconds: float


def run_checks(subject: Subject) -> list[Outcome]:
    """Run every check; a strategy that is not even registered gets no further than the first."""
    outcomes: list[Outcome] = []
    for check in CHECKS:
        start = time.perf_counter()
        try:
            check.bind(subject)()
            error = ""
        except (AssertionError, WarpgateError, DeadlockError, LeakError, NotImplementedError) as failure:
            error = _explain(failure)
        outcomes.append(Outcome(check, error, time.perf_counter() - start))
        if error and check is CHECKS[0]:
            break
    return outcomes


def _explain(failure: BaseException) -> str:
    text = " ".join(str(failure).split()) or type(failure).__name__
    if isinstance(failure, NotImplementedError) or "NotImplementedError" in text:
        text += " (to check a strategy with sockets of its own, use --network loopback)"
    return text


def _find(text: str) -> type[Strategy]:
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(f"{text!r} is not there: write package.module:Class ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise PluginError(f"{text!r} is not a strategy class")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Check one strategy and print a table.

    Returns:
        0 if it passed everything, 1 if not, 2 if there is no such strategy.
    """
    parser = argparse.ArgumentParser(
        prog="python -m warpgate_core.testing.conformance", description="Check a Warpgate strategy."
    )
    parser.add_argument("strategy", metavar="PACKAGE.MODULE:CLASS")
    parser.add_argument("--network", choices=("memory", "loopback"), default="memory")
    parser.add_argument("--options", type=json.loads, metavar="JSON", help="the strategy's options")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the engine logs")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    try:
        outcomes = run_checks(Subject(_find(options.strategy), options.network, options.options))
    except WarpgateError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(_as_json(outcomes) if options.json else _as_table(options.strategy, outcomes))
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _as_table(strategy: str, outcomes: Sequence[Outcome]) -> str:
    lines = [strategy]
    for outcome in outcomes:
        state = "FAILED" if outcome.error else "ok"
        lines.append(
            f"  {state:<7}{outcome.check.name:<14}{outcome.seconds:>6.2f} s  {outcome.check.summary}"
        )
        if outcome.error:
            lines.append(f"         {outcome.error}")
    failed = sum(bool(outcome.error) for outcome in outcomes)
    lines.append(f"{len(outcomes) - failed} passed, {failed} failed, {len(CHECKS) - len(outcomes)} not run")
    return "\n".join(lines) + "\n"


def _as_json(outcomes: Sequence[Outcome]) -> str:
    found: list[dict[str, Any]] = [
        {
            "check": o.check.name,
            "passed": not o.error,
            "error": o.error or None,
            "seconds": round(o.seconds, 3),
        }
        for o in outcomes
    ]
    return json.dumps(found, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
