"""The conformance checks, between the two NATs that the strategy is for.

Two attempts at once take their turns, so the second waits out the 20 s between two searches.
"""

from __future__ import annotations

import pytest

from warpgate_core.nat import Allocation, Mapping
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.nat import PORT_RESTRICTED, SYMMETRIC_SEQUENTIAL, NatRules
from warpgate_core.testing.network import MemoryNetwork
from warpgate_probe import Probe

CHUNKED = NatRules(mapping=Mapping.APDM, allocation=Allocation.CHUNKED, chunk=(9_216, 1_024))
TIMEOUT = 50.0  # s of virtual time: one search, the wait for the next, and that


def _hosts(network: MemoryNetwork, *rules: NatRules) -> tuple[Host, Host]:
    made = []
    for number, rule in enumerate(rules, 1):
        zone = network.lan(f"home {number}", f"203.0.113.{number}", rule, line=Line(delay=0.01))
        made.append(network.host(f"host {number}", f"192.168.{number}.2/24", zone=zone))
    return made[0], made[1]


def cone_and_chunked(network: MemoryNetwork) -> tuple[Host, Host]:
    return _hosts(network, PORT_RESTRICTED, CHUNKED)


def sequential_and_cone(network: MemoryNetwork) -> tuple[Host, Host]:
    return _hosts(network, SYMMETRIC_SEQUENTIAL, PORT_RESTRICTED)


def both_sequential(network: MemoryNetwork) -> tuple[Host, Host]:
    return _hosts(network, SYMMETRIC_SEQUENTIAL, SYMMETRIC_SEQUENTIAL)


@pytest.mark.warpgate_strategy(cls=Probe, hosts=cone_and_chunked, timeout=TIMEOUT)
def test_cone_and_chunked(warpgate_check) -> None:  # type: ignore[no-untyped-def]
    warpgate_check()


@pytest.mark.warpgate_strategy(cls=Probe, hosts=sequential_and_cone, timeout=TIMEOUT)
def test_sequential_and_cone(warpgate_check) -> None:  # type: ignore[no-untyped-def]
    warpgate_check()


@pytest.mark.warpgate_strategy(cls=Probe, hosts=both_sequential, timeout=TIMEOUT)
def test_both_sequential(warpgate_check) -> None:  # type: ignore[no-untyped-def]
    warpgate_check()
