"""Drawn runs over TCP: dialled by either end or by both at once, in pieces of any size, cut or whole."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.core.session.streams import APPLICATION, run
from warpgate_core.session.proof import ProofState
from warpgate_core.strategy import Role

RUNS = 1000


def test_a_whole_connection_becomes_a_pipe_with_not_a_byte_mixed_up() -> None:
    for seed in range(RUNS):
        initiator, responder = run(seed, cut=False)
        where = f"seed {seed}"
        assert initiator.proof.state is responder.proof.state is ProofState.CONFIRMED, where
        assert initiator.received == APPLICATION[Role.RESPONDER], where
        assert responder.received == APPLICATION[Role.INITIATOR], where
        assert not initiator.failed, where
        assert not responder.failed, where


@pytest.mark.parametrize("first", [0, RUNS])
def test_a_connection_that_is_cut_is_half_open_at_worst(first: int) -> None:
    ends: Counter[tuple[str, str]] = Counter()
    for seed in range(first, first + RUNS):
        initiator, responder = run(seed, cut=True)
        one, other = initiator.proof.state, responder.proof.state
        if other is ProofState.CONFIRMED:
            assert one >= ProofState.NOMINATED, f"seed {seed}"
        if one is ProofState.CONFIRMED:
            assert other is ProofState.CONFIRMED, f"seed {seed}"
        if initiator.received is None:
            assert initiator.proof.state is not ProofState.CONFIRMED
        if responder.received:
            assert APPLICATION[Role.INITIATOR].startswith(responder.received)
        ends[one.name, other.name] += 1
    assert {("NOMINATED", "PROVEN"), ("NOMINATED", "CONFIRMED"), ("CONFIRMED", "CONFIRMED")} <= ends.keys()
