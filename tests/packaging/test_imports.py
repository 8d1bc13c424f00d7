"""Who imports whom: downward only, third-party libraries in their own corner, and nothing done by it.

Every module is parsed, and each is imported alone in a process of its own (a fork of one that has the
libraries loaded already, so that 150 of them take seconds).
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.distributions import MEMBERS, ROOT

PACKAGE = ROOT / "warpgate_core"

# From the bottom up; a unit imports only from lines below its own. The package root re-exports and is
# imported by nobody inside.
LAYERS = (
    "errors",
    "endpoint nat clock trace tasks keys",
    "address_parts identity",
    "address_codec",
    "address_text",
    "address",
    "net",
    "signal pipe turn_server",
    "strategy config",
    "hookspecs",
    "plugins",
    "registry",
    "session race",
    "strategies testing",
    "engine",
    "service backlog",
    "compose",
    "node",
    "connect",
    "testing.stage",
    "testing.checks",
    "testing.conformance",
    "testing.pytest_plugin",
    "cli",
    "__main__",
)
RANK = {unit: number for number, line in enumerate(LAYERS) for unit in line.split()}

CORNERS = {  # which units may import a library
    "aioice": {"net"},
    "aiomqtt": {"signal"},
    "aionetiface": set[str](),  # its objects are known by their shape, its list is read as a file
    "amqtt": {"signal", "cli"},
    "coincurve": {"keys"},
    "cryptography": {"keys", "session", "signal", "identity"},
    "ecdsa": {"keys"},
    "ifaddr": {"net"},
    "netifaces": {"net"},
    "ntplib": {"net"},
    "paho": {"signal"},
    "platformdirs": {"identity"},
    "pluggy": {"hookspecs", "plugins"},
    "pytest": {"testing.pytest_plugin"},
    "rich": {"cli"},
    "stevedore": {"plugins"},
    "uvloop": {"cli"},
}


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The part of the package that a module belongs to; "" for the package root."""
    parts = module.split(".")[1:]
    for length in (2, 1):
        if ".".join(parts[:length]) in RANK:
            return ".".join(parts[:length])
    return ".".join(parts[:1])


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and imported name of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name


IDS = [dotted(path) for path in modules()]


def test_every_unit_has_its_place() -> None:
    units = {unit_of(name) for name in IDS} - {""}
    assert units <= set(RANK), f"give them a line in LAYERS: {units - set(RANK)}"


@pytest.mark.parametrize("path", modules(), ids=IDS)
def test_imports_go_downward_only(path: Path) -> None:
    own = unit_of(dotted(path))
    if not own:
        return  # the package root
    wrong = []
    for line, module, name in imports(path):
        if module.partition(".")[0] != "warpgate_core":
            continue
        if module == "warpgate_core" and (PACKAGE / f"{name}.py").is_file():
            module = f"warpgate_core.{name}"
        other = unit_of(module)
        if other != own and not (other and RANK[other] < RANK[own]):
            wrong.append(f"{path}:{line} imports {module or 'the package root'}")
    assert not wrong


@pytest.mark.parametrize("path", modules(), ids=IDS)
def test_libraries_stay_in_their_corner(path: Path) -> None:
    own = unit_of(dotted(path))
    for line, module, _ in imports(path):
        library = module.partition(".")[0]
        if library in ("warpgate_core", "__future__") or library in sys.stdlib_module_names:
            continue
        assert own in CORNERS.get(library, set()), f"{path}:{line} imports {library}; see CORNERS"


@pytest.mark.parametrize("path", [p for m in MEMBERS for p in modules(m / "src")], ids=str)
def test_plugins_import_public_names_only(path: Path) -> None:
    check_public(path)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/src/**/*.py")), ids=str)
def test_outsiders_import_public_names_only(path: Path) -> None:
    check_public(path)


def check_public(path: Path) -> None:
    """Public is what `warpgate_core` itself exports, and the modules of `warpgate_core.testing`."""
    public = set(importlib.import_module("warpgate_core").__all__)
    for line, module, name in imports(path):
        if module.partition(".")[0] != "warpgate_core" or module.startswith("warpgate_core.testing"):
            continue
        assert module == "warpgate_core", f"{path}:{line} imports {module}, which is private"
        assert name in public, f"{path}:{line}: warpgate_core exports no {name}"


# -- __all__ -------------------------------------------------------------------------------------


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize("path", modules(), ids=IDS)
def test_all_names_every_public_function_and_class(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    declared = [
        node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == "__all__"
    ]
    if not [node for node in tree.body if not is_docstring(node)]:
        return  # a package that exists for its modules
    if path.name == "__main__.py":
        return  # nobody imports it
    assert len(declared) == 1, f"{path} needs one explicit __all__"
    assert declared[0] is not None
    exported = ast.literal_eval(declared[0])
    assert len(set(exported)) == len(exported)
    made = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    assert made <= set(exported) | {"__getattr__"}, f"{path}: not in __all__: {made - set(exported)}"


@pytest.mark.parametrize("name", IDS)
def test_all_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert [n for n in getattr(module, "__all__", ()) if not hasattr(module, n)] == []


def test_the_package_root_only_re_exports() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    kinds = {type(node) for node in tree.body[1:]}
    assert kinds <= {ast.ImportFrom, ast.Assign, ast.AnnAssign}
    package = importlib.import_module("warpgate_core")
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported | {"__version__"} >= set(package.__all__)
    assert imported == set(package.__all__) - {"__version__"}


# -- importing -----------------------------------------------------------------------------------

ALONE = """
import json, os, sys, threading, types

import asyncio, logging, importlib.metadata  # what everybody has anyway
import aioice, aiomqtt, cryptography.x509, ifaddr, ntplib, pluggy, stevedore.extension
import cryptography.hazmat.primitives.asymmetric.ec

root, names = sys.argv[1], json.loads(sys.argv[2])
failed = {}
for name in names:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code, text = 0, ""
        try:
            package = types.ModuleType("warpgate_core")  # without the re-exports, which import everything
            package.__path__ = [root]
            if name != "warpgate_core":
                sys.modules["warpgate_core"] = package
            before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
            loggers = [h for h in logging.getLogger().handlers]
            hook, out = sys.excepthook, sys.stdout
            __import__(name)
            after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
            if after != before:
                text = f"it opened {sorted(after - before)}"
            elif threading.active_count() != 1:
                text = f"it started {threading.enumerate()}"
            elif logging.getLogger().handlers != loggers:
                text = "it configured logging"
            elif asyncio._get_running_loop() is not None or asyncio.get_event_loop_policy()._local._loop:
                text = "it made an event loop"
            elif (hook, out) != (sys.excepthook, sys.stdout):
                text = "it changed sys"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:2000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if text:
        failed[name] = text
print(json.dumps(failed))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which this system does not have")
def test_each_module_imports_alone_and_does_nothing_by_it() -> None:
    command = [sys.executable, "-c", ALONE, str(PACKAGE), json.dumps(IDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == {}
