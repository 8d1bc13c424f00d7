"""What a NAT does, inferred from what STUN servers saw: a pure function of the observations.

Apart from the driver (`nat_discovery`), so that every case is a line in a table of tests. The rules:

* Mapping is a vote of server *addresses*. One endpoint seen by the majority of two or more addresses:
  endpoint-independent, and whoever said otherwise is named as a doubtful server. All different: it depends
  on the destination; on its port too if two ports of one address saw different endpoints. One address
  alone proves nothing and leaves the mapping unknown.
* Filtering: a packet that came through from where we never sent is proof, whoever else failed. Its absence
  counts only from a server that said it has another address and answered a plain request.
* Allocation is told from sockets used once, in the order they asked. A pattern is believed only if chance
  would make it in less than one of 1,000 cases.

Rejected: RFC 5780's decision tree with one server (a server that lies decides everything), and the
RFC 3489 classes ("symmetric" hides that ports may be guessed).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile

__all__ = ["Diagnosis", "FilterTest", "Observations", "Seen", "chance_of_window", "classify", "diagnose"]

MAX_CHANCE = 1e-3  # a pattern less likely than this is not called chance
PORTS = 64_512  # 1,024 to 65,535, what a NAT draws from (RFC 4787 section 4.2.2)
MAX_CHUNK = (
    2_048  # ports per subscriber: 64 to 2,048 is what carriers configure (RFC 6888 section 4, RFC 7422)
)
MIN_CHUNK = 64
MAX_GAP = 64  # ports taken by others between two of ours within one burst of a few milliseconds
MIN_SEQUENCE = 5  # ports; fewer are not called a sequence
PRESERVED_SHARE = 0.75  # the rest may have met ports that were taken


@dataclass(frozen=True, slots=True)
class Seen:
    """One answered binding request.

    Args:
        local: own endpoint it was sent from.
        server: where it was sent.
        mapped: own endpoint as seen there.
    """

    local: Endpoint
    server: Endpoint
    mapped: Endpoint


@dataclass(frozen=True, slots=True)
class FilterTest:
    """What came back to a fresh socket that sent to one address and port of a server only.

    Args:
        server: that one.
        answered: it answered a plain request.
        capable: it said that it has another address and port (RFC 5780).
        from_other_address: an answer came through from its other address.
        from_other_port: an answer came through from its own address and other port.
    """

    server: Endpoint
    answered: bool
    capable: bool
    from_other_address: bool = False
    from_other_port: bool = False


@dataclass(frozen=True, slots=True)
class Observations:
    """All that was observed of one interface and family.

    Args:
        main: by the long-lived socket, towards different servers.
        fresh: by sockets used once, all towards one server, in the order they were sent.
        filters: see `FilterTest`.
    """

    main: tuple[Seen, ...]
    fresh: tuple[Seen, ...] = ()
    filters: tuple[FilterTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A profile, the endpoint the majority saw, and what people should know about both.

    Args:
        profile: what enters the node address.
        external: the long-lived socket's mapped endpoint; None without any answer.
        doubtful: servers that contradict the majority, or each other where there is none.
        notes: sentences for `warpgate doctor`.
    """

    profile: NatProfile
    external: Endpoint | None = None
    doubtful: tuple[Endpoint, ...] = ()
    notes: tuple[str, ...] = ()


def classify(observations: Observations) -> NatProfile:
    """The profile alone; see `diagnose`."""
    return diagnose(observations).profile


def diagnose(observations: Observations) -> Diagnosis:
    """Infer mapping, filtering and allocation.

    Args:
        observations: in the order they were sent.
    """
    if not observations.main:
        return Diagnosis(NatProfile(), notes=("no STUN server answered, so nothing is known of the NAT",))
    vote = _vote(observations.main)
    filtering, filter_note = _filtering(observations.filters)
    believed = [seen for seen in observations.main if seen.server not in vote.doubtful]
    fresh = [seen for seen in observations.fresh if seen.server not in vote.doubtful]
    ports = _Ports(Allocation.PRESERVED)
    if vote.mapping is not Mapping.NONE:
        symmetric = vote.mapping in (Mapping.ADM, Mapping.APDM)
        ports = _allocation(believed or list(observations.main), fresh, symmetric=symmetric)
    profile = NatProfile(vote.mapping, filtering, ports.allocation, ports.step, ports.chunk)
    notes = tuple(note for note in (*vote.notes, filter_note, ports.note) if note)
    return Diagnosis(profile, vote.external, vote.doubtful, notes)


# -- mapping ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Vote:
    mapping: Mapping
    external: Endpoint
    doubtful: tuple[Endpoint, ...] = ()
    notes: tuple[str, ...] = ()


def _vote(main: Sequence[Seen]) -> _Vote:
    """Count server addresses, not servers: ten ports of one address are one witness."""
    by_host: dict[str, list[Seen]] = defaultdict(list)
    for seen in main:
        by_host[seen.server.host].append(seen)
    first = main[0].mapped
    witnesses = Counter(mapped for host in by_host.values() for mapped in {seen.mapped for seen in host})
    winner, count = witnesses.most_common(1)[0]
    hosts = len(by_host)
    unanimous = all(seen.mapped == winner for seen in main)
    if unanimous or (count >= 2 and 2 * count > hosts):
        against = tuple(seen.server for seen in main if seen.mapped != winner)
        notes = tuple(f"{server} contradicts {count} other servers; it is not believed" for server in against)
        if winner == main[0].local:
            return _Vote(Mapping.NONE, winner, against, notes)
        if hosts == 1:
            return _Vote(
                Mapping.UNKNOWN,
                winner,
                notes=("there is a NAT; one server address alone cannot tell how it maps",),
            )
        return _Vote(Mapping.EIM, winner, against, notes)
    return _no_majority(main, by_host, first)


def _no_majority(main: Sequence[Seen], by_host: dict[str, list[Seen]], first: Endpoint) -> _Vote:
    if any(seen.mapped == seen.local for seen in main):
        # A NAT cannot be there for one destination and not for the next: somebody is lying.
        servers = tuple(dict.fromkeys(seen.server for seen in main))
        return _Vote(
            Mapping.UNKNOWN, first, servers, ("the STUN servers contradict each other; add a third one",)
        )
    pairs = [{seen.mapped for seen in host} for host in by_host.values() if len({s.server for s in host}) > 1]
    if any(len(mapped) > 1 for mapped in pairs):
        return _Vote(Mapping.APDM, first)
    if pairs:
        return _Vote(Mapping.ADM, first)
    return _Vote(
        Mapping.APDM,
        first,
        notes=("no server offers a second port, so the mapping is taken to depend on ports too",),
    )


# -- filtering -------------------------------------------------------------------------------


def _filtering(tests: Iterable[FilterTest]) -> tuple[Filtering, str]:
    tests = tuple(tests)
    if any(test.from_other_address for test in tests):
        return Filtering.EIF, ""
    if any(test.from_other_port for test in tests):
        return Filtering.ADF, ""
    if any(test.answered and test.capable for test in tests):
        return Filtering.APDF, ""
    return Filtering.UNKNOWN, "no server answers from a second address (RFC 5780), so filtering is unknown"


# -- allocation ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ports:
    allocation: Allocation
    step: int = 0
    chunk: tuple[int, int] | None = None
    note: str = ""


def _allocation(main: Sequence[Seen], fresh: Sequence[Seen], *, symmetric: bool) -> _Ports:
    once = [*fresh, main[0]]
    kept = sum(seen.mapped.port == seen.local.port for seen in once)
    if kept >= PRESERVED_SHARE * len(once):
        later = [seen.mapped.port for seen in main[1:] if seen.mapped != main[0].mapped]
        if not symmetric or all(seen.mapped.port == seen.local.port for seen in main):
            return _Ports(Allocation.PRESERVED)
        # The first destination gets our own port, the others do not: only the others are of interest.
        return _pattern(later, later)
    ordered = [seen.mapped.port for seen in fresh]
    everything = dict.fromkeys([*ordered, *(seen.mapped.port for seen in main)])
    return _pattern(ordered, list(everything))


def _pattern(ordered: Sequence[int], everything: Sequence[int]) -> _Ports:
    """Sequential, chunked or random.

    Args:
        ordered: ports given out one after the other in one burst.
        everything: those, and others of the same NAT, without duplicates.
    """
    step = _step(ordered)
    if step:
        return _Ports(Allocation.SEQUENTIAL, step)
    if len(everything) < 3:
        return _Ports(Allocation.UNKNOWN, note="too few answers to tell how the NAT chooses ports")
    window = max(everything) - min(everything) + 1
    if window > MAX_CHUNK:
        return _Ports(Allocation.RANDOM)
    if chance_of_window(len(everything), MAX_CHUNK) > MAX_CHANCE:
        return _Ports(Allocation.UNKNOWN, note=f"{len(everything)} ports within {window} may be chance")
    first, size = _chunk(everything)
    note = f"{len(everything)} ports lay within {window}; the block is an estimate"
    return _Ports(Allocation.CHUNKED, chunk=(first, size), note=note)


def chance_of_window(samples: int, window: int, ports: int = PORTS) -> float:
    """Upper bound of the probability that `samples` ports drawn evenly lie within `window` by chance.

    The lowest of them may be any of n; each other one then falls into the window above it with w/N.

    Args:
        samples: how many different ports were seen.
        window: width in ports.
        ports: how many there are to draw from.
    """
    return min(1.0, samples * (window / ports) ** (samples - 1)) if samples > 1 else 1.0


def _step(ordered: Sequence[int]) -> int:
    """Distance between successive ports if they are given out in sequence, else 0.

    Other hosts may take ports in between, and one pair of our packets may have been overtaken. Six random
    ports pass in less than one of 1,000 cases even within a block of 64 (simulated), five in one of 60.
    """
    if len(ordered) < MIN_SEQUENCE:
        return 0
    moves = [(after - before + 32_768) % 65_536 - 32_768 for before, after in itertools.pairwise(ordered)]
    places = list(itertools.accumulate(_without_wrap(moves), initial=0))
    signs = [1 if after > before else -1 for before, after in itertools.pairwise(places)]
    direction = 1 if sum(signs) >= 0 else -1
    if signs.count(-direction) > 1:
        return 0
    placed = sorted(direction * place for place in places)
    gaps = [after - before for before, after in itertools.pairwise(placed)]
    if min(gaps) < 1 or max(gaps) > MAX_GAP:
        return 0
    step, often = Counter(gaps).most_common(1)[0]
    if 2 * often < len(gaps) or any(gap % step for gap in gaps):
        step = math.gcd(*gaps)
        if gaps.count(step) * 2 < len(gaps):
            return 0
    return direction * step


def _without_wrap(moves: Sequence[int]) -> list[int]:
    """The distances, where one is a jump back to the other end of the range that the NAT counts through.

    That one becomes an ordinary distance. It must go against all others, and enough of those must remain.
    """
    jumps = [place for place, move in enumerate(moves) if abs(move) > MAX_GAP]
    rest = [move for move in moves if abs(move) <= MAX_GAP]
    if len(jumps) != 1 or len(rest) < MIN_SEQUENCE - 1:
        return list(moves)
    usual, _ = Counter(rest).most_common(1)[0]
    if usual * moves[jumps[0]] >= 0 or any(move * usual <= 0 for move in rest):
        return list(moves)
    return [usual if place == jumps[0] else move for place, move in enumerate(moves)]


def _chunk(ports: Sequence[int]) -> tuple[int, int]:
    """(first port, number of ports) of the block, estimated.

    The smallest block of a power of two that lies on its own boundary, counted from 0 or from 1,024, and
    holds all of them; with n ports the true one is larger in 2^(1-n) of cases. If that is more than twice
    the unbiased estimate of the width from n even draws, range * (n + 1) / (n - 1), the block is on no
    boundary, and a window of a quarter more than the estimate is laid around them.
    """
    low, high = min(ports), max(ports)
    width = (high - low) * (len(ports) + 1) / (len(ports) - 1)
    size = MIN_CHUNK
    while size <= MAX_CHUNK and size <= 2 * max(width, MIN_CHUNK):
        for origin in (0, 1_024):
            first = origin + (low - origin) // size * size
            if first >= 1_024 and high < first + size:
                return first, size
        size *= 2
    spread = min(MAX_CHUNK, max(MIN_CHUNK, math.ceil(1.25 * width), high - low + 1))
    first = max(1_024, (low + high + 1 - spread) // 2)
    return min(first, 65_536 - spread), spread
