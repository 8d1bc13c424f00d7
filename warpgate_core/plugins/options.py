"""A plugin's options: from the loose keys that a person writes to the plugin's own dataclass.

Unknown keys and wrong types are refused with the plugin's name, the key and what would be right, and
texts of secret-looking fields are masked. Checked are the annotations that options really have: plain
types, unions, literals, enums, lists, tuples, mappings and classes; what is beyond that (a `Protocol`,
a `TypeVar`) passes unchecked. Rejected: pydantic (7 MB and 130 ms of import for this one page).
"""

from __future__ import annotations

import collections.abc
import difflib
import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from warpgate_core.errors import ConfigError

__all__ = ["masked", "parse_options"]

_SECRET = ("password", "secret", "credential", "token", "key")
_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set)
_MAPPINGS = (dict, collections.abc.Mapping)


def masked(name: str, value: object) -> str:
    """`repr` of a value for an error text, hidden if the name sounds like a secret."""
    if any(word in name.lower() for word in _SECRET):
        return "***"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_options(
    name: str, kind: type[Any] | None, given: object, settings: Mapping[str, Any] | None = None
) -> Any:
    """Make a plugin's options.

    Args:
        name: the plugin, for texts.
        kind: its options dataclass; None: it takes none.
        given: a mapping of field to value, an instance of `kind`, or None for the defaults.
        settings: of the node; a field with ``metadata={"setting": "turn"}`` that was not given takes the
            one of that name.

    Returns:
        An instance of `kind`, or None.

    Raises:
        ConfigError: unknown key, wrong type, or refused by the dataclass itself.
    """
    where = f"options of plugin {name!r}"
    if kind is None:
        if given is None or given == {}:
            return None
        raise ConfigError(f"{where}: the plugin takes no options; remove {masked(name, given)}")
    if isinstance(given, kind):
        return given
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: write a dict of option and value, not {type(given).__name__}")
    assert is_dataclass(kind)
    known = {field.name: field for field in fields(kind) if field.init}
    types_ = _hints(kind)
    there = settings or {}
    asking = {key: str(field.metadata.get("setting", "")) for key, field in known.items()}
    values = {key: there[setting] for key, setting in asking.items() if setting in there}
    for key, value in given.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{where}: there is no option {key!r}; {hint}Known are: {', '.join(known) or 'none'}"
            )
        values[key] = _convert(f"{where}: {key}", key, types_.get(key, Any), value)
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _hints(kind: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # noqa: BLE001 - names under TYPE_CHECKING: then only the keys are checked
        return {}


def _convert(where: str, key: str, wanted: Any, value: Any) -> Any:
    """The value as the annotation wants it; `ConfigError` if it cannot be."""
    try:
        return _fit(wanted, value)
    except _WrongTypeError:
        raise ConfigError(f"{where} must be {_name(wanted)}, not {masked(key, value)}") from None


class _WrongTypeError(Exception):
    """A value does not fit its annotation; `_convert` says which."""


def _fit(wanted: Any, value: Any) -> Any:
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return _fit(typing.get_args(wanted)[0], value)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(typing.get_args(wanted), value)
    if origin is typing.Literal:
        return _require(
            any(value == choice and type(value) is type(choice) for choice in typing.get_args(wanted)), value
        )
    if origin is not None:
        return _fit_container(origin, typing.get_args(wanted), value)
    if wanted is None or wanted is type(None):
        return _require(value is None, value)
    if not isinstance(wanted, type) or wanted is object:
        return value
    return _fit_plain(wanted, value)


def _fit_plain(wanted: type, value: Any) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is int:
        return _require(isinstance(value, int) and not isinstance(value, bool), value)
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if issubclass(wanted, enum.Enum) and not isinstance(value, wanted):
        try:
            return wanted(value)
        except ValueError:
            raise _WrongTypeError from None
    try:
        return _require(isinstance(value, wanted), value)
    except TypeError:  # a Protocol that is not runtime-checkable
        return value


def _fit_union(choices: tuple[Any, ...], value: Any) -> Any:
    for exact in (True, False):  # 1 for `float | int` stays 1
        for choice in choices:
            if exact and not (isinstance(choice, type) and type(value) is choice):
                continue
            try:
                return _fit(choice, value)
            except _WrongTypeError:
                continue
    raise _WrongTypeError


def _fit_container(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str | bytes):
        raise _WrongTypeError  # a text is a sequence of texts, which nobody means
    if origin is tuple:
        _require(isinstance(value, tuple | list), value)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_fit(arguments[0], item) for item in value)
        _require(len(value) == len(arguments), value)
        return tuple(_fit(kind, item) for kind, item in zip(arguments, value, strict=True))
    if origin in _SEQUENCES:
        _require(isinstance(value, list | tuple), value)
        items = [_fit(arguments[0], item) for item in value]
        return tuple(items) if isinstance(value, tuple) and origin is not list else items
    if origin in _SETS:
        _require(isinstance(value, set | frozenset | list | tuple), value)
        made = {_fit(arguments[0], item) for item in value}
        return made if origin is set else frozenset(made)
    if origin in _MAPPINGS:
        _require(isinstance(value, Mapping), value)
        return {_fit(arguments[0], key): _fit(arguments[1], item) for key, item in value.items()}
    if isinstance(origin, type):
        return _require(isinstance(value, origin), value)
    return value


def _require(condition: bool, value: Any) -> Any:
    if not condition:
        raise _WrongTypeError
    return value


def _name(wanted: Any) -> str:
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in wanted)
    if typing.get_origin(wanted) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(wanted))
    if isinstance(wanted, type) and typing.get_origin(wanted) is None:
        return wanted.__name__
    return str(wanted).replace("typing.", "").replace("collections.abc.", "")
