"""Clocks in words."""

from __future__ import annotations

import logging

import pytest

from warpgate_core.signal import skew as module
from warpgate_core.signal.skew import SkewTable, in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3600, "1 h ahead of ours"),
        (-5400, "1.5 h behind ours"),
        (35, "35 s ahead of ours"),
        (-172_800, "2 d behind ours"),
        (90, "1.5 min ahead of ours"),
        (0.2, "the same as ours"),
    ],
)
def test_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_wrong_clock_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    table, peer = SkewTable(), b"\x02" * 33
    with caplog.at_level(logging.WARNING, "warpgate.signal"):
        table.note(peer, 3600.0, 0.1)
        table.note(peer, 3601.0, 0.1)
    assert len(caplog.records) == 1
    assert "1 h ahead of ours" in caplog.text
    assert table.get(peer) == 3601.0
    assert table.get(b"other") is None


def test_what_the_round_trip_blurs_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "warpgate.signal"):
        SkewTable().note(b"p", 12.0, 4.0)
        SkewTable().note(b"p", -2.0, 0.1)
    assert not caplog.records


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERS", 2)
    table = SkewTable()
    for number in range(4):
        table.note(bytes((number,)), 0.0, 0.0)
    assert len(table._skews) == 2
