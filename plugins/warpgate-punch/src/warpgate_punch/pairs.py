"""Which of our interfaces with which of the peer's endpoints, and in what order. Pure.

Every interface of ours with every endpoint of the peer's in its family, since nobody knows which card has
the way that works. All start at once: a hole is punched by whoever sends first. The order counts only
where there are more than `MAX_PAIRS`. Rejected: pacing as in RFC 8445 section 14 (50 ms each); two machines
of two cards and both families have eight pairs, and the last one would start 0.35 s late.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from warpgate_core import Endpoint, Family, LocalInterface, NodeAddress
from warpgate_punch.faces import Face, expected_tcp, is_likely, is_near, may_be_near, outside

__all__ = ["MAX_PAIRS", "Pair", "tcp_pairs", "tcp_pairs_to", "udp_pairs"]

MAX_PAIRS = 16  # checks of 1,200 bytes that leave in one burst: a fifth of what a home router queues
NEAR, LIKELY, UNLIKELY, LUCK = range(4)


@dataclass(frozen=True, slots=True)
class Pair:
    """One way to try.

    Args:
        local: `internal` of one of our interfaces.
        remote: endpoint of the peer's.
        kind: candidate kind of the remote endpoint, "host" or "srflx".
    """

    local: Endpoint
    remote: Endpoint
    kind: str


def udp_pairs(own: Iterable[LocalInterface], peer: NodeAddress) -> list[Pair]:
    """The pairs to check over UDP, most promising first."""
    found: dict[Pair, tuple[int, int]] = {}
    for mine in own:
        for theirs in peer.interfaces:
            if mine.family is theirs.internal.family:
                for remote, kind, rank in _udp_targets(mine, theirs):
                    _add(found, mine, remote, kind, rank)
    return _ordered(found)


def _udp_targets(mine: LocalInterface, theirs: Face) -> list[tuple[Endpoint, str, int]]:
    rank = LIKELY if is_likely(mine, theirs) else UNLIKELY
    external = outside(theirs)
    targets = []
    if is_near(mine, theirs):
        targets.append((theirs.internal, "host", NEAR))
    elif external is None or may_be_near(mine, theirs):
        targets.append((theirs.internal, "host", LUCK))
    if external is not None:
        targets.append((external, "host" if external == theirs.internal else "srflx", rank))
    return targets


def tcp_pairs(own: Iterable[LocalInterface], peer: NodeAddress) -> list[Pair]:
    """The pairs to dial over TCP with what the peer's address alone tells, most promising first."""
    found: dict[Pair, tuple[int, int]] = {}
    for mine in own:
        for theirs in peer.interfaces:
            if mine.family is not theirs.internal.family:
                continue
            if is_near(mine, theirs):
                _add(found, mine, theirs.internal, "host", NEAR)
            # The port may be wrong; the SYN opens our own NAT for that address all the same.
            remote = expected_tcp(theirs) or outside(theirs)
            if remote is not None:
                kind = "host" if remote == theirs.internal else "srflx"
                _add(found, mine, remote, kind, LIKELY if is_likely(mine, theirs) else UNLIKELY)
    return _ordered(found)


def tcp_pairs_to(own: Iterable[LocalInterface], remotes: Iterable[Endpoint], peer: NodeAddress) -> list[Pair]:
    """The pairs to dial over TCP with endpoints that the peer has told in its section."""
    inside = {face.internal for face in peer.interfaces}
    found: dict[Pair, tuple[int, int]] = {}
    for remote in remotes:
        for mine in own:
            if mine.family is remote.family:
                _add(found, mine, remote, "host" if remote in inside else "srflx", LIKELY)
    return _ordered(found)


def _add(
    found: dict[Pair, tuple[int, int]], mine: LocalInterface, remote: Endpoint, kind: str, rank: int
) -> None:
    if not remote.port or remote == mine.internal:  # two homes may use the same private address and port
        return
    pair = Pair(mine.internal, remote, kind)
    place = (rank, remote.family is Family.IP4)  # IPv6 first (RFC 8305 section 4)
    found[pair] = min(place, found.get(pair, place))


def _ordered(found: dict[Pair, tuple[int, int]]) -> list[Pair]:
    return sorted(found, key=lambda pair: found[pair])[:MAX_PAIRS]
