"""Once is enough: no message id passes twice, whatever happens to memory and clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.errors import EnvelopeError
from warpgate_core.signal.envelope import FRESHNESS
from warpgate_core.signal.replay import ReplayGuard

NOW = 1_000_000.0


def an_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def accepts(guard: ReplayGuard, message_id: bytes, stamp: float, now: float) -> bool:
    try:
        guard.check_and_add(message_id, stamp, now)
    except EnvelopeError as error:
        if error.reason == "replay":
            return False
        raise
    return True


def test_an_id_passes_once() -> None:
    guard = ReplayGuard()
    assert accepts(guard, an_id(1), NOW, NOW)
    assert an_id(1) in guard
    assert not accepts(guard, an_id(1), NOW, NOW)
    assert not accepts(guard, an_id(1), NOW + 1, NOW)  # whatever the stamp says
    assert accepts(guard, an_id(2), NOW, NOW)


def test_what_is_discarded_may_come_again() -> None:
    guard = ReplayGuard()
    assert accepts(guard, an_id(1), NOW, NOW)
    guard.discard(an_id(1))
    guard.discard(an_id(9))
    assert accepts(guard, an_id(1), NOW, NOW)


def test_ids_are_forgotten_when_their_stamp_is_stale_and_stay_refused() -> None:
    guard = ReplayGuard(window=120)
    assert accepts(guard, an_id(1), NOW, NOW)
    assert accepts(guard, an_id(2), NOW + 200, NOW + 200)
    assert len(guard) == 1
    assert not accepts(guard, an_id(1), NOW, NOW + 200)


def test_full_memory_refuses_the_oldest_time_and_goes_on() -> None:
    guard = ReplayGuard(capacity=3)
    for number in range(5):
        assert accepts(guard, an_id(number), NOW + number, NOW)
    assert len(guard) == 3
    assert not accepts(guard, an_id(0), NOW, NOW)  # forgotten, and still no second time
    assert not accepts(guard, an_id(99), NOW + 1, NOW)  # of the forgotten time
    assert accepts(guard, an_id(100), NOW + 10, NOW)


def test_a_clock_set_back_does_not_reopen_the_past() -> None:
    guard = ReplayGuard(window=120)
    assert accepts(guard, an_id(1), NOW, NOW)
    assert accepts(guard, an_id(2), NOW + 3600, NOW + 3600)  # the first is forgotten
    assert accepts(guard, an_id(3), NOW + 7200, NOW + 7200)  # the second, too
    back = NOW + 5
    assert not accepts(guard, an_id(1), NOW, back)
    assert accepts(guard, an_id(4), back + 1, back)  # but new messages pass
    assert not accepts(guard, an_id(1), NOW, back)


def test_discarded_ids_do_not_pile_up() -> None:
    guard = ReplayGuard(capacity=4)
    for number in range(200):
        assert accepts(guard, an_id(number), NOW, NOW)
        guard.discard(an_id(number))
    assert len(guard) == 0
    assert len(guard._order) <= 9


@given(
    st.lists(st.tuples(st.integers(0, 12), st.floats(-130, 130), st.floats(0, 200)), min_size=1, max_size=60)
)
def test_nothing_passes_twice_however_time_moves(steps: list[tuple[int, float, float]]) -> None:
    """Each message has one stamp; fresh ones are offered again and again while the clock advances."""
    guard, now, passed = ReplayGuard(capacity=5), NOW, set()
    stamps: dict[int, float] = {}
    for number, offset, step in steps:
        now += step
        stamp = stamps.setdefault(number, now + offset)
        if abs(now - stamp) > FRESHNESS:
            continue  # the codec refuses it before
        if accepts(guard, an_id(number), stamp, now):
            assert number not in passed
            passed.add(number)
        assert len(guard) <= 5


def test_the_reason_is_in_the_text() -> None:
    guard = ReplayGuard()
    guard.check_and_add(an_id(1), NOW, NOW)
    with pytest.raises(EnvelopeError, match=r"received before \[replay\]"):
        guard.check_and_add(an_id(1), NOW, NOW)
