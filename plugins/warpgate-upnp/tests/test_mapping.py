"""The life of one mapping: when it is asked for, and that it is never asked for in a frenzy."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import Endpoint
from warpgate_upnp.mapping import (
    FIRST_RETRY,
    LOST_WAIT,
    MAX_RETRY,
    MIN_WAIT,
    PERMANENT_CHECK,
    Lease,
    Mapping,
    State,
    Wish,
)

WISH = Wish(Endpoint("192.168.1.2", 4000), "udp")
LEASE = Lease("PCP", Endpoint("25.1.1.1", 4000), 600.0)


def held(now: float = 100.0, lease: Lease = LEASE, jitter: float = 0.0) -> Mapping:
    mapping = Mapping(WISH, now, lambda: jitter)
    mapping.asked(now)
    mapping.granted(lease, now)
    return mapping


def test_it_is_wanted_at_once_and_renewed_at_half_its_life() -> None:
    mapping = Mapping(WISH, 100.0, lambda: 0.0)
    assert (mapping.state, mapping.due, mapping.is_settled) == (State.WANTED, 100.0, False)
    mapping.asked(100.0)
    assert mapping.due == math.inf
    mapping.granted(LEASE, 101.0)
    assert (mapping.state, mapping.due, mapping.is_settled) == (State.HELD, 401.0, True)
    assert mapping.remaining(201.0) == 500.0
    assert held(jitter=1.0).due == 100.0 + 600 * 5 / 8


def test_a_renewal_that_fails_is_tried_again_in_half_of_what_is_left() -> None:
    mapping = held()
    dues, now = [], mapping.due
    while mapping.state is State.HELD and mapping.lease is not None:
        mapping.tick(now)
        if mapping.lease is None:
            break
        dues.append(now)
        mapping.asked(now)
        mapping.failed("silence", now)
        assert mapping.problem == "silence"
        now = mapping.wakeup
    assert [round(due) for due in dues[:4]] == [400, 550, 625, 662]
    assert all(later - earlier >= MIN_WAIT for earlier, later in itertools.pairwise(dues))
    assert now == 700.0
    assert (mapping.state, mapping.lease, mapping.due) == (State.WANTED, None, 700.0)
    assert "ran out" in mapping.problem
    assert mapping.remaining(700.0) == 0.0


def test_silence_is_asked_less_and_less() -> None:
    mapping, waits, now = Mapping(WISH, 0.0, lambda: 0.0), [], 0.0
    for _ in range(8):
        mapping.asked(now)
        mapping.failed("silence", now)
        waits.append(mapping.due - now)
        now = mapping.due
    assert waits == [30, 60, 120, 240, 480, 960, 1800, 1800]
    assert (waits[0], waits[-1]) == (FIRST_RETRY, MAX_RETRY)
    assert mapping.is_settled


@pytest.mark.parametrize(("said", "wait"), [(5.0, 30.0), (900.0, 900.0), (10**6, 1_800.0), (None, 30.0)])
def test_a_refusal_with_a_time_is_respected_within_bounds(said: float | None, wait: float) -> None:
    mapping = Mapping(WISH, 0.0, lambda: 0.0)
    mapping.asked(0.0)
    mapping.failed("no", 0.0, refused=True, retry_after=said)
    assert mapping.due == wait


def test_a_restart_is_answered_at_once_and_keeps_what_may_still_be_true() -> None:
    mapping = held()
    mapping.lost(200.0)
    assert (mapping.state, mapping.lease, mapping.due) == (State.DOUBTED, LEASE, 200.0)
    mapping.asked(200.0)
    mapping.granted(LEASE, 200.1)
    assert (mapping.state, mapping.due) == (State.HELD, 500.1)


def test_after_a_restart_silence_means_that_it_is_gone() -> None:
    mapping = held()
    mapping.lost(200.0)
    mapping.asked(200.0)
    mapping.failed("silence", 204.0)
    assert (mapping.state, mapping.lease, mapping.due) == (State.WANTED, None, 234.0)
    mapping.noticed(210.0)
    assert mapping.due == 210.0, "but when the router shows itself it is asked"


def test_a_flood_of_restarts_is_answered_every_two_seconds() -> None:
    mapping, asked = held(0.0), 0
    for step in range(10_000):  # a hundred a second, for a hundred seconds
        now = step / 100
        mapping.lost(now)
        if mapping.due <= now:
            asked += 1
            mapping.asked(now)
            mapping.granted(LEASE, now)
    assert asked == pytest.approx(100 / LOST_WAIT, abs=1)


def test_a_restart_while_a_request_is_under_way_is_not_forgotten() -> None:
    mapping = held()
    mapping.lost(200.0)
    mapping.asked(200.0)
    mapping.lost(200.5)
    assert mapping.due == math.inf
    mapping.granted(LEASE, 201.0)
    assert (mapping.state, mapping.due) == (State.DOUBTED, 202.0)
    mapping.asked(202.0)
    mapping.granted(LEASE, 202.1)
    assert (mapping.state, mapping.due) == (State.HELD, 502.1)


@pytest.mark.parametrize("sign", ["lost", "noticed"])
def test_a_router_that_comes_up_while_we_fail_is_asked_again_soon(sign: str) -> None:
    mapping = Mapping(WISH, 0.0, lambda: 0.0)
    mapping.asked(0.0)
    getattr(mapping, sign)(1.0)
    mapping.failed("silence", 10.0)
    assert mapping.due == 10.0
    mapping.asked(10.0)
    mapping.failed("silence", 10.5)
    assert mapping.due > 40.0, "once"


def test_merely_being_there_does_not_change_a_refusal() -> None:
    mapping = Mapping(WISH, 0.0, lambda: 0.0)
    mapping.asked(0.0)
    mapping.failed("no", 0.0, refused=True)
    mapping.noticed(10.0)
    assert mapping.due == 30.0
    mapping.lost(10.0)
    assert mapping.due == 10.0, "a restart does"
    mapping = held()
    mapping.noticed(200.0)
    assert mapping.due == 400.0


def test_what_is_of_no_use_is_left_alone_for_long() -> None:
    mapping = held()
    mapping.given_up("behind another NAT", 100.0)
    assert (mapping.lease, mapping.due, mapping.problem) == (None, 100.0 + MAX_RETRY, "behind another NAT")
    mapping.noticed(200.0)
    assert mapping.due == 100.0 + MAX_RETRY
    mapping.lost(200.0)
    assert mapping.due == 200.0, "the network has changed"


def test_a_mapping_without_end() -> None:
    mapping = held(lease=Lease("UPnP", LEASE.external, math.inf))
    assert mapping.due == 100.0 + PERMANENT_CHECK
    mapping.tick(10**9)
    assert mapping.state is State.HELD
    mapping.asked(2_000.0)
    mapping.failed("silence", 2_000.0)
    assert mapping.state is State.HELD
    assert MIN_WAIT <= mapping.due - 2_000.0 <= MAX_RETRY


@pytest.mark.parametrize("life", [0.5, 1.0, 5.0, 7.9])
def test_a_very_short_life_is_not_asked_for_more_often(life: float) -> None:
    mapping = held(lease=Lease("PCP", LEASE.external, life))
    assert mapping.due == 100.0 + MIN_WAIT


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["lost", "noticed", "tick", "grant", "fail", "refuse", "give up"]), st.floats(0, 500)
    ),
    max_size=40,
)


@given(ACTIONS)
def test_whatever_happens_it_stays_consistent(actions: list[tuple[str, float]]) -> None:
    mapping, now, last = Mapping(WISH, 0.0, lambda: 0.5), 0.0, -math.inf
    for action, wait in actions:
        now += wait
        mapping.tick(now)
        if action in ("lost", "noticed"):
            getattr(mapping, action)(now)
        elif action == "give up" and mapping.lease is not None:
            mapping.given_up("why", now)
        elif action in ("grant", "fail", "refuse") and mapping.due <= now:
            assert now - last >= LOST_WAIT - 1e-9 or last == -math.inf
            last = now
            mapping.asked(now)
            if action == "grant":
                mapping.granted(LEASE, now)
            else:
                mapping.failed(action, now, refused=action == "refuse")
        assert (mapping.lease is None) is (mapping.state is State.WANTED)
        assert mapping.due < math.inf
        assert mapping.wakeup <= max(now, mapping.due)
        assert mapping.due <= now + MAX_RETRY
