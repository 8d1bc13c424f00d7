"""In which order ports are tried, how many sockets are worth opening, and what that gives: pure.

A NAT draws external ports from 1,024 to 65,535 (RFC 4787 section 4.2.2; connection tracking of Linux does,
measured), so a search goes through these in random order and tries none twice. A block that the NAT was
seen to use comes first, then its neighbours, in case it was estimated too small or in the wrong place.

Rejected: weighting the ports by what makers of routers are said to use. Even order is what a NAT that draws
evenly deserves, and for any other it is never worse than by the factor that a wrong weight costs.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["FIRST_PORT", "LAST_PORT", "Run", "aims", "chance", "search_order", "sockets_for", "window"]

FIRST_PORT, LAST_PORT = 1_024, 65_535
CHUNK_SHARE = 16  # of a subscriber's block, one 16th: other programs need ports too, and 16 probes find one
FEWEST = 16
FOLLOWED = 32  # sockets where ports are known but for what other machines take in between
MAX_WINDOW = 2_048  # ports; beyond that other machines have taken so many that it is no prediction
AHEAD = 4  # if nobody said how far the NAT has come, so many times as many ports as sockets are tried
SKEWS = 16  # ports that others may take at both NATs together before two ends miss each other


@dataclass(frozen=True, slots=True)
class Run:
    """Ports in a row: `first`, `first + step`...

    Args:
        first: 0 to 65,535.
        step: not 0; may be negative.
        count: 1 to 65,535.
    """

    first: int
    step: int
    count: int

    def ports(self) -> Iterator[int]:
        """Those of them that exist."""
        for number in range(self.count):
            port = self.first + number * self.step
            if not 0 < port <= LAST_PORT:
                return
            yield port


def sockets_for(chunk: tuple[int, int] | None, most: int) -> int:
    """How many sockets to open against a NAT that draws from a block, or (None) from all ports."""
    if chunk is None:
        return most
    return min(most, max(FEWEST, chunk[1] // CHUNK_SHARE))


def chance(sockets: int, probes: int, ports: int = LAST_PORT - FIRST_PORT + 1) -> float:
    """Probability that `probes` different ports hit one of `sockets` among `ports`: 1 - exp(-s * p / n).

    The exact product differs by less than 1 % as long as few of the ports are tried.
    """
    return 1.0 if probes >= ports else 1.0 - math.exp(-sockets * probes / ports)


def search_order(
    rng: random.Random, count: int, chunk: tuple[int, int] | None = None, runs: Iterable[Run] = ()
) -> list[int]:
    """The ports to try, none twice.

    Args:
        rng: order must not be foreseen by who wants to be in the way.
        count: how many at most.
        chunk: (first, size) of the block that the NAT is believed to use.
        runs: where the ports are believed to be: in turn, each from its beginning.
    """
    told = [port for row in itertools.zip_longest(*(run.ports() for run in runs)) for port in row if port]
    rings: list[range] = []
    if chunk is not None:
        first, size = chunk
        rings = [
            range(first, first + size),
            range(first - size, first),
            range(first + size, first + 2 * size),
        ]
    order = dict.fromkeys(told)
    for ring in rings:
        ports = [port for port in ring if FIRST_PORT <= port <= LAST_PORT]
        order |= dict.fromkeys(rng.sample(ports, len(ports)))
    if len(order) < count:
        everything = range(FIRST_PORT, LAST_PORT + 1)
        order |= dict.fromkeys(rng.sample(everything, min(len(everything), count + len(order))))
    return list(order)[:count]


def window(before: int, after: int | None, step: int, opened: int) -> list[Run]:
    """Where the ports are of sockets that were opened between two questions to a STUN server.

    Args:
        before: external port that the first question got.
        after: that of the last one; None if nobody answered.
        step: distance of two successive ports.
        opened: how many sockets.
    """
    sign = 1 if step > 0 else -1
    if after is None:
        return [Run(before + step, step, AHEAD * opened)]
    distance = (after - before) * sign
    if not 0 < distance <= MAX_WINDOW * abs(step):  # the NAT has begun anew in between
        return [Run(before + step, step, 2 * opened), Run(after - step, -step, 2 * opened)]
    stride = abs(step) if distance % step == 0 else 1
    return [Run(before + sign * stride, sign * stride, max(1, distance // stride - 1))]


def aims(base: int, step: int, count: int, *, skewed: bool) -> list[int]:
    """Where each of `count` sockets sends, if both NATs count ports up.

    The k-th socket gets port ``base + (k + u) * step`` at its own NAT, where u ports were taken by others.
    Both ends send in the same way, so k and l meet if each aims at the other. One end aims straight, k at
    k; the other l at l + l mod `SKEWS`. Whatever u + v is (less than `SKEWS`), every `SKEWS`-th socket
    meets one.

    Args:
        base: the peer's last known external port.
        step: of the peer's NAT.
        count: sockets.
        skewed: whether this is the other end.
    """
    places = ((number + number % SKEWS if skewed else number) for number in range(1, count + 1))
    return [(base + place * step) % 65_536 for place in places]
