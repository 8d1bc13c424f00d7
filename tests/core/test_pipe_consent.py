"""Consent and goodbye, without any I/O: time goes by hand, the network is a list."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.pipe.consent import (
    CHECK_INTERVAL,
    CLOSE_AT,
    CLOSE_TIMEOUT,
    EXPIRY,
    FRAME_SIZE,
    JITTER,
    OUTSTANDING,
    SUSPECT_INTERVAL,
    Consent,
    ConsentState,
    Frame,
)

A, B = b"a" * 32, b"b" * 32


def pair(seed: int = 0) -> tuple[Consent, Consent]:
    rng = random.Random(seed)
    return Consent(A, B, 0.0, rng), Consent(B, A, 0.0, rng)


def state(consent: Consent) -> ConsentState:
    return consent.state


def due(consent: Consent) -> float:
    assert consent.next_at is not None
    return consent.next_at


def test_checks_come_every_five_seconds_with_jitter_and_each_is_new() -> None:
    one, other = pair()
    before, seen, gaps = 0.0, set(), []
    for _ in range(200):
        now = due(one)
        gaps.append(now - before)
        before = now
        (request,) = one.poll(now)
        assert len(request) == FRAME_SIZE
        assert request[0] == Frame.CONSENT_REQUEST
        seen.add(request)
        (response,) = other.receive(request, now)
        assert response[0] == Frame.CONSENT_RESPONSE
        assert one.receive(response, now) == []
        assert one.poll(now) == [], "one at a time"
    assert len(seen) == 200
    low, high = CHECK_INTERVAL * JITTER[0], CHECK_INTERVAL * JITTER[1]
    assert all(low - 1e-6 <= gap <= high + 1e-6 for gap in gaps)
    assert max(gaps) - min(gaps) > 1.5, "randomised, or many nodes would check in step"
    assert state(one) is ConsentState.OPEN


@given(st.integers(0, 2**32), st.floats(0.0, 0.8))
def test_it_lives_while_answers_come_and_dies_thirty_seconds_after_the_last(seed: int, loss: float) -> None:
    one, other = pair(seed)
    rng = random.Random(seed)
    last = 0.0
    while state(one) is ConsentState.OPEN and due(one) < 500.0:
        now = due(one)
        for request in one.poll(now):
            for response in other.receive(request, now):
                if rng.random() >= loss:
                    one.receive(response, now + 0.1)
                    last = now + 0.1
        assert state(one) is ConsentState.OPEN or now == pytest.approx(last + EXPIRY)
        assert now <= last + EXPIRY + 1e-6
    if loss == 0.0:
        assert state(one) is ConsentState.OPEN


def test_a_late_answer_to_an_earlier_check_counts_and_a_second_copy_does_not() -> None:
    one, other = pair()
    requests = []
    for _ in range(4):
        now = due(one)
        requests += one.poll(now)
    (answer,) = other.receive(requests[0], now)
    one.receive(answer, now)
    while state(one) is ConsentState.OPEN:
        end = due(one)
        one.poll(end)
        one.receive(answer, end)  # replayed
    assert end == pytest.approx(now + EXPIRY)


def test_after_two_unanswered_checks_they_come_every_second_until_one_is_answered() -> None:
    one, other = pair()
    times = []
    for _ in range(8):
        times.append(due(one))
        (request,) = one.poll(due(one))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap >= CHECK_INTERVAL * JITTER[0] - 1e-6 for gap in gaps[:2])
    assert all(gap <= SUSPECT_INTERVAL * JITTER[1] + 1e-6 for gap in gaps[2:])
    (answer,) = other.receive(request, times[-1])
    one.receive(answer, times[-1])
    assert due(one) - times[-1] >= CHECK_INTERVAL * JITTER[0] - 1e-6


def test_only_the_last_checks_are_remembered() -> None:
    one, other = pair()
    one._expires_at = 1e9  # as if for ever, so that many checks go unanswered
    first = one.poll(due(one))[0]
    for _ in range(OUTSTANDING):
        one.poll(due(one))
    (answer,) = other.receive(first, 0.0)
    one.receive(answer, 50.0)
    assert one._expires_at == 1e9
    assert len(one._outstanding) == OUTSTANDING


@given(st.data())
def test_what_is_not_authentic_changes_nothing_and_is_not_answered(data: st.DataObject) -> None:
    one, other = pair()
    now = due(one)
    frames = [*one.poll(now), *one.close(now)]
    (response,) = other.receive(frames[0], now)
    frame = bytearray(data.draw(st.sampled_from([*frames, response])))
    kind = data.draw(st.sampled_from(["flip", "cut", "extend", "kind", "reflect"]))
    victim = Consent(B, A, 0.0)
    if kind == "flip":
        frame[data.draw(st.integers(1, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del frame[data.draw(st.integers(0, len(frame) - 1)) :]
    elif kind == "extend":
        frame += data.draw(st.binary(min_size=1))
    elif kind == "kind":
        frame[0] = data.draw(st.sampled_from([k for k in range(256) if k != frame[0]]))
    else:
        victim = Consent(A, B, 0.0)  # its own frame comes back
        if frame[0] == Frame.CONSENT_RESPONSE:
            victim = Consent(B, A, 0.0)
    before = (victim.state, victim._expires_at)
    assert victim.receive(bytes(frame), 1.0) == []
    assert (victim.state, victim._expires_at) == before
    assert victim.rejected == 1


def test_equal_keys_are_refused_and_repr_shows_none() -> None:
    with pytest.raises(ValueError, match="own key"):
        Consent(A, A, 0.0)
    text = repr(Consent(A, B, 0.0))
    assert text == "<Consent open>"


def test_goodbye_is_answered_and_both_are_closed() -> None:
    one, other = pair()
    (close,) = one.close(1.0)
    assert state(one) is ConsentState.CLOSING
    assert one.close(1.0) == []
    (answer,) = other.receive(close, 1.1)
    assert state(other) is ConsentState.CLOSED
    assert other.next_at is None
    assert one.receive(answer, 1.2) == []
    assert state(one) is ConsentState.CLOSED
    assert one.next_at is None
    assert one.poll(99.0) == []
    assert other.close(2.0) == [], "it was said already"
    assert other.receive(close, 1.3) == [answer], "for who did not hear the answer"


def test_goodbye_without_an_answer_is_said_three_times_within_a_second() -> None:
    one, _ = pair()
    frames = one.close(10.0)
    times = [10.0]
    while state(one) is ConsentState.CLOSING:
        now = due(one)
        sent = one.poll(now)
        frames += sent
        times += [now] * len(sent)
    assert times == [10.0 + after for after in CLOSE_AT]
    assert now == 10.0 + CLOSE_TIMEOUT
    assert len(set(frames)) == 1, "the same goodbye"
    assert state(one) is ConsentState.CLOSED


def test_both_say_goodbye_at_once() -> None:
    one, other = pair()
    (from_one,), (from_other,) = one.close(1.0), other.close(1.0)
    (for_other,) = one.receive(from_other, 1.1)
    (for_one,) = other.receive(from_one, 1.1)
    assert state(one) is state(other) is ConsentState.CLOSED
    assert one.receive(for_one, 1.2) == []
    assert other.receive(for_other, 1.2) == []


def test_after_expiry_nothing_brings_it_back() -> None:
    one, other = pair()
    while state(one) is ConsentState.OPEN:
        one.poll(due(one))
    assert one.next_at is None
    (close,) = other.close(40.0)
    one.receive(close, 40.0)
    assert state(one) is ConsentState.EXPIRED
    (request,) = Consent(B, A, 0.0).poll(6.0)
    assert one.receive(request, 41.0) == []
