"""The trace: bounded, in order, watched live, and never in the way."""

from __future__ import annotations

import logging

import pytest

from warpgate_core.trace import MAX_EVENTS, MAX_NOTES, Phase, Trace, TraceEvent


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


def test_events_are_kept_in_order_with_seconds_since_the_beginning(now: Now) -> None:
    trace = Trace(now, "5e55")
    trace.add("offer", Phase.STARTED)
    now.at += 0.25
    trace.add("dial", Phase.FAILED, "refused", strategy="direct")
    trace.add("strategy", Phase.FAILED, "gave up", strategy="turn", remote=True)
    assert list(trace) == [
        TraceEvent(0.0, "", "offer", Phase.STARTED, "", False),
        TraceEvent(0.25, "direct", "dial", Phase.FAILED, "refused", False),
        TraceEvent(0.25, "turn", "strategy", Phase.FAILED, "gave up", True),
    ]
    assert len(trace) == 3
    assert trace.session == "5e55"
    now.at += 1
    assert trace.elapsed == 1.25


def test_phases_are_the_words_that_json_shows() -> None:
    assert [str(phase) for phase in Phase] == ["started", "complete", "failed", "note"]


def test_iterating_is_not_disturbed_by_what_comes_meanwhile(now: Now) -> None:
    trace = Trace(now)
    trace.add("a", Phase.NOTE)
    for event in trace:
        trace.add(event.step, Phase.NOTE)
    assert len(trace) == 2


def test_it_is_bounded_and_counts_what_it_drops(now: Now) -> None:
    trace, seen = Trace(now), list[TraceEvent]()
    trace.watch(seen.append)
    for n in range(MAX_EVENTS + 7):
        trace.add(f"{n}", Phase.STARTED)
    assert len(trace) == len(seen) == MAX_EVENTS
    assert trace.dropped == 7


def test_notes_alone_do_not_crowd_out_the_steps(now: Now) -> None:
    trace = Trace(now)
    for _ in range(MAX_EVENTS * 2):
        trace.add("check", Phase.NOTE, "what anybody can send")
    assert len(trace) == MAX_NOTES
    assert trace.dropped == 2 * MAX_EVENTS - MAX_NOTES
    trace.add("nominate", Phase.COMPLETE)
    assert [event.step for event in trace][-1] == "nominate"


def test_watchers_see_from_when_they_came_until_they_went(now: Now) -> None:
    trace, seen = Trace(now), list[str]()
    trace.add("before", Phase.NOTE)
    end = trace.watch(lambda event: seen.append(event.step))
    other = trace.watch(lambda event: seen.append(event.step.upper()))
    trace.add("one", Phase.NOTE)
    end()
    end()
    trace.add("two", Phase.NOTE)
    other()
    trace.add("three", Phase.NOTE)
    assert seen == ["one", "ONE", "TWO"]


def test_a_watcher_may_leave_while_it_is_called(now: Now) -> None:
    trace, seen = Trace(now), list[str]()

    def once(event: TraceEvent) -> None:
        seen.append(event.step)
        end()

    end = trace.watch(once)
    trace.watch(lambda event: seen.append("other"))
    trace.add("a", Phase.NOTE)
    trace.add("b", Phase.NOTE)
    assert seen == ["a", "other", "other"]


def test_a_watcher_that_fails_is_logged_and_harms_nobody(now: Now, caplog: pytest.LogCaptureFixture) -> None:
    trace, seen = Trace(now), list[str]()

    def broken(event: TraceEvent) -> None:
        raise ZeroDivisionError

    end = trace.watch(broken)
    trace.watch(lambda event: seen.append(event.step))
    with caplog.at_level(logging.ERROR, "warpgate"):
        trace.add("a", Phase.NOTE)
        trace.add("b", Phase.NOTE)
    assert seen == ["a", "b"]
    assert [record.exc_info is not None for record in caplog.records] == [True], "once, with its traceback"
    end()
