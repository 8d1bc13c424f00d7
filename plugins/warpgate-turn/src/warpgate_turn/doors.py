"""The ways to reach the configured servers, and when each is tried. Pure.

A door is a server and a transport. UDP comes first, since it needs two round trips where TCP needs three
and TLS four, and a relay over TCP loses nothing but time. A URL for UDP stands for TCP at the same port as
well (RFC 5928 section 3 lets a client fall back, and every common server listens on both), behind
everything that was configured in so many words.

Where UDP is known not to get out, the first door of each transport is tried at once, so that such a
node has its relay a round trip or two after an open one. Else the next door opens when the one before has
failed, or has been silent for a few round trips; who has answered anything at all gets more time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from warpgate_core import TurnServer

__all__ = ["GAP", "Door", "doors_of", "patience", "timetable"]

GAP = 0.250  # s; RFC 8305 section 5: recommended connection attempt delay, while no round trip is known
GAP_ROUND_TRIPS = 3  # one to be answered, one for a lost packet, one for a busy server
GAP_LEAST = 0.050  # s; a busy server on a LAN


@dataclass(frozen=True, slots=True)
class Door:
    """One way to one server.

    Args:
        server: as configured.
        via: what carries the dialogue with it.
        implied: not configured in so many words, but worth a try.
    """

    server: TurnServer
    via: Literal["udp", "tcp", "tls"]
    implied: bool = False

    def __str__(self) -> str:
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        scheme, transport = ("turns", "tcp") if self.via == "tls" else ("turn", self.via)
        return f"{scheme}:{host}:{self.server.port}?transport={transport}"


_RANK = {"udp": 0, "tcp": 1, "tls": 2}


def doors_of(servers: Iterable[TurnServer]) -> tuple[Door, ...]:
    """Every door, UDP first, each transport in the order configured, what is only implied last."""
    plain = [Door(server, _via(server)) for server in servers]
    known = {(door.server.host, door.server.port, door.via) for door in plain}
    implied = [
        Door(door.server, "tcp", implied=True)
        for door in plain
        if door.via == "udp" and (door.server.host, door.server.port, "tcp") not in known
    ]
    return tuple(sorted((*plain, *implied), key=lambda door: (door.implied, _RANK[door.via])))


def _via(server: TurnServer) -> Literal["udp", "tcp", "tls"]:
    if server.is_tls:
        return "tls"
    return "tcp" if server.transport == "tcp" else "udp"


def patience(round_trip: float | None) -> float:
    """Seconds that a door may be silent until the next one is tried as well.

    Args:
        round_trip: to its server, seconds; None if unknown.
    """
    if round_trip is None:
        return GAP
    return min(GAP, max(GAP_LEAST, GAP_ROUND_TRIPS * round_trip))


def timetable(
    doors: Iterable[Door], *, udp: bool, last: Door | None, round_trips: Mapping[Door, float]
) -> list[tuple[float, Door]]:
    """When to try which door, in seconds from the start, while none fails and none answers.

    Args:
        doors: from `doors_of`.
        udp: whether UDP is known to get out.
        last: the door that served last, if any.
        round_trips: those measured before, seconds.
    """
    queue = sorted(doors, key=lambda door: door != last)  # stable: only the last one comes to the front
    at_once: set[str] = set()
    starts: list[tuple[float, Door]] = []
    later: list[Door] = []
    for door in queue:
        if not starts or (not udp and door.via not in at_once):
            at_once.add(door.via)
            starts.append((0.0, door))
        else:
            later.append(door)
    when = 0.0
    before = starts[-1][1] if starts else None
    for door in later:
        assert before is not None
        when += patience(round_trips.get(before))
        starts.append((when, door))
        before = door
    return starts
