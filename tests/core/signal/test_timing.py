"""Back-off, retransmission and rations, on a clock of their own."""

from __future__ import annotations

import random

import pytest

from warpgate_core.signal.timing import (
    BACKOFF_FIRST,
    BACKOFF_LIMIT,
    INITIAL_TIMEOUT,
    LEAST_TIMEOUT,
    MOST_TIMEOUT,
    STABLE,
    Backoff,
    RoundTrip,
    TokenBucket,
)


def test_back_off_doubles_to_its_limit_with_jitter() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next(0.0) for _ in range(12)]
    for attempt, wait in enumerate(waits):
        ceiling = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2**attempt)
        assert ceiling / 2 <= wait <= ceiling
    assert len(set(waits)) == len(waits)


def test_a_connection_that_lasts_is_a_new_beginning() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.next(0.0)
    backoff.connected(100.0)
    assert backoff.next(100.0 + STABLE) <= BACKOFF_FIRST


def test_a_broker_that_disconnects_every_second_is_failing() -> None:
    backoff, now = Backoff(random.Random(1)), 0.0
    for _ in range(12):
        backoff.connected(now)
        wait = backoff.next(now + 1.0)
        now += 1.0 + wait
    assert wait >= BACKOFF_LIMIT / 2


def test_reset_forgets() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.next(0.0)
    backoff.reset()
    assert backoff.next(0.0) <= BACKOFF_FIRST


def test_nothing_measured_waits_a_second() -> None:
    assert RoundTrip().timeout() == INITIAL_TIMEOUT


def test_the_timeout_follows_what_is_measured() -> None:
    trip = RoundTrip()
    trip.add(0.1)
    assert trip.timeout() == pytest.approx(0.3)  # RFC 6298 (2.2): SRTT + 4 * SRTT/2
    for _ in range(60):
        trip.add(0.1)
    assert trip.smoothed == pytest.approx(0.1)
    assert trip.timeout() == LEAST_TIMEOUT
    assert trip.timeout(1) == 2 * LEAST_TIMEOUT
    assert trip.timeout(30) == MOST_TIMEOUT


def test_a_token_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5)
    assert [bucket.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
