"""The initiator's choice: once, soon, and the best that can be had in that time. Times are arguments."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.race.agreement import (
    UDP_HOLD_MAX,
    UDP_HOLD_MIN,
    Agreement,
    Candidate,
    Decision,
    Hold,
)
from warpgate_core.strategy import Tier

START = 100.0
PATIENCE = 2.5
BOTH = frozenset({"tcp", "udp"})
TCP, UDP, NEITHER = frozenset({"tcp"}), frozenset({"udp"}), frozenset[str]()
DIRECT, RELAY = Tier.DIRECT, Tier.RELAY


def agree(**runners: tuple[frozenset[str], Tier]) -> Agreement:
    return Agreement(START, Hold(PATIENCE), runners)


def path(
    key: str, transport: str = "tcp", tier: Tier = DIRECT, rank: int = 10, round_trip: float = 0.05
) -> Candidate:
    return Candidate(key, "direct", transport, tier, rank, round_trip)


def test_nothing_proven_nothing_decided() -> None:
    assert agree(direct=(BOTH, DIRECT)).decide(START) == Decision(None, None)
    assert agree().decide(START + 1000) == Decision(None, None)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("tier", list(Tier))
def test_when_nothing_better_can_come_the_choice_is_immediate(transport: str, tier: Tier) -> None:
    agreement = agree(direct=(NEITHER, DIRECT), turn=(UDP if transport == "udp" else BOTH, tier))
    agreement.proven(path("a", transport, tier), START + 0.2)
    assert agreement.decide(START + 0.2) == Decision("a", None)
    assert agreement.choice == "a"


def test_a_direct_stream_waits_for_nobody() -> None:
    agreement = agree(direct=(BOTH, DIRECT), reverse=(BOTH, DIRECT), turn=(BOTH, RELAY))
    agreement.proven(path("a", rank=99), START)
    assert agreement.decide(START) == Decision("a", None)


@pytest.mark.parametrize(
    ("round_trip", "hold"), [(0.0, UDP_HOLD_MIN), (0.010, UDP_HOLD_MIN), (0.05, 0.1), (1.0, UDP_HOLD_MAX)]
)
def test_a_datagram_path_waits_two_round_trips_for_a_stream(round_trip: float, hold: float) -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("udp", "udp", round_trip=round_trip), START + 1)
    decision = agreement.decide(START + 1)
    assert decision.choice is None
    assert decision.wake_at == pytest.approx(START + 1 + hold)
    assert agreement.decide(START + 1 + hold - 0.001).choice is None
    assert agreement.decide(START + 1 + hold).choice == "udp"


def test_the_stream_that_comes_meanwhile_is_chosen_at_once() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("udp", "udp"), START)
    assert agreement.decide(START).choice is None
    agreement.proven(path("tcp", rank=90), START + 0.06)
    assert agreement.decide(START + 0.06).choice == "tcp"


def test_a_relay_waits_out_the_patience_while_a_direct_path_may_come() -> None:
    agreement = agree(direct=(UDP, DIRECT), turn=(UDP, RELAY))
    agreement.proven(path("relay", "udp", RELAY), START + 0.3)
    assert agreement.decide(START + 0.3) == Decision(None, START + PATIENCE)
    assert agreement.decide(START + PATIENCE).choice == "relay"


def test_a_relay_that_comes_after_the_patience_waits_no_more() -> None:
    agreement = agree(direct=(BOTH, DIRECT), turn=(UDP, RELAY))
    agreement.proven(path("relay", "udp", RELAY), START + PATIENCE + 1)
    assert agreement.decide(START + PATIENCE + 1).choice == "relay"


@pytest.mark.parametrize("by", [None, "each"])
def test_when_the_better_ones_give_up_the_relay_is_chosen(by: str | None) -> None:
    agreement = agree(direct=(BOTH, DIRECT), turn=(UDP, RELAY))
    agreement.proven(path("relay", "udp", RELAY), START + 0.3)
    if by is None:
        agreement.retire("direct")
    else:
        agreement.retire("direct", "tcp")
        assert agreement.decide(START + 0.4).choice is None
        agreement.retire("direct", "udp")
    assert agreement.decide(START + 0.4).choice == "relay"


def test_a_strategy_that_can_bring_no_stream_any_more_holds_no_datagram_path_back() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("udp", "udp"), START)
    assert agreement.decide(START).choice is None
    agreement.retire("direct", "tcp")
    assert agreement.decide(START + 0.01).choice == "udp"


def test_retiring_a_stranger_is_harmless() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.retire("nobody")
    agreement.retire("nobody", "tcp")
    agreement.proven(path("udp", "udp"), START)
    assert agreement.decide(START).choice is None


def test_rank_then_time_decide_within_a_class() -> None:
    agreement = agree(direct=(TCP, DIRECT))
    agreement.proven(path("late", rank=20), START + 0.2)
    agreement.proven(path("early", rank=20), START + 0.1)
    agreement.proven(path("worse", rank=30), START)
    assert agreement.decide(START + 0.2).choice == "early"
    agreement = agree(direct=(TCP, DIRECT))
    agreement.proven(path("early", rank=20), START)
    agreement.proven(path("ranked", rank=10), START + 0.1)
    assert agreement.decide(START + 0.1).choice == "ranked"


def test_another_path_of_the_class_does_not_prolong_the_wait() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("one", "udp", rank=50), START)
    until = agreement.decide(START).wake_at
    assert until == pytest.approx(START + 0.1)
    for n in range(5):
        agreement.proven(path(f"better {n}", "udp", rank=40 - n), START + 0.09)
        assert agreement.decide(START + 0.09) == Decision(None, until)
    assert agreement.decide(START + 0.1).choice == "better 4"


def test_a_worse_path_that_comes_later_does_not_shorten_the_wait() -> None:
    agreement = agree(direct=(BOTH, DIRECT), turn=(UDP, RELAY))
    agreement.proven(path("udp", "udp"), START + PATIENCE)
    agreement.proven(path("relay", "udp", RELAY), START + PATIENCE + 0.01)
    assert agreement.decide(START + PATIENCE + 0.01).wake_at == pytest.approx(START + PATIENCE + 0.1)


def test_a_path_that_broke_is_not_chosen() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("udp", "udp"), START)
    agreement.lost("udp")
    agreement.lost("never known")
    assert agreement.decide(START + 10) == Decision(None, None)
    agreement.proven(path("tcp"), START + 11)
    assert agreement.decide(START + 11).choice == "tcp"


def test_what_comes_after_the_choice_changes_nothing() -> None:
    agreement = agree(direct=(BOTH, DIRECT))
    agreement.proven(path("first", rank=90), START)
    assert agreement.decide(START).choice == "first"
    agreement.proven(path("best", rank=0), START)
    agreement.lost("first")
    agreement.retire("direct")
    assert agreement.decide(START + 100) == Decision("first", None)


@dataclass
class Run:
    """A drawn race, replayed on any agreement."""

    runners: dict[str, tuple[frozenset[str], Tier]]
    events: list[tuple[float, str, object]]

    def play(self) -> list[tuple[float, Decision]]:
        """Every decision, asked for at each event and at each moment that was asked for."""
        agreement = Agreement(START, Hold(PATIENCE), self.runners)
        made: list[tuple[float, Decision]] = []
        wake: float | None = None
        for now, what, subject in [*self.events, (START + 1000.0, "end", None)]:
            while wake is not None and wake < now and agreement.choice is None:
                made.append((wake, agreement.decide(wake)))
                again = made[-1][1].wake_at
                assert again is None or again > wake, "asked to be asked at the same moment again"
                wake = again
            if isinstance(subject, Candidate):
                agreement.proven(subject, now)
            elif what == "lost":
                agreement.lost(subject)
            elif what == "retire":
                agreement.retire(str(subject))
            made.append((now, agreement.decide(now)))
            wake = made[-1][1].wake_at
        return made


RUNNERS = st.dictionaries(
    st.sampled_from(["direct", "reverse", "punch", "turn"]),
    st.tuples(st.sampled_from([BOTH, TCP, UDP, NEITHER]), st.sampled_from(Tier)),
)
CANDIDATES = st.builds(
    Candidate,
    st.integers(0, 5),
    st.sampled_from(["direct", "turn"]),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(Tier),
    st.integers(0, 3),
    st.floats(0, 1),
)
EVENTS = st.one_of(
    st.tuples(st.just("proven"), CANDIDATES),
    st.tuples(st.just("proven"), CANDIDATES),
    st.tuples(st.just("lost"), st.integers(0, 5)),
    st.tuples(st.just("retire"), st.sampled_from(["direct", "reverse", "punch", "turn"])),
)


@st.composite
def races(draw: st.DrawFn) -> Run:
    """Any order of events within five seconds."""
    times = sorted(draw(st.lists(st.floats(0, 5), max_size=12)))
    return Run(draw(RUNNERS), [(START + at, *draw(EVENTS)) for at in times])


@given(races())
def test_the_choice_never_changes_and_is_the_same_each_time(race: Run) -> None:
    made = race.play()
    assert made == race.play()
    chosen = [decision.choice for _, decision in made if decision.choice is not None]
    assert len(set(chosen)) <= 1
    first = next((n for n, (_, decision) in enumerate(made) if decision.choice is not None), len(made))
    assert all(decision == Decision(chosen[0], None) for _, decision in made[first:])


@given(races())
def test_what_is_proven_is_chosen_within_its_bound(race: Run) -> None:
    """No path that holds waits beyond the patience (a relay) or the longest hold (a datagram path)."""
    chosen_at = next((now for now, decision in race.play() if decision.choice is not None), None)
    lost = {subject for _, what, subject in race.events if what == "lost"}
    first = {c.key: (at, c) for at, _, c in reversed(race.events) if isinstance(c, Candidate)}
    kept = [(at, c) for key, (at, c) in first.items() if key not in lost]
    if not kept:
        return
    # A direct datagram path that comes at the end of the patience may still wait its own hold.
    bound = min(
        max(at, START + PATIENCE) + UDP_HOLD_MAX if c.tier is RELAY else at + UDP_HOLD_MAX for at, c in kept
    )
    assert chosen_at is not None
    assert chosen_at <= bound + 1e-9


@given(races())
def test_nobody_waits_when_nothing_better_is_pending(race: Run) -> None:
    bare = Run(dict.fromkeys(race.runners, (NEITHER, DIRECT)), race.events)
    first = next((at for at, _, c in race.events if isinstance(c, Candidate)), None)
    chosen_at = next((now for now, decision in bare.play() if decision.choice is not None), None)
    assert chosen_at == first


@given(races())
def test_a_direct_stream_ends_every_race(race: Run) -> None:
    kept = Run(race.runners, [event for event in race.events if event[1] != "lost"])
    first = {c.key: (at, c) for at, _, c in reversed(kept.events) if isinstance(c, Candidate)}
    streams = [at for at, c in first.values() if c.cost == (0, 0)]
    made = kept.play()
    for now, decision in made:  # several events may share one moment
        assert decision.choice is not None or now <= min(streams, default=float("inf"))
    assert made[-1][1].choice is not None or not streams
