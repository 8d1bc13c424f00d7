"""The picture of a race: from events to lines."""

from __future__ import annotations

from warpgate_core.cli.race import Race, draw
from warpgate_core.cli.text import plain
from warpgate_core.trace import Phase, TraceEvent


def event(at: float, strategy: str, step: str, phase: Phase, detail: str = "") -> TraceEvent:
    return TraceEvent(at, strategy, step, phase, detail)


WON = [
    event(0.005, "", "offer", Phase.COMPLETE, "135 bytes"),
    event(0.006, "", "signal", Phase.STARTED),
    event(0.007, "direct", "dial", Phase.STARTED, "10.0.0.2:4000"),
    event(0.040, "", "signal", Phase.COMPLETE, "acknowledged in 34 ms"),
    event(0.050, "upnp", "strategy", Phase.FAILED, "no gateway"),
    event(0.080, "", "answer", Phase.COMPLETE, "2 sections"),
    event(0.090, "reverse", "prove", Phase.COMPLETE, "tcp there"),
    event(0.100, "direct", "nominate", Phase.COMPLETE, "tcp a to b (host)"),
]


def race_of(events: list[TraceEvent]) -> Race:
    race = Race(("direct", "reverse", "turn"))
    for one in events:
        race.feed(one)
    return race


def test_states_of_a_race_that_was_won() -> None:
    race = race_of(WON)
    assert {row.name: row.state for row in race.rows.values()} == {
        "signal": "proven",
        "direct": "won",
        "reverse": "lost",
        "turn": "waiting",
        "upnp": "failed",
    }
    assert race.is_over
    assert race.rows["direct"].text == "tcp a to b (host)"


def test_bars_stand_where_things_happened() -> None:
    rows = {row[0][0].strip(): row for row in draw(race_of(WON), 0.1, 80, has_unicode=False)}
    assert set(rows) == {"signal", "direct", "reverse", "upnp"}  # who never began is left out in the end
    bar = rows["direct"][1][0]
    assert bar.rstrip().endswith("#")
    assert len(bar) - len(bar.lstrip()) <= 2
    late = rows["reverse"][1][0]
    assert len(late) - len(late.lstrip()) > 15  # it began at nine tenths
    assert rows["upnp"][1][0].rstrip().endswith("x")


def test_while_it_runs_everybody_is_shown() -> None:
    race = race_of(WON[:4])
    lines = [plain(row) for row in draw(race, 0.05, 80, has_unicode=True)]
    assert [row.split()[0] for row in lines] == ["signal", "direct", "reverse", "turn"]
    assert lines[3].endswith("waiting")
    assert "10.0.0.2:4000" in lines[1]


def test_every_width_is_kept_and_ascii_stays_ascii() -> None:
    race = race_of([*WON[:-1], event(0.1, "direct", "dial", Phase.FAILED, "x" * 300)])
    for width in range(40, 200, 7):
        for row in draw(race, 0.1, width, has_unicode=False):
            assert len(plain(row)) <= width
            assert plain(row).isascii()


def test_a_failed_step_is_not_the_end_of_a_strategy_but_its_own_failure_is() -> None:
    race = Race(("direct",))
    race.feed(event(0.1, "direct", "dial", Phase.FAILED, "refused"))
    assert race.rows["direct"].state == "running"
    assert race.rows["direct"].text == "refused"
    race.feed(TraceEvent(0.2, "direct", "strategy", Phase.FAILED, "over there", remote=True))
    assert race.rows["direct"].state == "running"
    assert race.rows["direct"].text == "peer: over there"
    race.feed(event(0.3, "direct", "strategy", Phase.FAILED, "none answered"))
    assert (race.rows["direct"].state, race.rows["direct"].end) == ("failed", 0.3)


def test_an_answer_over_a_path_makes_up_for_failed_signalling() -> None:
    race = Race()
    race.feed(event(0.1, "", "signal", Phase.FAILED, "no broker"))
    assert race.rows["signal"].state == "failed"
    race.feed(event(0.2, "", "answer", Phase.COMPLETE))
    assert race.rows["signal"].state == "proven"


def test_words_of_a_peer_are_disarmed() -> None:
    race = Race(("direct",))
    race.feed(event(0.1, "direct", "dial", Phase.FAILED, "\x1b]0;title\x07"))
    assert "\x1b" not in plain(draw(race, 0.2, 80, has_unicode=True)[1])


def test_nothing_has_happened_yet() -> None:
    lines = draw(Race(("direct",)), 0.0, 80, has_unicode=True)
    assert [plain(row).split() for row in lines] == [["signal", "waiting"], ["direct", "waiting"]]
