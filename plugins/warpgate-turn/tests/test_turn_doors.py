"""Which way to which server is tried when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import TurnServer
from warpgate_turn.doors import GAP, GAP_LEAST, Door, doors_of, patience, timetable

UDP, TCP, TLS = "turn:u:1", "turn:t:2?transport=tcp", "turns:s:3"
TEXT = {"udp": "turn:{}:{}", "tcp": "turn:{}:{}?transport=tcp", "tls": "turns:{}:{}"}
SERVERS = st.lists(
    st.builds(
        lambda via, host, port: TurnServer(TEXT[via].format(host, port)),
        st.sampled_from(["udp", "tcp", "tls"]),
        st.sampled_from(["a", "b", "2001:db8::1"]).map(lambda h: f"[{h}]" if ":" in h else h),
        st.sampled_from([443, 3478]),
    ),
    max_size=8,
    unique=True,
)


def names(doors: tuple[Door, ...]) -> list[str]:
    return [str(door) for door in doors]


def test_udp_comes_first_and_what_nobody_configured_last() -> None:
    doors = doors_of(map(TurnServer, [TLS, UDP, TCP]))
    assert names(doors) == [
        "turn:u:1?transport=udp",
        "turn:t:2?transport=tcp",
        "turns:s:3?transport=tcp",
        "turn:u:1?transport=tcp",
    ]
    assert [door.implied for door in doors] == [False, False, False, True]


def test_tcp_that_is_configured_is_not_implied_once_more() -> None:
    doors = doors_of(map(TurnServer, ["turn:u:1", "turn:u:1?transport=tcp"]))
    assert names(doors) == ["turn:u:1?transport=udp", "turn:u:1?transport=tcp"]


def test_a_door_shows_no_credentials() -> None:
    (door, *_) = doors_of([TurnServer("turn:alice:hush@u:1")])
    assert "hush" not in f"{door} {door!r}"
    assert "hush" not in repr(door)


def test_with_udp_one_at_a_time() -> None:
    doors = doors_of(map(TurnServer, [TLS, UDP, TCP]))
    table = timetable(doors, udp=True, last=None, round_trips={})
    assert [when for when, _ in table] == [0.0, GAP, 2 * GAP, 3 * GAP]
    assert [door for _, door in table] == list(doors)


def test_without_udp_one_of_each_transport_at_once() -> None:
    doors = doors_of(map(TurnServer, [TLS, UDP, TCP, "turn:v:1", "turns:w:3"]))
    table = timetable(doors, udp=False, last=None, round_trips={})
    assert [str(door) for when, door in table if when == 0.0] == [
        "turn:u:1?transport=udp",
        "turn:t:2?transport=tcp",
        "turns:s:3?transport=tcp",
    ]
    assert [when for when, _ in table if when] == [GAP, 2 * GAP, 3 * GAP, 4 * GAP]


def test_without_udp_a_url_for_udp_alone_is_tried_over_tcp_at_once() -> None:
    table = timetable(doors_of([TurnServer(UDP)]), udp=False, last=None, round_trips={})
    assert [(when, door.via) for when, door in table] == [(0.0, "udp"), (0.0, "tcp")]


def test_the_door_that_served_last_comes_first() -> None:
    doors = doors_of(map(TurnServer, [UDP, TCP, TLS]))
    table = timetable(doors, udp=True, last=doors[2], round_trips={})
    assert [door for _, door in table] == [doors[2], doors[0], doors[1], doors[3]]


def test_known_round_trips_shorten_the_wait() -> None:
    doors = doors_of(map(TurnServer, [UDP, "turn:v:1"]))
    table = timetable(doors, udp=True, last=None, round_trips={doors[0]: 0.040})
    assert table[1][0] == pytest.approx(0.120)


@pytest.mark.parametrize(
    ("round_trip", "seconds"), [(None, GAP), (0.001, GAP_LEAST), (0.040, 0.120), (5.0, GAP)]
)
def test_patience_grows_with_the_round_trip_within_bounds(round_trip: float | None, seconds: float) -> None:
    assert patience(round_trip) == pytest.approx(seconds)


@given(SERVERS, st.booleans(), st.data())
def test_every_door_is_tried_once_in_ascending_time(
    servers: list[TurnServer], udp: bool, data: st.DataObject
) -> None:
    doors = doors_of(servers)
    last = data.draw(st.sampled_from([None, *doors]))
    table = timetable(doors, udp=udp, last=last, round_trips=dict.fromkeys(doors[:2], 0.02))
    assert sorted(map(str, doors)) == sorted(str(door) for _, door in table)
    assert len(set(doors)) == len(table)
    times = [when for when, _ in table]
    assert times == sorted(times)
    assert not times or times[0] == 0.0
    assert all(later - sooner <= GAP + 1e-9 for sooner, later in pairwise(times))
