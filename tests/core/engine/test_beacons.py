"""Beacons: bounds of number and rate, one nonce for one pair, and a path that is born of one."""

from __future__ import annotations

import pytest

from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.beacons import BEACON_BURST, BEACON_RATE, MAX_BEACONS, Beacons
from warpgate_core.errors import PluginError
from warpgate_core.net.edge import DatagramSocket

HOST = "203.0.113.7"


class Silent(DatagramSocket):
    """A socket that is never used."""

    name = "silent"
    local = Endpoint("192.168.1.2", 7000)

    def send(self, data: bytes, remote: Endpoint) -> None:
        raise AssertionError("nothing is sent here")

    attach = detach = send  # type: ignore[assignment]


def test_the_nonce_of_a_pair_stays_and_differs_from_all_others() -> None:
    beacons, one, other = Beacons(), Silent(), Silent()
    remote = Endpoint(HOST, 1024)
    assert beacons.nonce(one, remote) is None
    assert beacons.send(one, remote, b"a" * 12, 0.0) == b"a" * 12
    assert beacons.send(one, remote, b"b" * 12, 1.0) == b"a" * 12
    assert beacons.send(other, remote, b"c" * 12, 1.0) == b"c" * 12
    assert beacons.nonce(one, remote) == b"a" * 12
    assert beacons.nonce(other, remote) == b"c" * 12
    assert beacons.nonce(one, Endpoint(HOST, 1025)) is None
    beacons.clear()
    assert beacons.nonce(one, remote) is None


def test_a_burst_and_then_so_many_a_second() -> None:
    beacons, sock = Beacons(), Silent()
    for port in range(1, BEACON_BURST + 1):
        beacons.send(sock, Endpoint(HOST, port), bytes([1]) * 12, 5.0)
    with pytest.raises(PluginError, match="beacons a second"):
        beacons.send(sock, Endpoint(HOST, 999), bytes([1]) * 12, 5.0)
    assert beacons.nonce(sock, Endpoint(HOST, 999)) is None
    now = 5.0
    for port in range(1_000, 1_400):
        now += 1 / BEACON_RATE
        beacons.send(sock, Endpoint(HOST, port), bytes([1]) * 12, now)

    def go_on() -> None:
        for port in range(1_400, 1_403):
            beacons.send(sock, Endpoint(HOST, port), bytes([1]) * 12, now)

    with pytest.raises(PluginError, match="beacons a second"):
        go_on()


def test_a_pause_saves_up_no_more_than_one_burst() -> None:
    beacons, sock = Beacons(), Silent()
    beacons.send(sock, Endpoint(HOST, 1), bytes([1]) * 12, 0.0)
    for _ in range(BEACON_BURST):
        beacons.send(sock, Endpoint(HOST, 1), bytes([1]) * 12, 1_000.0)
    with pytest.raises(PluginError, match="beacons a second"):
        beacons.send(sock, Endpoint(HOST, 1), bytes([1]) * 12, 1_000.0)


def test_the_table_is_bounded_and_old_entries_may_be_sent_again() -> None:
    beacons, sock = Beacons(), Silent()
    for number in range(MAX_BEACONS):
        beacons.send(sock, Endpoint(HOST, 1 + number), bytes([1]) * 12, float(number))
    with pytest.raises(PluginError, match="in one session"):
        beacons.send(sock, Endpoint(HOST, 60_000), bytes([1]) * 12, 1e6)
    assert beacons.send(sock, Endpoint(HOST, 1), bytes([2]) * 12, 1e6) == bytes([1]) * 12
