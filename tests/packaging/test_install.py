"""What an installation is: the core alone, one strategy alone, each without a compiler."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.packaging.distributions import CORE, MEMBERS, ROOT, install, read_toml, run, uv

MAX_DISTRIBUTIONS = 14  # of the core with all it needs (DEPENDENCIES: "near 12")
LIST = (
    "import importlib.metadata as m, json;"
    "print(json.dumps(sorted(d.name.lower() for d in m.distributions())))"
)
PLUGINS = (
    "import json; from warpgate_core.registry import Registry; r = Registry(); r.load();"
    "print(json.dumps([p.as_dict() for p in r.records]))"
)


@pytest.fixture(scope="session")
def core_alone(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the core and nothing else."""
    return install(tmp_path_factory.mktemp("core") / "env", wheels, CORE)


def test_the_core_installs_from_wheels_alone(core_alone: Path) -> None:
    found = set(json.loads(run(core_alone, "-I", "-c", LIST))) - {"pip", "setuptools"}
    assert CORE in found
    assert len(found) <= MAX_DISTRIBUTIONS, sorted(found)
    assert not {path.name for path in MEMBERS} & found


def test_the_core_runs_alone_and_without_a_compiler_or_any_other_program(core_alone: Path) -> None:
    assert json.loads(run(core_alone, "-I", "-c", PLUGINS, PATH="")) == []
    run(core_alone, "-I", "-W", "error", "-c", "from warpgate_core import *", PATH="")


def test_every_requirement_of_the_core_has_wheels_for_the_common_systems() -> None:
    """Not only for the machine that this runs on."""
    packages = {p["name"]: p for p in read_toml(ROOT / "uv.lock")["package"]}
    needed: set[str] = set()
    queue = [CORE]
    while queue:
        name = queue.pop()
        if name not in needed:
            needed.add(name)
            queue += [d["name"] for d in packages[name].get("dependencies", [])]
    for name in sorted(needed - {CORE}):
        tags = [wheel["url"].rpartition("/")[2] for wheel in packages[name].get("wheels", [])]
        for system in ("manylinux", "macosx", "win_amd64"):
            assert any(tag.endswith("-none-any.whl") or system in tag for tag in tags), (name, system)


@pytest.mark.parametrize("path", MEMBERS, ids=lambda path: path.name)
def test_a_strategy_installs_alone_from_wheels(path: Path, wheels: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "env", wheels, path.name)
    found = set(json.loads(run(python, "-I", "-c", LIST)))
    assert {CORE, path.name} <= found
    assert not ({other.name for other in MEMBERS} - {path.name}) & found
    records = json.loads(run(python, "-I", "-c", PLUGINS))
    declared = (
        read_toml(path / "pyproject.toml")["project"].get("entry-points", {}).get("warpgate.plugins", {})
    )
    assert {r["name"]: (r["state"], r["distribution"]) for r in records} == dict.fromkeys(
        declared, ("loaded", path.name)
    )


@pytest.mark.skipif(uv() is None, reason="uv is not installed: pip install uv")
@pytest.mark.parametrize("path", MEMBERS, ids=lambda path: path.name)
def test_a_strategy_alone_in_the_workspace(path: Path) -> None:
    tool = uv()
    assert tool is not None
    command = (tool, "run", "--isolated", "--no-default-groups", "--frozen", "--package", path.name)
    found = set(json.loads(run(*command, "python", "-c", LIST)))
    assert {CORE, path.name} <= found
    assert not ({other.name for other in MEMBERS} - {path.name}) & found


@pytest.mark.skipif(uv() is None, reason="uv is not installed: pip install uv")
def test_the_command_line_with_a_single_strategy() -> None:
    """The very command that the design names."""
    tool = uv()
    assert tool is not None
    command = (tool, "run", "--isolated", "--no-default-groups", "--frozen", "--package", "warpgate-turn")
    records = json.loads(run(*command, "warpgate", "plugins", "--json"))
    assert {"direct", "reverse"} <= {r["name"] for r in records}
    assert {r["state"] for r in records} == {"loaded"}
    assert {r["distribution"] for r in records} <= {CORE, "warpgate-turn"}


def test_the_command_line_survives_every_awkward_plugin(core_alone: Path) -> None:
    """Import errors, assertions, sys.exit, duplicates and all the rest, installed at once."""
    folders = sorted(path for path in (ROOT / "tests" / "fixtures" / "plugins").iterdir() if path.is_dir())
    records = json.loads(
        run(
            core_alone.parent / "warpgate", "plugins", "--json", PYTHONPATH=os.pathsep.join(map(str, folders))
        )
    )
    states = {r["name"]: r["state"] for r in records}
    assert {states[name] for name in ("direct", "reverse", "sound", "watcher")} == {"loaded"}
    assert states["sys-exit"] == states["assertion"] == states["import-error"] == "failed"
    assert (states["double"], states["incompatible"]) == ("conflict", "incompatible")
    disabled = run(
        core_alone.parent / "warpgate",
        "plugins",
        "--json",
        PYTHONPATH=os.pathsep.join(map(str, folders)),
        WARPGATE_DISABLE="sys-exit,awkward-assertion",
    )
    states = {r["name"]: r["state"] for r in json.loads(disabled)}
    assert states["sys-exit"] == states["assertion"] == "disabled"
