"""The distributions of this workspace, and building and installing them, with uv or with plain pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["CORE", "MEMBERS", "ROOT", "build_wheels", "constraints", "install", "read_toml", "run", "uv"]

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = tuple(sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml")))
CORE = "warpgate-core"
LIMIT = 300  # s for one build or installation; they take 2 s, on a fresh machine with slow lines 60


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary."""
    return tomllib.loads(path.read_text("utf-8"))


def uv() -> str | None:
    """The uv executable, if there is one."""
    return shutil.which("uv")


def run(*command: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """Run a command to its end and return what it printed; its errors are in the exception."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build_wheels(out: Path, *folders: Path) -> list[Path]:
    """Build a wheel of every folder, through its source distribution, as a release does."""
    for folder in folders:
        if tool := uv():
            _cached_first(tool, "build", "--out-dir", out, folder)
        else:
            run(sys.executable, "-m", "build", "--outdir", out, folder)
    return sorted(out.glob("*.whl"))


def constraints(out: Path) -> Path:
    """The versions of uv.lock as a constraints file, so that nothing newer is looked for."""
    path = out / "constraints.txt"
    packages = read_toml(ROOT / "uv.lock")["package"]
    path.write_text(
        "".join(
            f"{p['name']}=={p['version']}\n"
            for p in packages
            if "editable" not in p.get("source", {}) and "version" in p
        )
    )
    return path


def install(env: Path, wheels: Path, *wanted: str) -> Path:
    """Make a virtual environment and install into it, from wheels alone: no compiler is ever called.

    Returns:
        Its Python.
    """
    python = env / ("Scripts" if os.name == "nt" else "bin") / "python"
    rules = ("--only-binary", ":all:", "--find-links", wheels, "--constraint", constraints(wheels))
    if tool := uv():
        run(tool, "venv", "--quiet", "--python", sys.executable, env)
        _cached_first(tool, "pip", "install", "--quiet", "--python", python, *rules, *wanted)
    else:
        run(sys.executable, "-m", "venv", env)
        run(python, "-m", "pip", "install", "--quiet", *rules, *wanted)
    return python


def _cached_first(*command: str | Path) -> str:
    """Run uv with its cache alone, and only if that lacks something with the network."""
    try:
        return run(*command, UV_OFFLINE="1")
    except AssertionError as error:
        if not re.search("offline|network|cache", str(error), re.IGNORECASE):
            raise
        return run(*command)
