"""The sentences for people."""

from __future__ import annotations

from warpgate_core import Endpoint
from warpgate_upnp import MappingStatus
from warpgate_upnp.status import sentences

INSIDE, OUTSIDE = Endpoint("192.168.1.2", 4000), Endpoint("25.1.1.1", 4000)


def status(transport: str, **more: object) -> MappingStatus:
    return MappingStatus(transport, INSIDE, "192.168.1.1", **more)  # type: ignore[arg-type]


def test_what_is_the_same_for_both_is_said_once() -> None:
    done = {"external": OUTSIDE, "protocol": "PCP", "expires": 500.0}
    assert sentences([status("udp", **done), status("tcp", **done)]) == [
        "udp and tcp 192.168.1.2:4000 is reached at 25.1.1.1:4000, by PCP with the router 192.168.1.1"
    ]


def test_what_differs_is_said_apart() -> None:
    found = sentences(
        [
            status("udp", external=OUTSIDE, protocol="UPnP", problem="it {does} not answer"),
            status("tcp", problem="the port is taken"),
        ]
    )
    assert found == [
        (
            "udp 192.168.1.2:4000 is reached at 25.1.1.1:4000, by UPnP with the router 192.168.1.1 "
            "(not renewed yet: it {does} not answer)"
        ),
        "no port mapping for tcp 192.168.1.2:4000 at the router 192.168.1.1: the port is taken",
    ]


def test_before_the_first_answer() -> None:
    assert sentences([status("udp")]) == ["the router 192.168.1.1 is being asked to map udp 192.168.1.2:4000"]
    assert sentences([]) == []
