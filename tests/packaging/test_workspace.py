"""Extras, workspace members, `requirements-dev.txt` and tool settings name the same things."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.distributions import CORE, MEMBERS, ROOT, read_toml

PROJECT = read_toml(ROOT / "pyproject.toml")
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
NAMES = [path.name for path in MEMBERS]
NATIVE = {"netifaces", "aionetiface"}  # extras that are source only: no fresh machine gets them unasked


def name_of(requirement: str) -> str:
    """The distribution that a requirement is about."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0]


def own(path: Path) -> dict[str, Any]:
    """The ``project`` table of a member."""
    table: dict[str, Any] = read_toml(path / "pyproject.toml")["project"]
    return table


def test_there_are_the_four_plugins() -> None:
    assert NAMES == ["warpgate-probe", "warpgate-punch", "warpgate-turn", "warpgate-upnp"]
    assert PROJECT["tool"]["uv"]["workspace"]["members"] == ["plugins/*"]
    assert [own(path)["name"] for path in MEMBERS] == NAMES


def test_every_plugin_is_an_extra_and_all_names_them_all() -> None:
    for name in NAMES:
        assert EXTRAS[name.removeprefix("warpgate-")] == [name]
    assert sorted(EXTRAS["all"]) == NAMES


def test_uv_takes_every_member_from_the_workspace() -> None:
    sources = PROJECT["tool"]["uv"]["sources"]
    assert sources == {name: {"workspace": True} for name in [CORE, *NAMES]}
    for path in MEMBERS:
        assert read_toml(path / "pyproject.toml")["tool"]["uv"]["sources"] == {CORE: {"workspace": True}}


def test_the_type_checker_sees_every_member() -> None:
    seen = {entry.rpartition("/plugins/")[2] for entry in PROJECT["tool"]["mypy"]["mypy_path"][1:]}
    assert seen == {f"{name}/src" for name in NAMES}


def test_requirements_dev_installs_what_uv_sync_does() -> None:
    lines = [
        line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    editable = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    others = {line for line in lines if not line.startswith("-e ")}
    group = PROJECT["dependency-groups"]["dev"]
    assert editable[1:] == [f"plugins/{name}" for name in NAMES]
    assert others == {line for line in group if name_of(line) != CORE}
    (core,) = [line for line in group if name_of(line) == CORE]
    wanted = set(re.findall(r"[a-z]+", core.partition("[")[2]))
    given = set(re.findall(r"[a-z]+", editable[0]))
    assert given == wanted - {"all"}  # which would be looked for on an index
    assert wanted == (set(EXTRAS) - NATIVE - {name.removeprefix("warpgate-") for name in NAMES})


def test_what_needs_a_compiler_is_in_no_default_group() -> None:
    (native,) = PROJECT["dependency-groups"]["native"]
    assert set(re.findall(r"[a-z]+", native.partition("[")[2])) == NATIVE
    assert "default-groups" not in PROJECT["tool"]["uv"]  # then it is "dev" alone


@pytest.mark.parametrize("path", MEMBERS, ids=NAMES)
def test_a_member_is_a_complete_distribution(path: Path) -> None:
    table, core = own(path), PROJECT["project"]
    assert table["version"] == core["version"]
    assert table["requires-python"] == core["requires-python"]
    assert table["license"] == core["license"] == "MIT"
    assert (path / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (path / "README.md").read_text().startswith(f"# {path.name}\n")
    assert table["readme"] == "README.md"
    module = path.name.replace("-", "_")
    assert (path / "src" / module / "py.typed").is_file()
    assert read_toml(path / "pyproject.toml")["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        f"src/{module}"
    ]
    (requirement,) = [line for line in table["dependencies"] if name_of(line) == CORE]
    major, minor = core["version"].split(".")[:2]
    assert requirement == f"{CORE}>={major}.{minor},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("path", MEMBERS, ids=NAMES)
def test_a_plugin_that_has_nothing_yet_declares_nothing(path: Path) -> None:
    """And one that declares entry points has the modules they name."""
    for target in own(path).get("entry-points", {}).get("warpgate.plugins", {}).values():
        module = path / "src" / target.partition(":")[0].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file()


def test_libraries_that_two_distributions_need_are_needed_in_the_same_version() -> None:
    core = {name_of(line): line for line in PROJECT["project"]["dependencies"]}
    for path in MEMBERS:
        for line in own(path)["dependencies"]:
            assert core.get(name_of(line), line) == line
