"""The hook specifications themselves; that each is documented and tested is in tests/packaging."""

from __future__ import annotations

import inspect

import pluggy

from warpgate_core.hookspecs import PROJECT, NodeHooks, hookimpl
from warpgate_core.plugins.checks import hook_specs


def test_names_arguments_and_kinds_are_what_plugins_were_written_against() -> None:
    """A change here breaks installed plugins: raise API_VERSION with it."""
    shape = {spec.name: (spec.arguments, spec.is_async) for spec in hook_specs().values()}
    assert shape == {
        "warpgate_node_service": (("context",), False),
        "warpgate_node_status": ((), False),
        "warpgate_resolve": (("name",), True),
        "warpgate_pipe_opened": (("pipe",), False),
        "warpgate_pipe_closed": (("pipe", "error"), False),
    }


def test_every_public_function_is_a_hook_with_one_line_about_it() -> None:
    functions = {name for name, value in vars(NodeHooks).items() if inspect.isfunction(value)}
    assert functions == set(hook_specs())
    assert all(name.startswith("warpgate_") for name in functions)
    assert all(spec.summary for spec in hook_specs().values())


def test_pluggy_itself_reads_the_specifications() -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(NodeHooks)

    class Plugin:
        @hookimpl
        def warpgate_pipe_closed(self, error: object) -> object:
            return error

    manager.register(Plugin())
    assert manager.hook.warpgate_pipe_closed(pipe=None, error="why") == ["why"]
