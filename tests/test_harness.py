"""The test command and the rules of `conftest.py` do what they say, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import __main__ as command
from tests.prepare import PROGRAMS, missing_programs
from tests.stages import ROOT, STAGES, Result, Stage, count, run_stage

GOOD = "def test_good():\n    pass\n"


def run_pytest(
    folder: Path, text: str, *arguments: str, ci: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a test file under our conftest, in a process of its own."""
    file = folder / "test_inner.py"
    file.write_text(text)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_XDIST_WORKER")}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-c",
            ROOT / "pyproject.toml",
            file,
            *arguments,
        ],
        cwd=ROOT,
        env=clean | {"CI": "true" if ci else ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_left_task_fails_the_test(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path,
        "import asyncio\n"
        "tasks = set()\n"
        "async def test_leaks():\n"
        "    tasks.add(asyncio.create_task(asyncio.sleep(100), name='the leak'))\n"
        "    await asyncio.sleep(0)\n"
        "async def test_cleans_up():\n"
        "    task = asyncio.create_task(asyncio.sleep(100))\n"
        "    task.cancel()\n"
        "    await asyncio.wait([task])\n",
    )
    assert done.returncode == 1
    assert "the leak" in done.stdout
    assert "2 passed, 1 error" in done.stdout


def test_coroutine_tests_really_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "async def test_wrong(tmp_path):\n    assert not tmp_path.exists()\n")
    assert "1 failed" in done.stdout


@pytest.mark.parametrize("marker", ["lab", "broker"])
@pytest.mark.parametrize(("ci", "outcome"), [(True, "1 failed"), (False, "1 skipped")])
def test_a_skip_that_hides_something_fails_in_ci(tmp_path: Path, marker: str, ci: bool, outcome: str) -> None:
    text = f"import pytest\n@pytest.mark.{marker}\ndef test_it():\n    pytest.skip('no such thing here')\n"
    done = run_pytest(tmp_path, text, ci=ci)
    assert outcome in done.stdout
    assert "no such thing here" in done.stdout


def test_other_skips_are_allowed_in_ci(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "import pytest\ndef test_it():\n    pytest.skip('no Windows')\n", ci=True)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


def test_each_test_has_a_home_of_its_own(tmp_path: Path, warpgate_home: Path) -> None:
    assert os.environ["WARPGATE_HOME"] == str(warpgate_home)
    assert warpgate_home.parent == tmp_path
    assert [name for name in os.environ if name.startswith("WARPGATE_")] == ["WARPGATE_HOME"]


def stage_of(folder: Path, text: str, limit: float = 60) -> Stage:
    (folder / "test_inner.py").write_text(text)
    return Stage(
        "inner", "pytest", (str(folder), "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")), limit
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, (1, 0, 0)),
        (GOOD + "def test_bad():\n    assert 0\n", (1, 1, 0)),
        (GOOD + "import pytest\n@pytest.mark.skip\ndef test_x():\n    pass\n", (1, 0, 1)),
        (GOOD + "def test_y(no_such_fixture):\n    pass\n", (1, 1, 0)),
        ("import no_such_module\n", (0, 1, 0)),
        ("", (0, 1, 0)),
        ("import os\ndef test_dies():\n    os._exit(0)\n", (0, 1, 0)),
        ("import os\ndef test_dies():\n    os._exit(3)\n", (0, 1, 0)),
    ],
    ids=["good", "bad", "skip", "error", "import", "empty", "dies with 0", "dies with 3"],
)
def test_a_stage_is_counted(tmp_path: Path, text: str, expected: tuple[int, int, int]) -> None:
    result = run_stage(stage_of(tmp_path, text), [])
    assert (result.passed, result.failed, result.skipped) == expected


def test_a_selection_that_selects_nothing_is_no_failure(tmp_path: Path) -> None:
    result = run_stage(stage_of(tmp_path, GOOD), ["-k", "nothing"])
    assert (result.passed, result.failed, result.note) == (0, 0, "no tests selected")


def test_a_stage_that_hangs_is_ended(tmp_path: Path) -> None:
    text = "import time\ndef test_hangs():\n    time.sleep(1000)\n"
    result = run_stage(stage_of(tmp_path, text, limit=3), [])
    assert (result.failed, result.note) == (1, "ended after 3 s")


def test_half_a_report_counts_for_nothing(tmp_path: Path) -> None:
    half = tmp_path / "report.xml"
    half.write_text('<testsuites><testsuite tests="3"')
    assert count(half) is None
    assert count(tmp_path / "absent.xml") is None


def test_every_test_belongs_to_exactly_one_stage() -> None:
    """What the unit stage ignores is run by another, and the marker splits the rest."""
    unit, integration, lab = (next(s for s in STAGES if s.name == n) for n in ("unit", "integration", "lab"))
    ignored = [argument.removeprefix("--ignore=") for argument in unit.arguments if "--ignore" in argument]
    assert ignored == ["tests/integration", "tests/lab"]
    assert "tests/integration" in integration.arguments
    assert "tests" in lab.arguments
    selections = [stage.arguments[stage.arguments.index("-m") + 1] for stage in (unit, integration, lab)]
    assert selections == ["not lab", "not lab", "lab"]


@pytest.mark.parametrize(
    ("failed", "problems", "ci", "code", "last"),
    [
        (0, [], False, 0, "5 passed, 0 failed, 1 skipped in"),
        (2, [], False, 1, "5 passed, 2 failed, 1 skipped in"),
        (0, ["no tun"], False, 0, "5 passed, 0 failed, 1 skipped in"),
        (0, ["no tun"], True, 1, "5 passed, 1 failed, 1 skipped in"),
    ],
)
def test_the_last_line_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failed: int,
    problems: list[str],
    ci: bool,
    code: int,
    last: str,
) -> None:
    stage = Stage("unit", "pytest", (), 1)
    monkeypatch.setattr(command, "prepare", lambda: problems)
    monkeypatch.setattr(command, "run_stage", lambda *_: Result(stage, 5, failed, 1, 0.1))
    monkeypatch.setattr(command, "IN_CI", ci)
    assert command.main(["--stage", "unit"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_missing_programs_are_found_missing(tmp_path: Path) -> None:
    assert missing_programs(str(tmp_path)) == list(PROGRAMS)
    (tmp_path / "nft").write_text("#!/bin/sh\n")
    (tmp_path / "nft").chmod(0o755)
    assert "nft" not in [program.command for program in missing_programs(str(tmp_path))]
