"""How fast and how quietly the program begins: nothing is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import warpgate_core
from tests.core.cli.command import environment

HEAVY = ("asyncio", "cryptography", "rich", "pluggy", "stevedore", "uvloop", "aiomqtt", "logging", "ssl")

# The package's own imports are another matter (benchmarks); these are the terminal's.
PROGRAM = f"""
import sys, types
shell = types.ModuleType("warpgate_core")
shell.__path__ = {list(warpgate_core.__path__)!r}
sys.modules["warpgate_core"] = shell
from warpgate_core.cli import main
code = main(sys.argv[1:])
sys.stderr.write("loaded: " + " ".join(m for m in {HEAVY!r} if m in sys.modules))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["connect", "--help"], 0),
        (["nonsense"], 2),
        (["connect", "--port", "x"], 2),
        ([], 2),
    ],
)
def test_help_and_mistakes_load_nothing_heavy(words: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.endswith("loaded: ")


def test_a_module_and_a_script_are_the_same_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("warpgate")
    shown = [
        subprocess.run(
            [*argv, "--help"], env=environment(tmp_path), capture_output=True, text=True, check=True
        ).stdout
        for argv in ([sys.executable, "-m", "warpgate_core"], [str(script)])
    ]
    assert shown[0] == shown[1]
    assert shown[0].startswith("usage: warpgate ")


def test_version(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "warpgate_core", "--version"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    word, number = done.stdout.split()
    assert word == "warpgate"
    assert number[0].isdigit()
