"""Who meets where: weighted rendezvous hashing of brokers on the destination's key.

Both ends compute the same order from the same pool without a word between them. Adding or removing a
broker moves only the keys it wins or won (Thaler and Ravishankar, "A Name-Based Mapping Scheme for
Rendezvous", 1996; the weighted form: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables",
2005).

    score = -log(H(broker_id || dest_pub_hex)) / weight        lower first

H is SHA-256; its first 52 bits n become (n + 0.5) / 2**52, which is exact in a double and lies strictly
inside (0, 1), so that the logarithm is finite and never zero on any platform. `broker_id` is the
canonical text ``host:port`` (see `canonical_id`); it says nothing of scheme, family or credentials,
which may differ between two machines that mean the same broker.

IPv4 and IPv6 brokers are ranked apart and interleaved, IPv4 first; a dual-stack broker stands in both
lists and counts where it comes first. `rendezvous_set` then makes sure that a dual-stack broker is
among the chosen ones when there is one at all: without it an IPv4-only and an IPv6-only peer could
choose disjoint sets.

Rejected: consistent hashing on a ring (needs virtual nodes to balance, and weights are awkward), a DHT
(coordination), and one common ranking without families (a single-stack peer skips what it cannot reach, and
its first K drift away from everybody else's).
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Final, Protocol, TypeVar

from warpgate_core.endpoint import IP4, IP6, Family
from warpgate_core.errors import ConfigError

__all__ = [
    "K",
    "Rankable",
    "canonical_host",
    "canonical_id",
    "inbox_topic",
    "rank",
    "rendezvous_set",
    "score",
]

K: Final = 3  # brokers that a node listens at for life (DESIGN section 5)

TOPIC_LABEL: Final = b"warpgate/1 inbox"


class Rankable(Protocol):
    """What ranking needs to know of a broker."""

    @property
    def broker_id(self) -> str:
        """Canonical ``host:port``."""

    @property
    def weight(self) -> float:
        """Share of the keys, relative to the others; above 0."""

    @property
    def families(self) -> frozenset[Family]:
        """Families it can be reached over, as far as configuration says."""


R = TypeVar("R", bound=Rankable)


def canonical_host(host: str) -> str:
    """The one way to write a host: RFC 5952 for IPv6, lower case and IDNA ASCII for names.

    No brackets, no final dot. What is neither name nor address comes back as it is.

    Raises:
        ConfigError: a name that IDNA cannot express.
    """
    text = host.strip().strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConfigError(f"host name {host!r} cannot be written in ASCII (IDNA): {error}") from error


def canonical_id(host: str, port: int) -> str:
    """The name under which a broker is hashed: canonical host (IPv6 in brackets), colon, port in decimal."""
    text = canonical_host(host)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def score(broker_id: str, dest_pub_hex: str, weight: float = 1.0) -> float:
    """The score of one broker for one destination; lower ranks earlier.

    Args:
        broker_id: see `canonical_id`.
        dest_pub_hex: 66 hex digits; case does not matter.
        weight: above 0. A broker of twice the weight is first for twice as many keys.

    Raises:
        ConfigError: the weight is not a finite number above 0.
    """
    if not (weight > 0 and math.isfinite(weight)):
        raise ConfigError(f"broker {broker_id}: weight {weight!r} is not a number above 0")
    digest = hashlib.sha256((broker_id + dest_pub_hex.lower()).encode()).digest()
    uniform = ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / (1 << 52)
    return -math.log(uniform) / weight


def rank(brokers: Iterable[R], dest: bytes) -> list[R]:
    """All brokers in the order in which they serve `dest` (33-byte key), each once."""
    key = dest.hex()
    scored = sorted(
        ((score(b.broker_id, key, b.weight), b.broker_id, b) for b in brokers), key=lambda s: s[:2]
    )
    v4 = [b for _, _, b in scored if IP4 in b.families]
    v6 = [b for _, _, b in scored if IP6 in b.families]
    order = {b.broker_id: b for pair in zip_longest(v4, v6) for b in pair if b is not None}
    return list(order.values())


def rendezvous_set(ranking: Sequence[R], usable: Callable[[R], bool], k: int = K) -> list[R]:
    """The first `k` usable brokers of a ranking; the last gives way to a dual-stack one if none is there.

    Args:
        ranking: from `rank`.
        usable: whether a broker is alive as far as one knows.
        k: how many, at least 1.
    """
    alive = [b for b in ranking if usable(b)]
    chosen = alive[:k]
    if not any(len(b.families) > 1 for b in chosen):
        dual = next((b for b in alive[k:] if len(b.families) > 1), None)
        if dual is not None:
            chosen[-1] = dual
    return chosen


def inbox_topic(public_key: bytes) -> str:
    """The MQTT topic at which the owner of a key listens: a hash, so that the topic does not name the key.

    ``wg/`` and the first 16 bytes of SHA-256("warpgate/1 inbox" || key) in hex: 35 characters.
    """
    return "wg/" + hashlib.sha256(TOPIC_LABEL + public_key).hexdigest()[:32]
