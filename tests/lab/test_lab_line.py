"""Lines delay, lose, limit and stop what they are told to, measured through real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import Client, Delay, Host, Lab, LabError, Nat

# No packet may be early, and the fastest of many may be this late: the slower ones tell how busy the
# machine is. The forwarder itself is late by 0.03 ms at the median and 0.1 ms at the 99th percentile.
TOLERANCE = 0.002
ROUNDS = 21
LOST_OF = 4000  # packets in a loss test
BATCH = 200  # packets before the receiver's buffer is emptied; divides LOST_OF
FENCES = 20  # all are lost once in 10^10 batches at the highest loss tested
SIGMAS = 7  # a right loss rate is off by more once in 10^11 runs


@contextmanager
def sockets(a: Client, server: Host) -> Iterator[tuple[socket.socket, socket.socket]]:
    with a.socket(host=a.ip4) as inner, server.socket(host=server.ip4) as outer:
        inner.connect(outer.getsockname())
        inner.send(b"hello")
        outer.connect(outer.recvfrom(10)[1])
        for made in (inner, outer):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield inner, outer


def round_trips(inner: socket.socket, outer: socket.socket) -> list[tuple[float, float]]:
    """Seconds up and down, per round."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        inner.send(b"x")
        outer.recv(10)
        turn = time.perf_counter()
        outer.send(b"y")
        inner.recv(10)
        found.append((turn - start, time.perf_counter() - turn))
    return found


@pytest.mark.parametrize(
    ("up", "down"), [(0.0, 0.0), (0.020, 0.020), (0.005, 0.040)], ids=["none", "20 ms", "5 up, 40 down"]
)
def test_delay_is_what_was_asked(lab: Lab, up: float, down: float) -> None:
    net = lab.internet()
    a = net.home("a", delay=(up, down))
    with sockets(a, net.server("server")) as (inner, outer):
        ways = round_trips(inner, outer)
    for asked, measured in ((up, [way[0] for way in ways]), (down, [way[1] for way in ways])):
        assert asked <= min(measured) <= asked + TOLERANCE


def test_delay_adds_up_over_two_lines(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED, delay=0.010)
    with sockets(a, net.server("server", delay=0.015)) as (inner, outer):
        ways = round_trips(inner, outer)
    assert 0.050 <= min(up + down for up, down in ways) <= 0.050 + TOLERANCE


def test_delay_can_be_changed(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", delay=0.001)
    with sockets(a, net.server("server")) as (inner, outer):
        a.home.line.set_delay(Delay(0.030), Delay(0.0))
        ways = round_trips(inner, outer)
    assert 0.030 <= min(way[0] for way in ways) <= 0.030 + TOLERANCE
    assert min(way[1] for way in ways) <= TOLERANCE


def test_a_line_without_delay_cannot_be_given_one(lab: Lab) -> None:
    a = lab.internet().home("a")
    with pytest.raises(LabError, match="without delay"):
        a.home.line.set_delay(Delay(0.01))


def test_the_forwarder_is_hardly_late(lab: Lab) -> None:
    """Lateness is what it adds of its own; it knows each packet's deadline."""
    net = lab.internet()
    a = net.home("a", delay=0.005)
    with sockets(a, net.server("server")) as (inner, outer):
        before = lab.forwarder.statistics()
        round_trips(inner, outer)
        after = lab.forwarder.statistics()
    assert after["packets"] >= 2 * ROUNDS
    assert 0 <= after["late_p50"] < TOLERANCE
    line = a.home.line.name
    assert after["lines"][line]["dropped"] == before["lines"][line]["dropped"]
    carried = zip(before["lines"][line]["carried"], after["lines"][line]["carried"], strict=True)
    assert all(now - then >= ROUNDS for then, now in carried)


def test_rate_is_limited(lab: Lab) -> None:
    net = lab.internet()
    count, size, rate = 50, 1000, 500_000.0
    a = net.home("a", delay=(Delay(0.001, rate), Delay(0.001)))
    with sockets(a, net.server("server")) as (inner, outer):
        start = time.perf_counter()
        for _ in range(count):
            inner.send(bytes(size))
        for _ in range(count):
            outer.recv(2 * size)
        took = time.perf_counter() - start
    assert took >= count * size / rate


def lost(sender: socket.socket, receiver: socket.socket) -> int:
    """How many of `LOST_OF` packets do not come."""
    came = 0
    for number in range(LOST_OF):
        sender.send(b"data")
        if number % BATCH == BATCH - 1:
            came += arrived(sender, receiver, b"fence %d" % number)
    return LOST_OF - came


def arrived(sender: socket.socket, receiver: socket.socket, fence: bytes) -> int:
    """Count what was sent before the fence, of which one in `FENCES` gets through for sure."""
    for _ in range(FENCES):
        sender.send(fence)
    came = 0
    while (packet := receiver.recv(20)) != fence:
        came += packet == b"data"
    return came


@pytest.mark.parametrize(("up", "down"), [(0.05, 0.0), (0.0, 0.3)])
def test_loss_is_about_right(lab: Lab, up: float, down: float) -> None:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED)
    with sockets(a, net.server("server")) as (inner, outer):
        a.home.line.set_loss(up, down)
        found = lost(inner, outer), lost(outer, inner)
    for share, count in zip((up, down), found, strict=True):
        room = SIGMAS * (LOST_OF * share * (1 - share)) ** 0.5
        assert abs(count - LOST_OF * share) <= room


def test_a_cut_line_is_silent_and_can_be_mended(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED)
    with sockets(a, net.server("server")) as (inner, outer):
        a.home.line.cut()
        for _ in range(10):
            inner.send(b"lost")
            outer.send(b"lost")
        a.home.line.mend()
        inner.send(b"up")
        assert outer.recv(10) == b"up"
        outer.send(b"down")
        assert inner.recv(10) == b"down"
