"""Both ends must compute the same order, now and in every later version."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, getcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.endpoint import IP4, IP6, Family
from warpgate_core.errors import ConfigError
from warpgate_core.signal.rendezvous import canonical_id, inbox_topic, rank, rendezvous_set, score

KEY = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")


@dataclass(frozen=True)
class Fake:
    """What ranking needs of a broker."""

    broker_id: str
    families: frozenset[Family] = frozenset((IP4,))
    weight: float = 1.0


def dual(broker_id: str) -> Fake:
    return Fake(broker_id, frozenset((IP4, IP6)))


def v6(broker_id: str) -> Fake:
    return Fake(broker_id, frozenset((IP6,)))


# Golden: other implementations and later versions must find exactly these.
GOLDEN = {
    ("broker.example.com:1883", 1.0): "2.294347377206",
    ("203.0.113.10:1883", 1.0): "1.042754773961",
    ("[2001:db8::1]:8883", 1.0): "4.362598318619",
    ("broker.example.com:1883", 2.5): "0.917738950882",
}


@pytest.mark.parametrize(("broker", "weight"), GOLDEN)
def test_golden_scores(broker: str, weight: float) -> None:
    assert f"{score(broker, KEY.hex(), weight):.12f}" == GOLDEN[broker, weight]


@given(st.text("abcdef0123456789.:", min_size=1, max_size=30), st.floats(0.01, 100))
def test_the_score_is_the_documented_formula(broker: str, weight: float) -> None:
    getcontext().prec = 50
    digest = hashlib.sha256((broker + KEY.hex()).encode()).digest()
    n = int.from_bytes(digest, "big") >> (256 - 52)
    exact = -((Decimal(n) + Decimal("0.5")) / Decimal(2) ** 52).ln() / Decimal(weight)
    assert float(exact) == pytest.approx(score(broker, KEY.hex(), weight), rel=1e-12)


def test_the_case_of_the_key_does_not_matter() -> None:
    assert score("a:1", KEY.hex().upper()) == score("a:1", KEY.hex())


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        score("a:1", KEY.hex(), weight)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("Broker.Example.COM.", 1883, "broker.example.com:1883"),
        ("203.0.113.10", 1, "203.0.113.10:1"),
        ("2001:0DB8:0:0::0001", 1883, "[2001:db8::1]:1883"),
        ("[2001:db8::1]", 1883, "[2001:db8::1]:1883"),
        ("bücher.example", 8883, "xn--bcher-kva.example:8883"),
    ],
)
def test_one_broker_has_one_name(host: str, port: int, expected: str) -> None:
    assert canonical_id(host, port) == expected


def test_golden_ranking() -> None:
    pool = [Fake(f"203.0.113.{n}:1883") for n in range(1, 6)] + [v6(f"[2001:db8::{n}]:1883") for n in "123"]
    assert [b.broker_id for b in rank(pool, KEY)] == [
        "203.0.113.1:1883",
        "[2001:db8::1]:1883",
        "203.0.113.3:1883",
        "[2001:db8::3]:1883",
        "203.0.113.4:1883",
        "[2001:db8::2]:1883",
        "203.0.113.2:1883",
        "203.0.113.5:1883",
    ]


def test_golden_topic() -> None:
    expected = hashlib.sha256(b"warpgate/1 inbox" + KEY).hexdigest()[:32]
    assert inbox_topic(KEY) == f"wg/{expected}" == "wg/5cb626c1c28775ca8ce6ed462220a3f2"


def test_families_are_interleaved_ipv4_first() -> None:
    pool = [Fake(f"a{n}:1") for n in range(4)] + [v6(f"b{n}:1") for n in range(2)]
    order = [b.broker_id[0] for b in rank(pool, KEY)]
    assert order == ["a", "b", "a", "b", "a", "a"]


def test_a_dual_stack_broker_is_there_once() -> None:
    pool = [dual("d:1"), Fake("a:1"), v6("b:1")]
    assert sorted(b.broker_id for b in rank(pool, KEY)) == ["a:1", "b:1", "d:1"]


@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_order_does_not_depend_on_how_the_pool_is_listed(rng: random.Random, size: int) -> None:
    pool = [rng.choice((Fake, v6, dual))(f"h{n}:1883") for n in range(size)]
    shuffled = pool[:]
    rng.shuffle(shuffled)
    assert rank(pool, KEY) == rank(shuffled, KEY)


def test_one_broker_less_moves_only_what_it_had() -> None:
    pool = [Fake(f"h{n}:1883") for n in range(10)]
    moved = 0
    for n in range(500):
        key = hashlib.sha256(str(n).encode()).digest() + b"x"
        before, after = rank(pool, key), rank(pool[1:], key)
        assert [b for b in before if b is not pool[0]] == after
        moved += before[0] is pool[0]
    assert 25 <= moved <= 75  # a tenth of 500; sigma is 6.7


def test_weight_is_the_share_of_first_places() -> None:
    pool = [Fake("light:1"), Fake("heavy:1", weight=3.0)]
    first = Counter(rank(pool, hashlib.sha256(str(n).encode()).digest())[0].broker_id for n in range(2000))
    assert 1420 <= first["heavy:1"] <= 1580  # 1,500; sigma is 19


@given(st.randoms(use_true_random=False))
def test_peers_of_any_families_meet(rng: random.Random) -> None:
    """An IPv4-only, an IPv6-only and a dual-stack peer, pairwise, as long as one broker has both families."""
    pool = [rng.choice((Fake, v6))(f"h{n}:1883") for n in range(rng.randint(0, 12))] + [dual("d:1883")]
    key = rng.randbytes(33)
    reach = {
        "v4": lambda b: IP4 in b.families,
        "v6": lambda b: IP6 in b.families,
        "both": lambda b: True,
    }
    chosen = {name: set(rendezvous_set(rank(pool, key), can)) for name, can in reach.items()}
    for listener in chosen.values():
        for sender in chosen.values():
            assert listener & sender


def test_a_set_has_k_brokers_and_only_usable_ones() -> None:
    pool = rank([Fake(f"h{n}:1") for n in range(9)], KEY)
    assert rendezvous_set(pool, lambda _: True) == pool[:3]
    assert rendezvous_set(pool, lambda b: b not in pool[:2], 2) == pool[2:4]
    assert rendezvous_set(pool, lambda _: False) == []


def test_the_last_place_goes_to_a_dual_stack_broker() -> None:
    ranking = [Fake("a:1"), Fake("b:1"), Fake("c:1"), Fake("e:1"), dual("d:1")]
    assert [b.broker_id for b in rendezvous_set(ranking, lambda _: True)] == ["a:1", "b:1", "d:1"]
