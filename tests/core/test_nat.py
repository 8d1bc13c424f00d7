"""NAT profiles: wire numbers that must not move, and names for people."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile


def test_the_numbers_are_wire_format() -> None:
    assert {member.name: member.value for member in Mapping} == {
        "UNKNOWN": 0, "NONE": 1, "EIM": 2, "ADM": 3, "APDM": 4,
    }  # fmt: skip
    assert {member.name: member.value for member in Filtering} == {
        "UNKNOWN": 0,
        "EIF": 1,
        "ADF": 2,
        "APDF": 3,
    }
    assert {member.name: member.value for member in Allocation} == {
        "UNKNOWN": 0, "PRESERVED": 1, "SEQUENTIAL": 2, "RANDOM": 3, "CHUNKED": 4,
    }  # fmt: skip


def test_nothing_is_known_by_default() -> None:
    profile = NatProfile()
    assert (profile.mapping, profile.filtering, profile.allocation) == (0, 0, 0)
    assert (profile.step, profile.chunk) == (0, None)
    assert not profile.is_predictable
    assert profile.label == "unknown"
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.step = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("mapping", "predictable"),
    [
        (Mapping.NONE, True),
        (Mapping.EIM, True),
        (Mapping.ADM, False),
        (Mapping.APDM, False),
        (Mapping.UNKNOWN, False),
    ],
)
def test_whose_endpoint_every_peer_sees(mapping: Mapping, predictable: bool) -> None:
    assert NatProfile(mapping).is_predictable is predictable


@pytest.mark.parametrize(
    ("profile", "label"),
    [
        (NatProfile(Mapping.NONE, Filtering.EIF), "open"),
        (NatProfile(Mapping.NONE), "no NAT"),
        (NatProfile(Mapping.NONE, Filtering.APDF), "firewall, no NAT"),
        (NatProfile(Mapping.EIM, Filtering.EIF), "full cone"),
        (NatProfile(Mapping.EIM, Filtering.ADF), "address-restricted cone"),
        (NatProfile(Mapping.EIM, Filtering.APDF), "port-restricted cone"),
        (NatProfile(Mapping.EIM), "cone"),
        (NatProfile(Mapping.APDM, allocation=Allocation.RANDOM), "symmetric (random ports)"),
        (
            NatProfile(Mapping.ADM, allocation=Allocation.SEQUENTIAL, step=-2),
            "symmetric (sequential ports, step -2)",
        ),
        (
            NatProfile(Mapping.APDM, allocation=Allocation.CHUNKED, chunk=(1024, 64)),
            "symmetric (random ports in a block)",
        ),
        (NatProfile(Mapping.APDM), "symmetric (ports unknown)"),
    ],
)
def test_labels_for_people(profile: NatProfile, label: str) -> None:
    assert profile.label == label


def test_every_combination_has_a_label() -> None:
    for mapping, filtering, allocation in itertools.product(Mapping, Filtering, Allocation):
        assert NatProfile(mapping, filtering, allocation).label
