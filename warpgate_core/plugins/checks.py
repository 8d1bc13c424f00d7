"""Whether an object keeps to the plugin contract, said in sentences that tell its author what to do.

Everything that Python (or pluggy) would let pass and fail on later, in the middle of a race or never,
is refused here once: a misspelt hook, an argument that does not exist, ``def`` where ``async def`` is
wanted. Pure functions over the object; nothing of it is called.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from typing import Any

from warpgate_core.errors import PluginError
from warpgate_core.hookspecs import PROJECT, NodeHooks
from warpgate_core.strategy import API_VERSION, OLDEST_API_VERSION, Strategy, StrategySpec

__all__ = [
    "HookSpec",
    "IncompatiblePluginError",
    "check_api_version",
    "check_hooks",
    "check_strategy",
    "did_you_mean",
    "hook_specs",
    "options_type",
]

_PREFIX = "warpgate_"
_CLOSE = 0.75  # difflib ratio: "contribut" is 0.95 of "contribute", "configure" only 0.63


class IncompatiblePluginError(PluginError):
    """The plugin was written for another version of the contract."""


@dataclass(frozen=True, slots=True)
class HookSpec:
    """One hook of `NodeHooks`.

    Args:
        name: the hook's name.
        arguments: names of its arguments.
        is_async: whether implementations are ``async def``.
        summary: first line of its docstring.
    """

    name: str
    arguments: tuple[str, ...]
    is_async: bool
    summary: str


@lru_cache(maxsize=1)
def hook_specs() -> dict[str, HookSpec]:
    """The hooks there are, by name."""
    found = {}
    for name, function in vars(NodeHooks).items():
        if hasattr(function, f"{PROJECT}_spec"):
            arguments = tuple(inspect.signature(function).parameters)[1:]
            summary = (inspect.getdoc(function) or "").split("\n", 1)[0]
            found[name] = HookSpec(name, arguments, inspect.iscoroutinefunction(function), summary)
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` with a leading blank, or "" if nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_api_version(version: object, what: str) -> None:
    """Raise `IncompatiblePluginError` unless this core knows the contract's version.

    Args:
        version: what the plugin says; 1 and up.
        what: names the plugin in the text.
    """
    if not isinstance(version, int) or isinstance(version, bool):
        raise PluginError(f"{what}: api_version must be a whole number, not {version!r}")
    if OLDEST_API_VERSION <= version <= API_VERSION:
        return
    side = "warpgate-core" if version > API_VERSION else "the plugin"
    raise IncompatiblePluginError(
        f"{what} is written for plugin contract {version}; this warpgate-core knows {OLDEST_API_VERSION} "
        f"to {API_VERSION}. Upgrade {side}"
    )


def check_strategy(cls: type[Strategy]) -> StrategySpec:
    """Check a strategy class.

    Returns:
        Its spec.

    Raises:
        IncompatiblePluginError: other version of the contract.
        PluginError: anything else that would fail later.
    """
    what = f"strategy class {cls.__qualname__}"
    spec = vars(cls).get("spec")
    if not isinstance(spec, StrategySpec):
        raise PluginError(f"{what} is not registered: put @register('its-name') on the class itself")
    check_api_version(spec.api_version, f"strategy {spec.name!r}")
    _check_near_misses(cls, what)
    for name in ("contribute", "run"):
        _check_coroutine(cls, name, what, ("attempt",))
    _check_coroutine(cls, "close", what, ())
    _check_plausible(cls, what)
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(f"{what} does not define {', '.join(missing)}()")
    try:
        inspect.signature(cls).bind(None)
    except TypeError as error:
        raise PluginError(f"{what}: __init__ must take the options and nothing else: {error}") from error
    return spec


def _check_near_misses(cls: type[Strategy], what: str) -> None:
    """A misspelt ``contribute`` would silently contribute nothing."""
    own = {name for klass in cls.__mro__ if klass is not Strategy for name in vars(klass)}
    for name in sorted(own):
        if name in vars(Strategy) or not inspect.iscoroutinefunction(inspect.getattr_static(cls, name, None)):
            continue
        wanted = [n for n in ("contribute", "run", "close") if n not in own]
        if close := difflib.get_close_matches(name, wanted, n=1, cutoff=_CLOSE):
            raise PluginError(f"{what} defines {name}(), which nobody calls. Did you mean {close[0]}()?")


def _check_coroutine(cls: type[Strategy], name: str, what: str, arguments: tuple[str, ...]) -> None:
    function = inspect.getattr_static(cls, name)
    wanted = f"async def {name}({', '.join(('self', *arguments))})"
    if not inspect.isfunction(function):
        raise PluginError(f"{what}: {name} must be a method, written as `{wanted}`")
    if inspect.isasyncgenfunction(function):
        raise PluginError(f"{what}: {name}() must not yield; write it as `{wanted}`")
    if not inspect.iscoroutinefunction(function):
        raise PluginError(f"{what}: {name}() must be a coroutine function; write it as `{wanted}`")
    try:
        inspect.signature(function).bind(None, *arguments)
    except TypeError as error:
        raise PluginError(f"{what}: {name}() has the wrong arguments ({error}); write `{wanted}`") from error


def _check_plausible(cls: type[Strategy], what: str) -> None:
    wanted = "@classmethod def plausible(cls, role, local, peer)"
    holder = inspect.getattr_static(cls, "plausible")
    if not isinstance(holder, classmethod) or inspect.iscoroutinefunction(holder.__func__):
        raise PluginError(f"{what}: plausible() must be a plain class method; write it as `{wanted}`")
    try:
        inspect.signature(cls.plausible).bind("role", "local", "peer")
    except TypeError as error:
        raise PluginError(
            f"{what}: plausible() has the wrong arguments ({error}); write `{wanted}`"
        ) from error


def check_hooks(obj: object) -> dict[str, str]:
    """Check the hook implementations of a module, an object, or a strategy class.

    Returns:
        Which attribute implements which hook; may be empty.

    Raises:
        PluginError: one of them is misspelt, unmarked, or has the wrong shape.
    """
    specs = hook_specs()
    found = {}
    for attr, function, holder in _functions(obj):
        options = getattr(holder, f"{PROJECT}_impl", None) or getattr(function, f"{PROJECT}_impl", None)
        if options is None:
            _check_unmarked(obj, attr, function)
            continue
        name = options.get("specname") or attr
        if name not in specs:
            raise PluginError(
                f"{attr}() implements a hook that does not exist: {name!r}.{did_you_mean(name, specs)} "
                f"Hooks are {', '.join(sorted(specs))}"
            )
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginError(f"{attr}(): hook wrappers are not supported, each plugin is called on its own")
        _check_implementation(obj, attr, function, holder, specs[name])
        found[attr] = name
    return found


def _functions(obj: object) -> Iterator[tuple[str, Callable[..., Any], object]]:
    """Every Python function that is an attribute: name, the function, what holds it. Runs no property."""
    for attr in dir(obj):
        holder = inspect.getattr_static(obj, attr, None)
        function = holder
        if isinstance(holder, staticmethod | classmethod | types.MethodType):
            function = holder.__func__
        if inspect.isfunction(function):
            yield attr, function, holder


def _check_unmarked(obj: object, attr: str, function: Callable[..., Any]) -> None:
    if not attr.startswith(_PREFIX):
        return
    if isinstance(obj, types.ModuleType) and function.__module__ != obj.__name__:
        return  # imported from elsewhere
    hint = "" if attr in hook_specs() else did_you_mean(attr, hook_specs())
    raise PluginError(
        f"{attr}() looks like a hook but is not marked with @hookimpl, so nobody would call it.{hint} "
        f"Mark it, or give it a name that does not begin with {_PREFIX!r}"
    )


def _check_implementation(
    obj: object, attr: str, function: Callable[..., Any], holder: object, spec: HookSpec
) -> None:
    if isinstance(obj, type) and holder is function:
        raise PluginError(
            f"{attr}(): a hook on a strategy class must be a static or class method, because each object "
            "of the class lives for one attempt only"
        )
    if spec.is_async != inspect.iscoroutinefunction(function):
        wanted = "async def" if spec.is_async else "a plain def, not async"
        raise PluginError(f"{attr}(): the hook {spec.name!r} must be written as {wanted}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{attr}(): the hook {spec.name!r} must return its result, not yield it")
    for parameter in inspect.signature(getattr(obj, attr)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        has_default = parameter.default is not parameter.empty
        if parameter.name in spec.arguments:
            if has_default or parameter.kind is parameter.KEYWORD_ONLY:
                raise PluginError(
                    f"{attr}(): argument {parameter.name!r} would never be filled; make it an ordinary "
                    "argument without a default"
                )
        elif not has_default:
            raise PluginError(
                f"{attr}(): the hook {spec.name!r} has no argument {parameter.name!r}."
                f"{did_you_mean(parameter.name, spec.arguments)} It has {', '.join(spec.arguments)}"
            )


def options_type(plugin: type) -> type[Any] | None:
    """The options dataclass of a hook plugin's class: its attribute ``Options``, if there is one.

    Raises:
        PluginError: there is one that is not a dataclass.
    """
    found = getattr(plugin, "Options", None)
    if found is not None and not (isinstance(found, type) and is_dataclass(found)):
        raise PluginError(f"{plugin.__qualname__}.Options must be a dataclass")
    return found
