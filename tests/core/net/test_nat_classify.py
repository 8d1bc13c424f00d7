"""What is inferred from observations: one line per case."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.net.nat_classify import (
    MAX_CHANCE,
    FilterTest,
    Observations,
    Seen,
    chance_of_window,
    classify,
    diagnose,
)

HERE = Endpoint("192.168.1.2", 5000)
OUTSIDE = "203.0.113.9"
# Two addresses with two ports each (a server of RFC 5780), and two further plain servers.
A1, A2 = Endpoint("198.51.100.1", 3478), Endpoint("198.51.100.1", 3479)
B1, B2 = Endpoint("198.51.100.2", 3478), Endpoint("198.51.100.2", 3479)
C, D = Endpoint("198.51.100.3", 3478), Endpoint("198.51.100.4", 3478)


def main(*seen: tuple[Endpoint, int | Endpoint]) -> tuple[Seen, ...]:
    """(server, mapped port or endpoint)."""
    return tuple(
        Seen(HERE, server, mapped if isinstance(mapped, Endpoint) else Endpoint(OUTSIDE, mapped))
        for server, mapped in seen
    )


def fresh(*mapped: int, local: Callable[[int], int] = lambda place: 20_000 + 7 * place) -> tuple[Seen, ...]:
    return tuple(
        Seen(Endpoint(HERE.host, local(place)), A1, Endpoint(OUTSIDE, port))
        for place, port in enumerate(mapped)
    )


@pytest.mark.parametrize(
    ("seen", "mapping", "doubtful"),
    [
        ((), Mapping.UNKNOWN, ()),
        # nothing between us and the server
        (main((A1, HERE)), Mapping.NONE, ()),
        (main((A1, HERE), (C, HERE), (D, 7)), Mapping.NONE, (D,)),
        # one address alone proves nothing
        (main((A1, 7)), Mapping.UNKNOWN, ()),
        (main((A1, 7), (A2, 7)), Mapping.UNKNOWN, ()),
        # ... unless it shows a difference
        (main((A1, 7), (A2, 8)), Mapping.APDM, ()),
        # endpoint-independent
        (main((A1, 7), (C, 7)), Mapping.EIM, ()),
        (main((A1, 7), (B1, 7), (A2, 7), (B2, 7)), Mapping.EIM, ()),
        # one liar among three, wherever it stands
        (main((C, 9), (A1, 7), (B1, 7)), Mapping.EIM, (C,)),
        (main((A1, 7), (B1, 7), (C, Endpoint("10.9.9.9", 7))), Mapping.EIM, (C,)),
        (main((A1, 7), (B1, 7), (C, HERE)), Mapping.EIM, (C,)),
        # address-dependent, address-and-port-dependent
        (main((A1, 7), (A2, 7), (B1, 8), (B2, 8)), Mapping.ADM, ()),
        (main((A1, 7), (A2, 8), (B1, 9), (B2, 10)), Mapping.APDM, ()),
        (main((A1, 7), (B1, 8), (C, 9)), Mapping.APDM, ()),
        # a NAT with a pool of addresses: the port is kept, the address is not
        (main((A1, 7), (C, Endpoint("203.0.113.10", 7))), Mapping.APDM, ()),
        # two servers that cannot both be right
        (main((A1, HERE), (C, 7)), Mapping.UNKNOWN, (A1, C)),
    ],
)
def test_mapping(seen: tuple[Seen, ...], mapping: Mapping, doubtful: tuple[Endpoint, ...]) -> None:
    diagnosis = diagnose(Observations(seen))
    assert diagnosis.profile.mapping is mapping
    assert diagnosis.doubtful == doubtful
    assert classify(Observations(seen)) == diagnosis.profile


@pytest.mark.parametrize(
    ("seen", "external"),
    [
        ((), None),
        (main((A1, 7)), Endpoint(OUTSIDE, 7)),
        (main((C, 9), (A1, 7), (B1, 7)), Endpoint(OUTSIDE, 7)),
        (main((A1, 7), (B1, 8)), Endpoint(OUTSIDE, 7)),
        (main((A1, HERE)), HERE),
    ],
)
def test_the_external_endpoint_is_the_majoritys_else_the_first(
    seen: tuple[Seen, ...], external: Endpoint | None
) -> None:
    assert diagnose(Observations(seen)).external == external


def test_ten_ports_of_one_address_are_one_witness() -> None:
    liar = [(Endpoint("198.51.100.66", port), 9) for port in range(1, 11)]
    diagnosis = diagnose(Observations(main(*liar, (A1, 7), (B1, 7))))
    assert diagnosis.external == Endpoint(OUTSIDE, 7)
    assert len(diagnosis.doubtful) == 10


@pytest.mark.parametrize(
    ("tests", "filtering"),
    [
        ((), Filtering.UNKNOWN),
        ((FilterTest(A1, answered=True, capable=True, from_other_address=True),), Filtering.EIF),
        (
            (FilterTest(A1, True, True, from_other_address=True, from_other_port=True),),
            Filtering.EIF,
        ),
        ((FilterTest(A1, answered=True, capable=True, from_other_port=True),), Filtering.ADF),
        ((FilterTest(A1, answered=True, capable=True),), Filtering.APDF),
        ((FilterTest(A1, answered=False, capable=True),), Filtering.UNKNOWN),
        ((FilterTest(A1, answered=True, capable=False),), Filtering.UNKNOWN),
        # what came through is proof, whoever else claims that nothing can
        ((FilterTest(A1, True, True), FilterTest(C, True, True, from_other_address=True)), Filtering.EIF),
        ((FilterTest(A1, False, True), FilterTest(C, True, True)), Filtering.APDF),
    ],
)
def test_filtering(tests: tuple[FilterTest, ...], filtering: Filtering) -> None:
    assert classify(Observations(main((A1, 7), (C, 7)), filters=tests)).filtering is filtering


@pytest.mark.parametrize(
    ("ports", "step"),
    [
        ((4000, 4001, 4002, 4003, 4004, 4005), 1),
        ((4000, 4002, 4004, 4006, 4008, 4010), 2),
        ((4010, 4009, 4008, 4007, 4006, 4005), -1),
        ((4000, 4001, 4003, 4004, 4005, 4009), 1),  # other hosts took some
        ((4000, 4002, 4006, 4008, 4010, 4012), 2),
        ((4000, 4002, 4001, 4003, 4004, 4005), 1),  # one overtook another
        ((65_534, 65_535, 0, 1, 2, 3), 1),  # the counter wraps
        ((4000, 4001, 4002, 4003, 4004), 1),
        (
            (32_765, 32_766, 32_767, 30_720, 30_721, 30_722),
            1,
        ),  # it counts through 2,048 ports and begins again
        ((30_724, 30_722, 30_720, 32_766, 32_764, 32_762), -2),
        ((30_721, 30_720, 32_767, 32_766, 32_765, 32_764), -1),
    ],
)
def test_sequential_ports(ports: Sequence[int], step: int) -> None:
    profile = classify(Observations(main((A1, 3990), (B1, 3991)), fresh(*ports)))
    assert (profile.allocation, profile.step) == (Allocation.SEQUENTIAL, step)
    assert profile.chunk is None


@pytest.mark.parametrize(
    ("ports", "allocation"),
    [
        ((12_345, 60_001, 33_333, 1_999, 48_000, 7_777), Allocation.RANDOM),
        ((4000, 4001), Allocation.UNKNOWN),
        ((), Allocation.UNKNOWN),
        ((4000, 4065, 4130, 4195, 4260, 4325), Allocation.CHUNKED),  # too far apart for a sequence
    ],
)
def test_other_patterns(ports: Sequence[int], allocation: Allocation) -> None:
    profile = classify(Observations(main((A1, 4010)), fresh(*ports)))
    assert profile.allocation is allocation


def test_preserved_ports() -> None:
    seen = main((A1, HERE.port), (C, HERE.port))
    kept = fresh(20_000, 20_007, 20_014, 20_021, 20_028, 20_035)
    assert classify(Observations(seen, kept)) == NatProfile(
        Mapping.EIM, Filtering.UNKNOWN, Allocation.PRESERVED
    )
    one_was_taken = fresh(20_000, 20_007, 20_014, 61_234, 20_028, 20_035)
    assert classify(Observations(seen, one_was_taken)).allocation is Allocation.PRESERVED


def test_preserved_for_the_first_destination_only() -> None:
    """Such a NAT is no more predictable than a random one, though every fresh socket looks preserved."""
    kept = fresh(20_000, 20_007, 20_014, 20_021, 20_028, 20_035)
    seen = main((A1, HERE.port), (A2, 50_123), (B1, 1_777), (B2, 33_000))
    profile = classify(Observations(seen, kept))
    assert profile.mapping is Mapping.APDM
    assert profile.allocation is Allocation.RANDOM


def test_liars_do_not_spoil_the_ports() -> None:
    seen = main((A1, HERE.port), (B1, HERE.port), (C, 9))
    assert classify(Observations(seen)).allocation is Allocation.PRESERVED


def test_the_chance_of_a_window() -> None:
    """The bound is above what happens, and not far."""
    chance = random.Random(7422)
    ports, window, samples, runs = 64_512, 8_192, 4, 40_000
    hits = 0
    for _ in range(runs):
        drawn = [chance.randrange(ports) for _ in range(samples)]
        hits += max(drawn) - min(drawn) < window
    assert hits / runs <= chance_of_window(samples, window) <= 1.3 * hits / runs
    assert chance_of_window(1, 5) == 1.0
    assert chance_of_window(2, 64_512) == 1.0
    assert chance_of_window(7, 2_048) < 1e-8


@pytest.mark.parametrize("size", [64, 256, 512, 1_024, 2_048])
def test_chunks_are_found_and_the_estimate_holds_the_ports(size: int) -> None:
    """Drawn from a block: not once taken for random ports over the whole range, and the block found again."""
    chance = random.Random(size)
    found = 0
    covered = 0.0
    for _ in range(300):
        first = 1_024 + size * chance.randrange((65_536 - 1_024) // size)
        ports = chance.sample(range(first, first + size), 9)
        seen = main((A1, ports[0]), (A2, ports[1]), (B1, ports[2]))
        profile = classify(Observations(seen, fresh(*ports[3:])))
        assert profile.allocation in (Allocation.CHUNKED, Allocation.SEQUENTIAL)
        if profile.allocation is Allocation.SEQUENTIAL:
            continue
        found += 1
        assert profile.chunk is not None
        begin, width = profile.chunk
        assert 1_024 <= begin <= min(ports)
        assert max(ports) < begin + width <= 65_536
        assert width <= 2 * size
        covered += (min(begin + width, first + size) - max(begin, first)) / size
    assert found >= 295
    assert covered / found >= 0.9


def test_a_block_on_no_boundary() -> None:
    ports = (3_050, 3_900, 4_000, 3_400, 3_200, 3_700)
    profile = classify(Observations(main((A1, 3_555), (A2, 3_777)), fresh(*ports)))
    assert profile.chunk is not None
    begin, width = profile.chunk
    assert begin <= 3_050
    assert begin + width > 4_000
    assert width <= 2_048


def test_few_ports_close_together_are_not_called_a_block() -> None:
    profile = classify(Observations(main((A1, 4_050), (A2, 4_900)), fresh(4_500)))
    assert profile.allocation is Allocation.UNKNOWN


def test_random_ports_are_called_random() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        ports = [chance.randrange(1_024, 65_536) for _ in range(9)]
        seen = main((A1, ports[0]), (A2, ports[1]), (B1, ports[2]))
        assert classify(Observations(seen, fresh(*ports[3:]))).allocation is Allocation.RANDOM


def test_within_a_small_block_chance_is_rarely_taken_for_a_sequence() -> None:
    chance = random.Random(2)
    wrong = 0
    for _ in range(20_000):
        ports = chance.sample(range(4_096, 4_160), 7)
        profile = classify(Observations(main((A1, ports[0]), (A2, ports[0] + 1)), fresh(*ports[1:])))
        wrong += profile.allocation is Allocation.SEQUENTIAL
    assert wrong / 20_000 < MAX_CHANCE


def test_notes_tell_people() -> None:
    assert "no STUN server answered" in diagnose(Observations(())).notes[0]
    assert "one server address alone" in diagnose(Observations(main((A1, 7)))).notes[0]
    assert any(
        "is not believed" in note for note in diagnose(Observations(main((A1, 7), (B1, 7), (C, 8)))).notes
    )
    assert any(
        "contradict each other" in note for note in diagnose(Observations(main((A1, HERE), (C, 7)))).notes
    )
    assert any("filtering is unknown" in note for note in diagnose(Observations(main((A1, 7)))).notes)
