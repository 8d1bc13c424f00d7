"""A selection of the NAT matrix: pairs that have to meet, each by the right means, and leave nothing behind.

All pairs, their times and their chances are `benchmarks/bench_nat_matrix.py`. Left to it are the pairs that
need the birthday paradox, since one attempt in a hundred may be unlucky there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Nat, sweep
from tests.lab.matrix import Matrix, Outcome, make_matrix, possible

PUNCHED = {"direct", "reverse", "punch-udp", "punch-tcp"}  # a mapped endpoint is known, whoever is first
LEARNT = {"punch-udp", "probe"}  # the port is learnt from what arrives
GUESSED = {"probe"}

WITHOUT_RELAY = [
    (Nat.OPEN, Nat.OPEN, {"direct"}),
    (Nat.PORT_RESTRICTED, Nat.OPEN, PUNCHED),
    (Nat.OPEN, Nat.SYMMETRIC_RANDOM, PUNCHED | LEARNT),
    (Nat.OPEN, Nat.UDP_BLOCKED, {"reverse", "punch-tcp"}),
    (Nat.UDP_BLOCKED, Nat.OPEN, {"direct", "punch-tcp"}),
    (Nat.FULL_CONE, Nat.SYMMETRIC_RANDOM, PUNCHED | LEARNT),
    (Nat.CARRIER_SYMMETRIC, Nat.ADDRESS_RESTRICTED, PUNCHED | LEARNT),
    (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, PUNCHED),
    (Nat.PORT_RESTRICTED_RANDOM, Nat.CARRIER_EIM, PUNCHED),
    (Nat.PORT_RESTRICTED, Nat.SYMMETRIC_SEQUENTIAL, GUESSED),
    (Nat.PORT_CHUNKED, Nat.PORT_RESTRICTED, GUESSED),
    (Nat.SYMMETRIC_SEQUENTIAL, Nat.SYMMETRIC_SEQUENTIAL, GUESSED),
]
WITH_RELAY = [
    (Nat.SYMMETRIC_RANDOM, Nat.CARRIER_SYMMETRIC),
    (Nat.UDP_BLOCKED, Nat.SYMMETRIC_RANDOM),
    (Nat.PORT_RESTRICTED, Nat.ONLY_443),
]


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    """One world for all; programs that hold more at their end than at their start fail it."""
    with make_matrix() as made:
        yield made
    assert sweep.remnants(sweep.owner_prefix()) == []


def check(outcome: Outcome, winners: set[str]) -> None:
    steps = [f"{step['at']:.3f} {step['strategy']} {step['step']} {step['detail']}" for step in outcome.trace]
    assert outcome.joined, "\n  ".join([outcome.error, *outcome.causes, *steps])
    assert outcome.strategy in winners
    assert outcome.left == ""


@pytest.mark.parametrize(
    ("caller", "callee", "winners"), WITHOUT_RELAY, ids=[f"{a.slug}:{b.slug}" for a, b, _ in WITHOUT_RELAY]
)
def test_without_a_relay(matrix: Matrix, caller: Nat, callee: Nat, winners: set[str]) -> None:
    check(matrix.attempt(caller, callee, relay=False), winners)


@pytest.mark.parametrize(("caller", "callee"), WITH_RELAY, ids=[f"{a.slug}:{b.slug}" for a, b in WITH_RELAY])
def test_with_a_relay(matrix: Matrix, caller: Nat, callee: Nat) -> None:
    made = matrix.turn.made
    outcome = matrix.attempt(caller, callee, relay=True)
    check(outcome, {"turn"})
    assert outcome.kind == "relay"
    matrix.turn.wait_for(lambda: matrix.turn.made > made, "an allocation was made")
    matrix.turn.wait_until_empty()


def test_what_is_possible_is_symmetric() -> None:
    """The expectation that the benchmark counts against does not depend on who calls."""
    assert all(possible(a, b) is possible(b, a) for a in Nat for b in Nat)
    assert sum(possible(a, b) for number, a in enumerate(Nat) for b in tuple(Nat)[number:]) == 53
