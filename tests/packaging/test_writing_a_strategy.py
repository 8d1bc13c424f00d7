"""docs/writing-a-strategy.md is complete, true, and its code runs."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.packaging.distributions import ROOT
from warpgate_core.plugins.checks import HookSpec, hook_specs
from warpgate_core.registry import PluginState
from warpgate_core.strategy import MAX_SECTION, Attempt, Strategy, register

TEXT = (ROOT / "docs" / "writing-a-strategy.md").read_text("utf-8")
EXAMPLE = ROOT / "examples" / "warpgate-sidedoor" / "src" / "warpgate_sidedoor" / "__init__.py"
HOOKS = list(hook_specs().values())


def blocks() -> Iterator[tuple[int, str]]:
    """Line and text of each Python block that is to be run."""
    for found in re.finditer(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        yield TEXT.count("\n", 0, found.start()) + 1, found[1]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_every_hook_is_documented_with_its_exact_arguments(hook: HookSpec) -> None:
    wanted = f"`{'async ' if hook.is_async else ''}{hook.name}({', '.join(hook.arguments)})`"
    assert wanted in TEXT, f"docs/writing-a-strategy.md does not describe {wanted}"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_every_hook_is_tested_with_its_exact_arguments(hook: HookSpec) -> None:
    """Some test calls it through a registry, and says what came of it."""
    tests = [
        path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_writing_a_strategy.py"
    ]
    for path in tests:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("call", "call_async", "call_first")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and node.args[0].value == hook.name
                and {keyword.arg for keyword in node.keywords} == set(hook.arguments)
            ):
                return
    pytest.fail(f"no test calls {hook.name}({', '.join(hook.arguments)}) through a registry")


def test_no_hook_is_documented_that_does_not_exist() -> None:
    named = set(re.findall(r"\bwarpgate_(?:node|resolve|pipe)\w*", TEXT))
    assert named == set(hook_specs())


@pytest.mark.parametrize("name", sorted(n for n in dir(Attempt) if not n.startswith("_")))
def test_every_part_of_an_attempt_is_documented(name: str) -> None:
    member = inspect.getattr_static(Attempt, name)
    if not inspect.isfunction(member):
        assert f"`attempt.{name}`" in TEXT
        return
    prefix = "await " if inspect.iscoroutinefunction(member) else ""
    found = re.search(rf"`{prefix}attempt\.{name}\(([^)]*)\)`", TEXT)
    assert found is not None, f"docs/writing-a-strategy.md does not describe attempt.{name}()"
    arguments = [part.partition("=")[0].strip() for part in found[1].split(",") if part.strip()]
    assert arguments == list(inspect.signature(member).parameters)[1:]


@pytest.mark.parametrize("name", sorted(Attempt.__annotations__))
def test_every_attribute_of_an_attempt_is_documented(name: str) -> None:
    assert f"`attempt.{name}`" in TEXT


def test_every_argument_of_register_is_documented() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert table == list(inspect.signature(register).parameters)


def test_every_method_of_a_strategy_and_every_state_is_documented() -> None:
    for name, member in vars(Strategy).items():
        if not name.startswith("_") and callable(getattr(Strategy, name)):
            arguments = list(inspect.signature(getattr(Strategy, name)).parameters)
            arguments = [a for a in arguments if a != "self"]
            assert f"`{name}({', '.join(arguments)})`" in TEXT, (name, member)
    for state in PluginState:
        assert f"`{state}`" in TEXT


def test_figures_are_those_of_the_code() -> None:
    from warpgate_core.engine.session import CONTRIBUTE_BOUND, GRACE
    from warpgate_core.registry import HOOK_TIMEOUT
    from warpgate_core.strategies import BUILT_IN

    assert f"at most {MAX_SECTION} bytes" in TEXT
    assert f"not ready within {CONTRIBUTE_BOUND * 1000:.0f} ms" in " ".join(TEXT.split())
    assert GRACE == 0.5
    assert "half a second later" in " ".join(TEXT.split())
    assert f"{HOOK_TIMEOUT:.0f} s at most" in TEXT
    ranks = {cls.spec.name: cls.spec.rank for cls in BUILT_IN}
    assert f"Direct has {ranks['direct']}, reverse {ranks['reverse']}" in TEXT


def test_the_example_is_the_file() -> None:
    """Word for word, but for the lines that only a file of its own needs."""
    _, shown = next(iter(blocks()))
    source = EXAMPLE.read_text("utf-8")
    skipped = ("from __future__", "__all__", '"""A way in')
    lines = [line for line in source.splitlines() if not line.startswith(skipped)]
    assert [line for line in shown.splitlines() if line] == [line for line in lines if line]


def test_the_example_is_about_twenty_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not isinstance(n, ast.Expr)]
    assert len(statements) <= 25


def test_the_code_runs_from_top_to_bottom() -> None:
    module = ModuleType("the_document")
    sys.modules[module.__name__] = module
    try:
        for line, code in blocks():
            exec(compile("\n" * line + code, "docs/writing-a-strategy.md", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    assert module.registry.records[0].name == "phone-book"
