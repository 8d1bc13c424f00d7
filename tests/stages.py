"""The stages of the test command: what each runs, how long it may take, and how its result is counted.

Checks come first because they are quick, then the unit tests in parallel, then what measures time or
builds networks, one test after the other: on the two cores of a small CI machine a parallel run would
measure its own neighbours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "STAGES", "Result", "Stage", "count", "run_stage"]

ROOT = Path(__file__).resolve().parents[1]
WORKERS = "2"  # parallel unit tests; a small CI machine has two cores
TYPED = ("warpgate_core", "plugins/*/src", "examples", "tests", "benchmarks")
NO_TESTS = 5  # exit code of pytest when nothing was collected

# Enters a user namespace in which we are root over our own networks, and gives it a /run of its own
# for `ip netns` to keep its names in.
AS_ROOT = [
    *("unshare", "--user", "--map-root-user", "--net", "--mount", "--"),
    *("sh", "-ec", 'mount -t tmpfs tmpfs /run; exec "$@"', "sh"),
]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the test command.

    Args:
        name: for ``--stage``.
        module: of Python, run with ``-m``.
        arguments: of it; ``*`` in a path is expanded.
        limit: seconds after which the stage is ended and has failed.
        needs_root: runs in a user namespace when we are not root.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    limit: float
    needs_root: bool = False

    @property
    def has_tests(self) -> bool:
        """Whether it is a pytest run; else it is a single check."""
        return self.module == "pytest"


STAGES = (
    Stage("lint", "ruff", ("check",), 300),
    Stage("format", "ruff", ("format", "--check"), 300),
    Stage("types", "mypy", TYPED, 900),
    Stage(
        "unit",
        "pytest",
        (
            "tests",
            "plugins",
            "--ignore=tests/integration",
            "--ignore=tests/lab",
            "-m",
            "not lab",
            "-n",
            WORKERS,
        ),
        1800,
    ),
    Stage("integration", "pytest", ("tests/integration", "-m", "not lab"), 1200),
    Stage("lab", "pytest", ("tests", "plugins", "-m", "lab"), 1800, needs_root=True),
)


@dataclass(frozen=True, slots=True)
class Result:
    """How a stage went.

    Args:
        stage: which.
        passed: tests (a stage without tests counts as one).
        failed: tests, errors included.
        skipped: tests.
        seconds: it took.
        note: what else is to be known, for people.
    """

    stage: Stage
    passed: int
    failed: int
    skipped: int
    seconds: float
    note: str = ""


def run_stage(stage: Stage, pytest_arguments: Sequence[str]) -> Result:
    """Run one stage with its output on ours."""
    with tempfile.TemporaryDirectory(prefix="warpgate-tests-") as folder:
        report = Path(folder) / "report.xml"
        argv = [sys.executable, "-m", stage.module, *_expanded(stage.arguments)]
        if stage.has_tests:
            argv += [f"--junitxml={report}", *pytest_arguments]
        if stage.needs_root and (enter := _become_root()):
            # In there we are called root, whose folder in /tmp may be the real root's.
            argv = [*enter, *argv, f"--basetemp={folder}/tests"]
        print(f"\n=== {stage.name}: {' '.join(argv)}", flush=True)
        start = time.monotonic()
        try:
            code: int | None = subprocess.run(argv, cwd=ROOT, check=False, timeout=stage.limit).returncode
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - start
        if not stage.has_tests:
            return Result(stage, int(code == 0), int(code != 0), 0, seconds)
        return _judge(stage, code, report, seconds, narrowed=bool(pytest_arguments))


def count(report: Path) -> tuple[int, int, int] | None:
    """Passed, failed and skipped tests in a JUnit report; None if there is none, or half of one."""
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (FileNotFoundError, ET.ParseError):
        return None
    total, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return max(0, total - failed - skipped), failed, skipped


def _become_root() -> list[str]:
    """What makes a command root over networks of its own; nothing where that is not needed or not allowed."""
    if os.geteuid() == 0:
        return []
    if shutil.which("unshare") is None:
        print("no `unshare` here, so the lab will skip (package util-linux)")
        return []
    tried = subprocess.run([*AS_ROOT, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        print(f"this system allows no user namespace, so the lab will skip: {tried.stderr.strip()}")
        return []
    return AS_ROOT


def _judge(stage: Stage, code: int | None, report: Path, seconds: float, narrowed: bool) -> Result:
    """What a pytest run amounts to; an exit code that the report cannot explain is a failure."""
    counted = count(report)
    passed, failed, skipped = counted or (0, 0, 0)
    note = ""
    if code is None:
        note = f"ended after {stage.limit:.0f} s"
    elif code == NO_TESTS:
        note = "no tests selected" if narrowed else "no tests found"
    elif counted is None:
        note = f"pytest ended with {code} and left no report"
    elif code != 0 and not failed:
        note = f"pytest ended with {code}"
    if note and not (code == NO_TESTS and narrowed):
        failed += 1
    return Result(stage, passed, failed, skipped, seconds, note)


def _expanded(arguments: Sequence[str]) -> list[str]:
    """Paths with ``*`` filled in; a folder without any Python file is left out, as mypy refuses it."""
    found: list[str] = []
    for argument in arguments:
        if argument not in TYPED:
            found.append(argument)
            continue
        folders = sorted(ROOT.glob(argument))
        found += [str(path.relative_to(ROOT)) for path in folders if next(path.rglob("*.py"), None)]
    return found
