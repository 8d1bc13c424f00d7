"""What a router's announcements mean; that they are heard is shown with a real one in the lab."""

from __future__ import annotations

import pytest

from warpgate_core import ProtocolError
from warpgate_upnp.announcements import BURST, RouterClock


def pcp_announcement(epoch: int, result: int = 0) -> bytes:
    return bytes((2, 0x80, 0, result)) + bytes(4) + epoch.to_bytes(4) + bytes(12)


def nat_pmp_announcement(epoch: int, host: bytes = b"\x19\1\1\1") -> bytes:
    return b"\0\x80\0\0" + epoch.to_bytes(4) + host


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("make", [pcp_announcement, nat_pmp_announcement])
def test_announcements_are_repeated_and_count_once(make: object) -> None:
    time = Time()
    clock = RouterClock(time)
    signs = []
    for wait in (0.0, 0.25, 0.5, 1.0, 2.0):  # RFC 6886 section 3.2.1
        time.now += wait
        signs.append(clock.announcement(make(int(time.now))))  # type: ignore[operator]
    assert signs == [True, False, False, False, False]
    time.now += 1_000
    assert clock.announcement(make(0))  # type: ignore[operator]


def test_the_first_of_a_burst_counts_even_if_it_fits() -> None:
    """A router that restarts twice within two seconds has the same epoch as before."""
    time = Time()
    clock = RouterClock(time)
    assert clock.pcp_answer(1)
    assert clock.nat_pmp_answer(1, "25.1.1.1")
    assert clock.announcement(pcp_announcement(1))
    assert not clock.announcement(pcp_announcement(1))
    time.now = 10.0
    assert not clock.announcement(pcp_announcement(11))
    assert not clock.announcement(nat_pmp_announcement(11))
    assert clock.announcement(nat_pmp_announcement(11, b"\x19\2\2\2")), "another external address"
    assert clock.announcement(pcp_announcement(1)), "the clock of a restart"
    time.now += BURST + 1
    assert clock.announcement(pcp_announcement(133))


def test_an_answer_without_address_leaves_the_known_one() -> None:
    clock = RouterClock(Time())
    clock.nat_pmp_answer(1, "25.1.1.1")
    assert clock.nat_pmp_answer(1)
    assert clock.nat_pmp_answer(1, "25.1.1.1")
    assert not clock.nat_pmp_answer(1, "25.1.1.2")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\2",
        b"rubbish",
        pcp_announcement(1, result=3),
        bytes((2, 0x81)) + bytes(58),
        b"\0\x81\0\0" + bytes(12),
        bytes((2, 0)) + bytes(22),
    ],
)
def test_rubbish_is_refused_and_changes_nothing(data: bytes) -> None:
    clock = RouterClock(Time())
    clock.pcp_answer(500)
    with pytest.raises(ProtocolError):
        clock.announcement(data)
    assert clock.announcement(pcp_announcement(500)), "still the first of its burst"
    assert not clock.announcement(pcp_announcement(500)), "and the epoch is the one of before"
