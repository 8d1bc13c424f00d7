"""Order of ports, windows, aims, pace: pure."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from warpgate_probe.order import (
    FIRST_PORT,
    LAST_PORT,
    SKEWS,
    Run,
    aims,
    chance,
    search_order,
    sockets_for,
    window,
)
from warpgate_probe.pace import BATCH, Pace


def test_ports_are_random_and_none_comes_twice() -> None:
    order = search_order(random.Random(1), 1_200)
    assert len(set(order)) == len(order) == 1_200
    assert all(FIRST_PORT <= port <= LAST_PORT for port in order)
    assert order != search_order(random.Random(2), 1_200)
    eighths = Counter(port // 8_192 for port in order)
    assert len(eighths) == 8
    assert max(eighths.values()) < 200


@pytest.mark.parametrize("chunk", [(8_192, 1_024), (1_024, 64), (64_512, 1_024), (60_000, 2_048)])
def test_a_block_comes_first_and_then_its_neighbours(chunk: tuple[int, int]) -> None:
    first, size = chunk
    order = search_order(random.Random(1), 8_000, chunk)
    assert set(order[:size]) == set(range(first, first + size))
    assert order[:size] != sorted(order[:size])
    near = [*range(first - size, first), *range(first + size, first + 2 * size)]
    near = [port for port in near if FIRST_PORT <= port <= LAST_PORT]
    assert set(order[size : size + len(near)]) == set(near)
    assert len(set(order)) == len(order) == 8_000
    assert search_order(random.Random(1), 10, chunk) == order[:10]


def test_told_ports_come_first_in_turn() -> None:
    order = search_order(random.Random(1), 100, None, [Run(5_000, 2, 3), Run(9_000, -1, 2)])
    assert order[:5] == [5_000, 9_000, 5_002, 8_999, 5_004]
    assert len(set(order)) == 100


def test_a_whole_search_never_wants_more_than_there_is() -> None:
    assert len(search_order(random.Random(1), 100_000)) == LAST_PORT - FIRST_PORT + 1


def test_runs_end_where_ports_end() -> None:
    assert list(Run(65_533, 1, 100).ports()) == [65_533, 65_534, 65_535]
    assert list(Run(2, -1, 100).ports()) == [2, 1]
    assert list(Run(0, 1, 5).ports()) == []


def test_window_is_what_lies_between_the_questions() -> None:
    assert window(100, 133, 1, 32) == [Run(101, 1, 32)]
    assert window(100, 166, 2, 32) == [Run(102, 2, 32)]
    assert window(200, 134, -2, 32) == [Run(198, -2, 32)]
    assert window(100, 150, 1, 32) == [Run(101, 1, 49)]  # other machines took some
    assert window(100, 167, 2, 32) == [Run(101, 1, 66)]  # and the step is no longer sure
    assert window(100, None, 3, 32) == [Run(103, 3, 128)]
    assert window(22_040, 20_025, 1, 32) == [Run(22_041, 1, 64), Run(20_024, -1, 64)]  # it began anew
    assert window(1_000, 60_000, 1, 32) == [Run(1_001, 1, 64), Run(59_999, -1, 64)]


def meetings(base: tuple[int, int], steps: tuple[int, int], shifts: tuple[int, int], count: int) -> int:
    """How many sockets of two ends meet, of which others took so many ports before."""
    straight = aims(base[1], steps[1], count, skewed=False)
    skewed = aims(base[0], steps[0], count, skewed=True)
    ports = [
        [(base[end] + (number + shifts[end]) * steps[end]) % 65_536 for number in range(1, count + 1)]
        for end in (0, 1)
    ]
    pairs = set(zip(ports[0], straight, strict=True))
    return len(pairs & {(aim, port) for port, aim in zip(ports[1], skewed, strict=True)})


@pytest.mark.parametrize("steps", [(1, 1), (1, -2), (3, 1)])
def test_whatever_others_took_some_sockets_meet(steps: tuple[int, int]) -> None:
    for one in range(SKEWS):
        for other in range(SKEWS - one):
            assert meetings((20_000, 50_000), steps, (one, other), 4 * SKEWS) >= 2
    assert meetings((20_000, 50_000), steps, (SKEWS, 0), 4 * SKEWS) == 0


def test_chance_is_that_of_the_exact_product() -> None:
    exact = 1.0 - math.prod(1.0 - 256 / (64_512 - number) for number in range(1_200))
    assert chance(256, 1_200) == pytest.approx(exact, abs=0.002)
    assert chance(256, 1_200) == pytest.approx(0.991, abs=0.001)
    assert chance(16, 64_512) == 1.0


def test_sockets() -> None:
    assert sockets_for(None, 256) == 256
    assert sockets_for(None, 10) == 10
    assert sockets_for((8_192, 1_024), 256) == 64
    assert sockets_for((8_192, 64), 256) == 16
    assert sockets_for((8_192, 2_048), 100) == 100


def drive(pace: Pace, lateness: float) -> list[float]:
    """When each probe is sent if every timer is late by so much."""
    now, sent = 10.0, []
    while pace.left:
        sent += [now] * pace.take(now)
        now += pace.pause(now) + lateness
    return sent


@pytest.mark.parametrize("lateness", [0.0, 0.001, 0.010, 0.030, 0.2])
def test_pace(lateness: float) -> None:
    sent = drive(Pace(200.0, 1_200), lateness)
    assert len(sent) == 1_200
    for at in sent[::BATCH]:
        assert len([other for other in sent if at <= other < at + 0.99]) <= 200
    if lateness <= 0.010:
        assert sent[-1] - sent[0] == pytest.approx(5.95, abs=0.02)


def test_pace_is_not_hurried_by_who_asks_too_early() -> None:
    pace = Pace(200.0, 100)
    assert pace.take(5.0) == BATCH
    assert pace.take(5.0) == 0
    assert pace.pause(5.0) == pytest.approx(0.05)
    assert pace.take(9.0) == BATCH
    assert Pace(1.0, 5).take(0.0) == 1
