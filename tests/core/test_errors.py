"""The error tree: what a program may rely on when it catches."""

from __future__ import annotations

import inspect

import pytest

from warpgate_core import errors
from warpgate_core.errors import (
    BrokerError,
    ConnectError,
    EnvelopeError,
    InputError,
    NetworkError,
    NoBrokerError,
    PeerLostError,
    PipeClosedError,
    PipeError,
    ProtocolError,
    RefusedError,
    RemoteError,
    StrategyError,
    VettingError,
    WarpgateError,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


def test_all_of_them_are_public_and_below_one_root() -> None:
    assert sorted(errors.__all__) == sorted(cls.__name__ for cls in CLASSES)
    assert all(issubclass(cls, WarpgateError) for cls in CLASSES)
    assert all(cls.__doc__ for cls in CLASSES)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (InputError, ValueError),
        (ProtocolError, RemoteError),
        (EnvelopeError, RemoteError),
        (RefusedError, RemoteError),
        (NoBrokerError, BrokerError),
        (BrokerError, NetworkError),
        (StrategyError, NetworkError),
        (VettingError, NetworkError),
        (PipeClosedError, PipeError),
        (PeerLostError, PipeError),
        (ConnectError, ExceptionGroup),
    ],
)
def test_the_branches(lower: type[Exception], upper: type[Exception]) -> None:
    assert issubclass(lower, upper)


def test_the_branches_do_not_overlap() -> None:
    branches = (InputError, RemoteError, NetworkError, errors.PluginError, PipeError, errors.NodeClosedError)
    for cls in CLASSES:
        assert sum(issubclass(cls, branch) for branch in branches) <= 1
    assert not issubclass(PeerLostError, PipeClosedError), "an iterator that ends must not hide a loss"


def test_an_envelope_error_says_its_reason() -> None:
    error = EnvelopeError("stale", "stamped 300 s before our clock")
    assert error.reason == "stale"
    assert str(error) == "stamped 300 s before our clock [stale]"


def test_a_refusal_has_a_stable_code() -> None:
    error = RefusedError("busy", "the peer refused: later")
    assert (error.code, str(error)) == ("busy", "the peer refused: later")


@pytest.mark.parametrize(
    ("strategy", "stage", "text"),
    [
        ("turn", "allocating", "turn: 401 (while allocating)"),
        ("turn", "", "turn: 401"),
        ("", "signalling the offer", "401 (while signalling the offer)"),
        ("", "", "401"),
    ],
)
def test_a_strategy_error_says_who_and_how_far(strategy: str, stage: str, text: str) -> None:
    error = StrategyError(strategy, stage, "401")
    assert (str(error), error.strategy, error.stage, error.detail) == (text, strategy, stage, "401")


def test_a_connect_error_is_one_sentence_and_all_the_reasons() -> None:
    direct, turn = StrategyError("direct", "", "nobody there"), RefusedError("busy", "later")
    error = ConnectError("bob answered, but no path came about", [direct, turn])
    assert error.message == "bob answered, but no path came about"
    assert error.exceptions == (direct, turn)
    assert isinstance(error, WarpgateError)


def test_except_star_and_split_keep_the_kind_and_the_sentence() -> None:
    direct, refused = StrategyError("direct", "", "nobody there"), RefusedError("busy", "later")
    error = ConnectError("no path came about", [direct, refused])
    match, rest = error.split(StrategyError)
    assert isinstance(match, ConnectError)
    assert isinstance(rest, ConnectError)
    assert match.exceptions == (direct,)
    assert rest.exceptions == (refused,)
    assert match.message == rest.message == error.message
    caught: list[BaseException] = []
    try:
        raise error
    except* RefusedError as group:
        caught.extend(group.exceptions)
    except* StrategyError as group:
        caught.extend(group.exceptions)
    assert caught == [refused, direct]


def test_a_connect_error_without_reasons_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="empty"):
        ConnectError("no path came about", [])
