"""Order out of sequence numbers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.signal.ordering import HELD, REORDER_WAIT, Reorder


def test_in_order_passes_at_once() -> None:
    order: Reorder[str] = Reorder()
    assert order.push(1, "a", 0.0) == ["a"]
    assert order.push(2, "b", 0.0) == ["b"]
    assert order.deadline is None


def test_what_is_early_waits_for_what_is_missing() -> None:
    order: Reorder[str] = Reorder()
    assert order.push(3, "c", 1.0) == []
    assert order.push(2, "b", 1.5) == []
    assert order.deadline == 1.0 + REORDER_WAIT  # the first that waits sets it
    assert order.push(1, "a", 2.0) == ["a", "b", "c"]
    assert order.deadline is None


def test_after_the_wait_the_gap_is_given_up_and_stays_closed() -> None:
    order: Reorder[str] = Reorder()
    order.push(2, "b", 0.0)
    order.push(5, "e", 0.0)
    assert order.skip(REORDER_WAIT) == ["b"]
    assert order.deadline == 2 * REORDER_WAIT  # for the next gap
    assert order.push(1, "a", 3.0) is None  # late
    assert order.skip(4.0) == ["e"]
    assert order.skip(5.0) == []
    assert order.deadline is None


def test_a_number_is_taken_once() -> None:
    order: Reorder[str] = Reorder()
    order.push(2, "b", 0.0)
    assert order.push(2, "again", 0.0) is None
    order.push(1, "a", 0.0)
    assert order.push(1, "again", 0.0) is None


def test_a_queue_that_was_forgotten_goes_on_after_one_wait() -> None:
    order: Reorder[str] = Reorder()
    assert order.push(57, "x", 0.0) == []
    assert order.skip(REORDER_WAIT) == ["x"]
    assert order.push(58, "y", 3.0) == ["y"]


def test_only_so_much_is_held() -> None:
    order: Reorder[int] = Reorder()
    for number in range(2, 2 + HELD):
        assert order.push(number, number, 0.0) == []
    assert order.push(2 + HELD, 0, 0.0) is None
    assert order.push(1, 1, 0.0) == list(range(1, 2 + HELD))  # the missing one always has room


@given(st.permutations(range(1, 30)), st.randoms(use_true_random=False))
def test_any_permutation_comes_out_in_order_without_loss(numbers: list[int], rng: random.Random) -> None:
    order: Reorder[int] = Reorder()
    out: list[int] = []
    for number in numbers:
        ready = order.push(number, number, 0.0)
        assert ready is not None
        out += ready
    assert out == sorted(numbers)
    assert len(order) == 0


@given(st.lists(st.integers(1, 40), max_size=60), st.randoms(use_true_random=False))
def test_whatever_comes_and_is_skipped_nothing_goes_back(numbers: list[int], rng: random.Random) -> None:
    order: Reorder[int] = Reorder()
    out: list[int] = []
    for number in numbers:
        out += order.push(number, number, 0.0) or []
        if rng.random() < 0.2:
            out += order.skip(0.0)
    assert out == sorted(set(out))
    assert (order.deadline is None) == (len(order) == 0)
