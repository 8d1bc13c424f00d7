"""What is in the wheels: all of the package, the licence, the entry points, and no tests."""

from __future__ import annotations

import email
import tarfile
import zipfile
from configparser import ConfigParser
from email.message import Message
from pathlib import Path

import pytest

from tests.packaging.distributions import CORE, MEMBERS, ROOT, read_toml

NAMES = [CORE, *(path.name for path in MEMBERS)]
FOLDERS = dict(zip(NAMES, [ROOT, *MEMBERS], strict=True))


def sources(name: str) -> set[str]:
    """Files of the package in the checkout, as they must stand in the wheel."""
    base = ROOT if name == CORE else FOLDERS[name] / "src"
    package = base / name.replace("-", "_")
    return {
        path.relative_to(base).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def open_wheel(wheels: Path, name: str) -> zipfile.ZipFile:
    (path,) = wheels.glob(f"{name.replace('-', '_')}-*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile, file: str) -> str:
    (path,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{file}")]
    return wheel.read(path).decode()


def header(wheels: Path, name: str) -> Message:
    with open_wheel(wheels, name) as wheel:
        return email.message_from_string(metadata(wheel, "METADATA"))


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_holds_the_package_and_nothing_else(name: str, wheels: Path) -> None:
    with open_wheel(wheels, name) as wheel:
        packed = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert packed == sources(name)
    assert f"{name.replace('-', '_')}/py.typed" in packed
    assert not [n for n in packed if "tests/" in n or n.startswith(("docs", "examples", "benchmarks"))]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_says_what_an_index_shows(name: str, wheels: Path) -> None:
    found = header(wheels, name)
    table = read_toml(FOLDERS[name] / "pyproject.toml")["project"]
    assert (found["Name"], found["Version"]) == (name, table["version"])
    assert found["License-Expression"] == "MIT"
    assert found["License-File"] == "LICENSE"
    assert found["Requires-Python"] == ">=3.11"
    assert found["Summary"] == table["description"]
    assert "Typing :: Typed" in found.get_all("Classifier", [])
    assert str(found.get_payload()).strip() == (FOLDERS[name] / "README.md").read_text().strip()
    with open_wheel(wheels, name) as wheel:
        assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_entry_points_of_the_core(wheels: Path) -> None:
    with open_wheel(wheels, CORE) as wheel:
        entries = ConfigParser()
        entries.read_string(metadata(wheel, "entry_points.txt"))
        assert dict(entries["console_scripts"]) == {"warpgate": "warpgate_core.cli:main"}
        (plugin,) = entries["pytest11"].values()
        assert plugin.replace(".", "/") + ".py" in wheel.namelist()
        assert "warpgate.plugins" not in entries  # direct and reverse enter by registry.add, uninstallable


@pytest.mark.parametrize("name", NAMES)
def test_extras_and_requirements_reach_the_metadata(name: str, wheels: Path) -> None:
    table = read_toml(FOLDERS[name] / "pyproject.toml")["project"]
    found = header(wheels, name)
    assert set(found.get_all("Provides-Extra", [])) == set(table.get("optional-dependencies", {}))
    required = [line for line in found.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == len(table["dependencies"])


@pytest.mark.parametrize("name", NAMES)
def test_a_source_distribution_holds_what_a_wheel_needs(name: str, wheels: Path) -> None:
    """The wheels here were built from it, so it is complete; it also has no rubbish in it."""
    (path,) = wheels.glob(f"{name.replace('-', '_')}-*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= packed
    rubbish = [n for n in packed if "__pycache__" in n or n.startswith((".venv", ".mypy", "dist/"))]
    assert not rubbish
