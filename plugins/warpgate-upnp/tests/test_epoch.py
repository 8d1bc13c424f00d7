"""When a server's clock shows that it has restarted (RFC 6886 section 3.6, RFC 6887 section 8.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_upnp.epoch import NatPmpEpoch, PcpEpoch


@pytest.mark.parametrize("kind", [PcpEpoch, NatPmpEpoch])
def test_the_first_answer_fits_and_a_restart_does_not(kind: type[PcpEpoch]) -> None:
    epoch = kind()
    assert epoch.observe(1_000, 50.0)
    assert epoch.observe(1_010, 60.0)
    assert not epoch.observe(3, 70.0)
    assert epoch.observe(13, 80.0), "from then on the new clock counts"


@pytest.mark.parametrize(
    ("server", "client", "fits"),
    [
        (-1, 0, True),  # a second back is rounding
        (-2, 0, False),
        (160, 160, True),
        (172, 160, True),  # 172 - 172/16 = 161.25 <= 162
        (173, 160, False),
        (148, 160, True),  # 150 >= 160 - 10
        (147, 160, False),
    ],
)
def test_pcp_at_its_bounds(server: int, client: int, fits: bool) -> None:
    epoch = PcpEpoch()
    epoch.observe(10_000, 0.0)
    assert epoch.observe(10_000 + server, float(client)) is fits


@pytest.mark.parametrize(
    ("server", "client", "fits"),
    [
        (160, 160, True),
        (1_000, 160, True),
        (138, 160, True),
        (137, 160, False),
        (-2, 0, True),
        (-3, 0, False),
    ],
)
def test_nat_pmp_at_its_bounds(server: int, client: int, fits: bool) -> None:
    epoch = NatPmpEpoch()
    epoch.observe(10_000, 0.0)
    assert epoch.observe(10_000 + server, float(client)) is fits


@given(st.lists(st.floats(0.1, 5_000), max_size=20), st.floats(0.95, 1.05), st.integers(0, 10**6))
def test_an_honest_clock_that_is_five_percent_off_never_alarms(
    waits: list[float], rate: float, begin: int
) -> None:
    for epoch in (PcpEpoch(), NatPmpEpoch()):
        now = 0.0
        for wait in waits:
            now += wait
            assert epoch.observe(begin + int(now * rate), now)
