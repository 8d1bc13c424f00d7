"""Thousands of drawn runs of two ends over bad UDP paths, with and without somebody who meddles."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.core.session.datagrams import World

RUNS = 2000
IDEAS = ("replay", "reflect", "flip", "cut", "other session", "retagged", "spliced", "other path")


@pytest.mark.parametrize("meddle", [0.0, 0.6], ids=["alone", "meddled with"])
def test_both_ends_agree(meddle: float) -> None:
    total: Counter[str] = Counter()
    for seed in range(RUNS):
        try:
            total += World(seed, meddle=meddle).run()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    # Nobody can stop a frame here, so all but the unluckiest lines end in agreement.
    assert total["agreed"] + total["half"] + total["none"] == 2 * RUNS
    assert total["agreed"] >= 0.99 * 2 * RUNS, total
    if meddle:
        assert min(total[idea] for idea in IDEAS) > RUNS / 2, "every idea was tried"


def test_lines_that_lose_nothing_always_agree() -> None:
    for seed in range(300):
        world = World(seed, meddle=0.3)
        world.loss = 0.0
        counts = world.run()
        assert counts["agreed"] == 2, f"seed {seed}: {counts}"
