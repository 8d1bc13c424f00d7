"""The outsider's strategy: installed as anybody would, found, raced, and conforming."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.distributions import CORE, ROOT, build_wheels, install, read_toml, run

EXAMPLE = ROOT / "examples" / "warpgate-sidedoor"
MODULE = EXAMPLE / "src" / "warpgate_sidedoor" / "__init__.py"
CHECK = (
    "-I",
    "-m",
    "warpgate_core.testing.conformance",
    "warpgate_sidedoor:SideDoor",
    "--network",
    "loopback",
)


@pytest.fixture(scope="module")
def python(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the core and the outsider's wheel, and nothing else."""
    build_wheels(wheels, EXAMPLE)
    return install(tmp_path_factory.mktemp("outsider") / "env", wheels, CORE, "warpgate-sidedoor")


def test_it_is_found_and_raced_and_connects_alone(python: Path, tmp_path: Path) -> None:
    script = tmp_path / "race.py"  # away from the checkout, which must not be on the path
    script.write_text((Path(__file__).parent / "race_outsider.py").read_text())
    found = json.loads(run(python, script, "sidedoor", cwd=tmp_path))
    assert found["plugins"]["sidedoor"] == ["loaded", "warpgate-sidedoor"]
    assert set(found["plugins"]) == {"direct", "reverse", "sidedoor"}
    assert found["winner"] in found["plugins"]
    assert found["alone"] == "sidedoor"
    assert found["transport"] == "tcp"
    assert found["heard"] == "through the side door"


def test_the_command_line_lists_it(python: Path, tmp_path: Path) -> None:
    records = json.loads(run(python.parent / "warpgate", "plugins", "--json", cwd=tmp_path))
    (record,) = [r for r in records if r["name"] == "sidedoor"]
    assert (record["state"], record["distribution"], record["version"]) == (
        "loaded",
        "warpgate-sidedoor",
        "1.0.0",
    )
    assert record["summary"] == "Opens one more TCP port, for this session alone."


def test_it_passes_the_conformance_checks_without_pytest(python: Path, tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "writing-a-strategy.md").read_text("utf-8")
    assert " ".join(("\npython", *CHECK[1:])) in manual
    out = run(python, *CHECK, cwd=tmp_path)
    assert "0 failed, 0 not run" in out


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """With pytest, as its author runs them."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    command += ["-c", os.devnull, "--import-mode=importlib", str(EXAMPLE / "tests")]
    env = os.environ | {"PYTHONPATH": str(MODULE.parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout


def test_it_depends_on_public_names_only() -> None:
    imported = [
        node.module for node in ast.walk(ast.parse(MODULE.read_text())) if isinstance(node, ast.ImportFrom)
    ]
    assert {module for module in imported if module != "__future__"} == {"warpgate_core"}
    assert read_toml(EXAMPLE / "pyproject.toml")["project"]["dependencies"] == ["warpgate-core>=0.1,<0.2"]
