"""A plugin's options: loose keys in, a checked dataclass out."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from warpgate_core.errors import ConfigError
from warpgate_core.plugins.options import parse_options


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True)
class Server:
    host: str


@dataclass(frozen=True)
class Options:
    count: int = 1
    ratio: float = 0.5
    on: bool = False
    text: str = ""
    maybe: str | None = None
    either: int | str = 0
    word: Literal["a", "b"] = "a"
    mode: Mode = Mode.FAST
    ports: tuple[int, ...] = ()
    pair: tuple[str, int] = ("x", 1)
    names: Sequence[str] = ()
    many: list[float] = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    table: Mapping[str, int] = field(default_factory=dict)
    servers: tuple[Server, ...] = ()
    where: Path = Path()
    anything: Any = None
    password: str = field(default="", repr=False)
    derived: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        if self.count > 100:
            raise ValueError("count must be at most 100")


GOOD: list[tuple[str, object, object]] = [
    ("count", 5, 5),
    ("ratio", 2, 2.0),
    ("on", True, True),
    ("maybe", None, None),
    ("maybe", "x", "x"),
    ("either", "x", "x"),
    ("either", 3, 3),
    ("word", "b", "b"),
    ("mode", "slow", Mode.SLOW),
    ("mode", Mode.SLOW, Mode.SLOW),
    ("ports", [1, 2], (1, 2)),
    ("pair", ["y", 2], ("y", 2)),
    ("names", ["a"], ["a"]),
    ("names", ("a",), ("a",)),
    ("many", (1, 2.5), [1.0, 2.5]),
    ("tags", ["a", "a"], frozenset({"a"})),
    ("table", {"a": 1}, {"a": 1}),
    ("servers", [Server("h")], (Server("h"),)),
    ("where", "/tmp", Path("/tmp")),
    ("anything", object, object),
]


@pytest.mark.parametrize(("key", "value", "made"), GOOD)
def test_values_that_fit(key: str, value: object, made: object) -> None:
    result = getattr(parse_options("p", Options, {key: value}), key)
    assert result == made
    assert type(result) is type(made)


BAD: list[tuple[str, object, str]] = [
    ("count", "5", "must be int, not '5'"),
    ("count", True, "must be int, not True"),
    ("count", 1.5, "must be int"),
    ("ratio", "1", "must be float"),
    ("on", 1, "must be bool"),
    ("text", b"x", "must be str"),
    ("maybe", 5, r"must be str \| None"),
    ("either", None, r"must be int \| str"),
    ("word", "c", "must be one of 'a', 'b'"),
    ("mode", "medium", "must be one of 'fast', 'slow'"),
    ("ports", "12", "must be tuple"),
    ("ports", [1, "2"], "must be tuple"),
    ("pair", ["y"], "must be tuple"),
    ("names", "abc", "must be Sequence"),
    ("many", [1, "2"], "must be list"),
    ("table", {"a": "b"}, "must be Mapping"),
    ("servers", [{"host": "h"}], "must be tuple"),
    ("derived", 5, "there is no option 'derived'"),
    ("cuont", 5, "there is no option 'cuont'; did you mean 'count'"),
    ("count", 101, "count must be at most 100"),
]


@pytest.mark.parametrize(("key", "value", "text"), BAD)
def test_values_that_do_not_fit(key: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse_options("p", Options, {key: value})
    assert "'p'" in str(caught.value)


def test_secrets_never_enter_a_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options("p", Options, {"password": b"hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    assert parse_options("p", Options, None) == Options() == parse_options("p", Options, {})


def test_a_ready_object_is_taken_as_it_is() -> None:
    ready = Options(count=9)
    assert parse_options("p", Options, ready) is ready


def test_a_plugin_without_options_takes_none() -> None:
    assert parse_options("p", None, None) is None
    assert parse_options("p", None, {}) is None
    with pytest.raises(ConfigError, match=r"takes no options; remove \{'a': 1\}"):
        parse_options("p", None, {"a": 1})


@pytest.mark.parametrize("given", [5, "a=1", [("a", 1)], Server("h")])
def test_options_are_a_mapping(given: object) -> None:
    with pytest.raises(ConfigError, match="write a dict"):
        parse_options("p", Options, given)


def test_annotations_that_cannot_be_looked_up_leave_the_keys_checked() -> None:
    @dataclass(frozen=True)
    class Odd:
        thing: NotThere = None  # type: ignore[name-defined]  # noqa: F821

    assert parse_options("p", Odd, {"thing": 5}).thing == 5
    with pytest.raises(ConfigError, match="did you mean 'thing'"):
        parse_options("p", Odd, {"thin": 5})


@dataclass(frozen=True)
class Asking:
    """One option has a field of the node's own configuration."""

    servers: tuple[str, ...] = field(default=(), metadata={"setting": "turn"})
    wait: float = 1.0


@pytest.mark.parametrize(
    ("given", "settings", "servers"),
    [
        (None, {"turn": ("a", "b")}, ("a", "b")),
        ({"wait": 2}, {"turn": ("a",), "stun": ("c",)}, ("a",)),
        ({"servers": ["own"]}, {"turn": ("a",)}, ("own",)),
        ({"servers": []}, {"turn": ("a",)}, ()),
        (None, {"stun": ("c",)}, ()),
        (None, None, ()),
        (Asking(), {"turn": ("a",)}, ()),
    ],
)
def test_an_option_may_ask_for_a_setting_of_the_node(
    given: object, settings: dict[str, object] | None, servers: tuple[str, ...]
) -> None:
    assert parse_options("asks", Asking, given, settings).servers == servers
