"""What the doctor says, case by case."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from warpgate_core.cli.checkup import BrokerFinding, Checkup, Face, StunFinding
from warpgate_core.cli.verdict import Level, verdict
from warpgate_core.endpoint import IP4, IP6, Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.registry import PluginKind, PluginRecord, PluginState

INSIDE, OUTSIDE = Endpoint("10.0.0.2", 4000), Endpoint("203.0.113.7", 4000)
STUN = StunFinding("203.0.113.20:3478", IP4, OUTSIDE, 0.01)
UP = BrokerFinding("mqtt://b", is_up=True, latency=0.01)
DOWN = BrokerFinding("mqtt://c", is_up=False, error="refused")


def face(nat: NatProfile, **more: Any) -> Face:
    return Face("eth0", INSIDE, OUTSIDE, nat, **more)


def plugin(name: str, state: PluginState = PluginState.LOADED, **more: Any) -> PluginRecord:
    return PluginRecord(name, state, PluginKind.STRATEGY, distribution=f"d-{name}", **more)


SYMMETRIC = NatProfile(Mapping.APDM, Filtering.APDF, Allocation.RANDOM)
CONE = NatProfile(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED)
GOOD = Checkup(
    "id",
    faces=(
        face(NatProfile(Mapping.NONE, Filtering.EIF)),
        Face("eth0", Endpoint("2001:db8::2", 4), None, CONE),
    ),
    stun=(STUN,),
    brokers=(UP,),
)


def said(found: Checkup) -> str:
    return "\n".join(f"{advice.level}: {advice.text}" for advice in verdict(found))


def test_a_good_network_gets_no_reproach() -> None:
    assert {advice.level for advice in verdict(GOOD)} == {Level.GOOD}
    assert "anybody can connect directly" in said(GOOD)


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"network_error": "no usable address", "faces": ()}, "bad", "cannot start here: no usable address"),
    ({"faces": (Face("lo", Endpoint("127.0.0.1", 4), None, CONE),)}, "hint", "Only the loopback"),
    ({"faces": (face(CONE),)}, "hint", "no IPv6"),
    ({"faces": (Face("e", Endpoint("2001:db8::2", 4), None, CONE),)}, "hint", "no IPv4"),
    ({"stun": ()}, "hint", "no STUN server is configured"),
    ({"stun": (StunFinding("s", IP4, error="silence"),)}, "bad", "UDP does not pass"),
    ({"faces": (face(CONE),)}, "hint", "port-restricted cone NAT"),
    ({"faces": (face(CONE),)}, "hint", "pip install warpgate-punch"),
    ({"faces": (face(CONE),)}, "hint", "pip install warpgate-upnp"),
    ({"faces": (face(SYMMETRIC),)}, "hint", "each peer sees another port"),
    ({"faces": (face(SYMMETRIC),)}, "hint", "pip install warpgate-probe"),
    ({"faces": (face(SYMMETRIC),)}, "hint", "warpgate-turn and a TURN server"),
    ({"faces": (face(NatProfile(Mapping.EIM, Filtering.EIF)),)}, "good", "full-cone"),
    ({"faces": (face(NatProfile(Mapping.NONE, Filtering.APDF)),)}, "hint", "a firewall lets in only"),
    ({"faces": (face(NatProfile()),)}, "hint", "not known yet"),
    (
        {"faces": (face(CONE, mapped=(("tcp", OUTSIDE),)),)},
        "good",
        "forwards to this node (tcp 203.0.113.7:4000)",
    ),
    ({"faces": (face(CONE, notes=("two servers disagree",)),)}, "hint", "two servers disagree"),
    ({"brokers": ()}, "hint", "No broker is configured"),
    ({"brokers": (DOWN,)}, "bad", "None of the configured brokers answers"),
    ({"brokers": (UP, DOWN)}, "hint", "1 of 2 brokers"),
    ({"brokers": (UP, UP)}, "good", "All brokers answer"),
    ({"brokers": (BrokerFinding("b", is_up=True, latency=1.5),)}, "hint", "slow to answer"),
    ({"turn": ("turn:t:3478",)}, "hint", "nothing here uses it"),
    ({"turn": ("turn:t:3478",), "plugins": (plugin("turn"),)}, "good", "A relay (TURN)"),
    ({"skew": 3600.0}, "hint", "3600 s ahead"),
    ({"skew": -40.0}, "hint", "40 s behind"),
    ({"plugins": (plugin("x", PluginState.FAILED, error="it broke"),)}, "hint", "it broke"),
]


@pytest.mark.parametrize(("change", "level", "words"), CASES, ids=[words for _, _, words in CASES])
def test_each_case(change: dict[str, Any], level: str, words: str) -> None:
    advice = verdict(dataclasses.replace(GOOD, **change))
    assert [one.level for one in advice if words in one.text] == [Level(level)], advice


def test_what_is_installed_is_not_recommended() -> None:
    found = dataclasses.replace(
        GOOD,
        faces=(face(SYMMETRIC), face(CONE)),
        plugins=(
            plugin("punch-udp"),
            plugin("probe"),
            plugin("turn"),
            plugin("upnp", hooks=("warpgate_node_service",)),
        ),
    )
    assert "pip install" not in said(found)
    assert "The router gave no port mapping" in said(found)


def test_the_worst_comes_first_and_a_small_skew_is_silent() -> None:
    found = dataclasses.replace(GOOD, brokers=(DOWN,), skew=1.0, faces=(face(CONE),))
    levels = [one.level for one in verdict(found)]
    assert levels == sorted(levels, key=[Level.BAD, Level.HINT, Level.GOOD].index)
    assert "The clock" not in said(found)


def test_ipv6_is_judged_by_itself() -> None:
    six = Face("eth0", Endpoint("2001:db8::2", 4), Endpoint("2001:db8::2", 4), NatProfile(Mapping.NONE))
    assert six.family is IP6
    assert "IPv6: no NAT, but a firewall" in said(dataclasses.replace(GOOD, faces=(face(CONE), six)))
