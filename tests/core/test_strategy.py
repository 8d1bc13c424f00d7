"""What `register` accepts and refuses, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.errors import PluginError
from warpgate_core.strategy import (
    API_VERSION,
    OLDEST_API_VERSION,
    Attempt,
    Role,
    Strategy,
    StrategySpec,
    Tier,
    is_valid_name,
    register,
)


@dataclass(frozen=True)
class GoodOptions:
    depth: int = 3


@dataclass(frozen=True)
class OptionsWithoutDefault:
    depth: int


class Plain(Strategy):
    """Dials and is done.

    More about it, which no list shows.
    """

    async def run(self, attempt: Attempt) -> None:
        await attempt.settled()


def fresh() -> type[Strategy]:
    """A class of its own for each test."""
    return type("Fresh", (Plain,), {"__doc__": Plain.__doc__})


def test_the_class_itself_comes_back_with_its_spec() -> None:
    cls = fresh()
    assert register("a-way", rank=7, transports=["tcp"], tier=Tier.RELAY, options=GoodOptions)(cls) is cls
    assert cls.spec == StrategySpec(
        "a-way", 7, frozenset({"tcp"}), Tier.RELAY, GoodOptions, API_VERSION, "Dials and is done."
    )
    with pytest.raises(FrozenInstanceError):
        cls.spec.rank = 8  # type: ignore[misc]


def test_defaults() -> None:
    spec = register("a-way")(fresh()).spec
    assert (spec.rank, spec.transports, spec.tier, spec.options) == (
        50,
        frozenset({"tcp", "udp"}),
        Tier.DIRECT,
        None,
    )


def test_a_single_transport_may_be_a_word() -> None:
    assert register("a-way", transports="udp")(fresh()).spec.transports == {"udp"}


def test_a_class_without_docstring_has_no_summary_of_its_base() -> None:
    bare: type[Strategy] = type("Bare", (Plain,), {})
    assert register("a-way")(bare).spec.summary == ""


def test_registering_touches_no_other_class() -> None:
    one, other = fresh(), fresh()
    register("one")(one)
    register("other")(other)
    assert (one.spec.name, other.spec.name) == ("one", "other")
    assert "spec" not in vars(Plain)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "lower-case words"),
    ({"name": "Turn"}, "lower-case words"),
    ({"name": "a_b"}, "lower-case words"),
    ({"name": "a--b"}, "lower-case words"),
    ({"name": "a\n"}, "lower-case words"),
    ({"name": "x" * 25}, "at most 24"),
    ({"name": 5}, "lower-case words"),
    ({"rank": -1}, "rank"),
    ({"rank": 101}, "rank"),
    ({"rank": True}, "rank"),
    ({"rank": 1.5}, "rank"),
    ({"transports": ()}, "transports"),
    ({"transports": ("sctp",)}, "transports"),
    ({"transports": "tcpudp"}, "transports"),
    ({"tier": 7}, "Tier"),
    ({"options": {"depth": 3}}, "dataclass"),
    ({"options": GoodOptions()}, "dataclass"),
    ({"options": OptionsWithoutDefault}, "'depth'"),
    ({"api_version": "1"}, "api_version"),
    ({"api_version": 0}, "api_version"),
]


@pytest.mark.parametrize(("change", "text"), BAD, ids=[str(change) for change, _ in BAD])
def test_what_is_wrong_is_said(change: dict[str, Any], text: str) -> None:
    arguments = {"name": "a-way", **change}
    decorate: Callable[[Any], Any] = register(arguments.pop("name"), **arguments)
    cls = fresh()
    with pytest.raises(PluginError, match=text) as caught:
        decorate(cls)
    assert "Fresh" in str(caught.value)
    assert "spec" not in vars(cls)


@pytest.mark.parametrize("thing", [object(), int, lambda attempt: None, "text"])
def test_only_strategy_classes_can_be_registered(thing: Any) -> None:
    with pytest.raises(PluginError, match="not a class derived from"):
        register("a-way")(thing)


def test_an_unknown_later_contract_is_stamped_for_the_registry_to_judge() -> None:
    assert register("a-way", api_version=99)(fresh()).spec.api_version == 99
    assert 1 <= OLDEST_API_VERSION <= API_VERSION


def test_run_is_the_only_thing_that_must_be_written() -> None:
    class Nothing(Strategy):
        """Has no run."""

    with pytest.raises(TypeError, match="run"):
        Nothing()  # type: ignore[abstract]
    assert Nothing.__abstractmethods__ == {"run"}


def test_options_are_kept() -> None:
    options = GoodOptions(4)
    assert Plain(options).options is options
    assert Plain().options is None


def test_roles_are_words() -> None:
    assert {str(role) for role in Role} == {"initiator", "responder"}


@given(st.text(alphabet="abz019-_A\n ", max_size=30))
def test_names_are_as_the_text_says(name: str) -> None:
    words = name.split("-")
    by_hand = (
        len(name) <= 24
        and all(w.isascii() and w.isalnum() and w == w.lower() for w in words)
        and name[:1].isalpha()
    )
    assert is_valid_name(name) is by_hand
