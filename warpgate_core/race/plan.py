"""Who starts when, and how long a relay is held back: a pure function of what both ends know.

The NAT class orders attempts and never forbids one: profiles are measured, and measurements are sometimes
wrong. Endpoint order is Happy Eyeballs (RFC 8305): IPv6 first, families interleaved, 250 ms between
attempts, 30 ms on a LAN, and a failure starts the next at once (the strategies see to that).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.nat import Filtering, Mapping
from warpgate_core.net.edge import LocalInterface
from warpgate_core.race.agreement import Hold
from warpgate_core.strategy import Role, Strategy, Tier

__all__ = ["Plan", "Target", "order_targets", "plan_race", "udp_is_likely"]

_LOG = logging.getLogger("warpgate.race")

ATTEMPT_DELAY = 0.250  # RFC 8305 section 5
LAN_DELAY = 0.030  # a LAN answers within a few ms; ten times a slow one
RELAY_AGAIN = 1.0  # s; a NAT seldom changes between two calls to the same peer
MAX_TARGETS = 24  # per session; 16 interfaces in an address with two endpoints each, less duplicates
# RFC 1918, 3927, 6598, 4193, 4291. Not `is_private`, which counts documentation addresses too.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The race's timetable.

    Args:
        starts: per strategy, seconds after the race begins. All absent ones do not take part.
        runners: per strategy, the transports it may plausibly bring, and its tier.
        hold: how long worse paths wait.
    """

    starts: dict[str, float]
    runners: dict[str, tuple[frozenset[str], Tier]]
    hold: Hold


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint worth trying.

    Args:
        remote: where to.
        local: address of the interface to go from; None: as the system likes.
        kind: candidate kind of the remote endpoint: host or srflx.
        delay: seconds to the attempt before it in the list, while that has not failed.
        tcp: worth a TCP connection.
        likely: both addresses say that a connection will come about; else it is an attempt at luck, for
            which no path that works is held back.
    """

    remote: Endpoint
    local: Endpoint | None
    kind: str
    delay: float
    tcp: bool
    likely: bool = True


def plan_race(
    strategies: Iterable[type[Strategy]],
    role: Role,
    local: NodeAddress,
    peer: NodeAddress,
    transports: frozenset[str],
    *,
    patience: float,
    last_winner: str | None = None,
) -> Plan:
    """Make the timetable.

    Args:
        strategies: those that may take part, at this end.
        role: of this node.
        local: this node's address, with what is known of its NAT.
        peer: the peer's address.
        transports: what the caller accepts.
        patience: seconds for which a relay is held back at most.
        last_winner: strategy that won against this peer before, if any: when that was a relay, holding
            a relay back for the full patience again buys nothing.
    """
    starts: dict[str, float] = {}
    runners: dict[str, tuple[frozenset[str], Tier]] = {}
    relay_won = False
    for strategy in strategies:
        spec = strategy.spec
        if spec.transports & transports:
            starts[spec.name] = 0.0
            runners[spec.name] = (_plausible(strategy, role, local, peer) & transports, spec.tier)
            relay_won |= spec.name == last_winner and spec.tier is Tier.RELAY
    return Plan(starts, runners, Hold(min(patience, RELAY_AGAIN) if relay_won else patience))


def _plausible(strategy: type[Strategy], role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
    """What the strategy says of itself; all that it can, if a plugin's own answer is none."""
    try:
        return frozenset(strategy.plausible(role, local, peer)) & strategy.spec.transports
    except Exception:  # noqa: BLE001 - one broken plugin must not end the others' race
        _LOG.exception(
            "plausible() of strategy %s failed; all its transports are assumed", strategy.spec.name
        )
        return strategy.spec.transports


def order_targets(local: Iterable[LocalInterface], peer: NodeAddress) -> list[Target]:
    """The peer's endpoints in the order to try them.

    Same LAN first (both behind the same external address, or the peer's address is on our link), then
    public ones, then private ones that can only work by luck (a routed private network, a VPN). Within a
    class IPv6 comes first and families alternate (RFC 8305 section 4). At the end the same from our other
    cards.
    """
    faces = tuple(local)
    classes: tuple[list[Target], list[Target], list[Target]] = ([], [], [])
    seen: set[Endpoint] = set()
    for theirs in peer.interfaces:
        mine = [face for face in faces if face.family is theirs.internal.family]
        if not mine:
            continue
        near = _same_link(mine, theirs.internal, theirs.external)
        source = Endpoint(near.internal.host, 0) if near and len(mine) > 1 else None
        open_tcp = theirs.tcp_external is not None or theirs.nat.mapping in (Mapping.NONE, Mapping.UNKNOWN)
        if theirs.internal not in seen:
            seen.add(theirs.internal)
            reachable = theirs.nat.mapping is Mapping.NONE or theirs.external == theirs.internal
            slot = 0 if near else 1 if reachable else 2
            likely = slot < 2 or theirs.nat.mapping is Mapping.UNKNOWN
            classes[slot].append(Target(theirs.internal, source, "host", ATTEMPT_DELAY, True, likely))
        for outside, tcp in ((theirs.external, open_tcp), (theirs.tcp_external, True)):
            if outside is not None and outside not in seen:
                seen.add(outside)
                # A NAT that lets anybody's datagrams in may do so with connections; it seldom does.
                usable = tcp or theirs.nat.filtering is Filtering.EIF
                classes[1].append(Target(outside, None, "srflx", ATTEMPT_DELAY, usable, tcp))
    ordered = [target for group in classes for target in _interleave(group)]
    ordered += [
        replace(target, local=Endpoint(face.internal.host, 0))
        for target in ordered
        if target.local is None
        for face in _other_cards(faces, target.remote.family)
    ]
    near_count = len(classes[0])
    return [
        replace(t, delay=0.0 if i == 0 else _gap(i, near_count)) for i, t in enumerate(ordered[:MAX_TARGETS])
    ]


def _other_cards(faces: tuple[LocalInterface, ...], family: Family) -> list[LocalInterface]:
    """The cards beside the one that the system would go out by: that one may be dead and not know it."""
    mine = [face for face in faces if face.family is family]
    return [face for face in mine if face.nic != mine[0].nic]


def udp_is_likely(mine: LocalInterface, theirs: InterfaceAddress) -> bool:
    """Whether checks over UDP between two interfaces meet without a port being guessed.

    Each end must know an endpoint that the other's packets will come from, or the end that does not must
    be let in from any port of the right address (RFC 4787 section 5).
    """
    if mine.family is not theirs.internal.family:
        return False
    if _same_link([mine], theirs.internal, theirs.external) is not None:
        return True
    fixed = (_is_fixed(mine), _is_fixed(theirs))
    if all(fixed) or theirs.nat.mapping is Mapping.NONE:
        return True
    known = mine if fixed[0] else theirs
    return any(fixed) and known.nat.filtering is not Filtering.APDF


def _is_fixed(face: LocalInterface | InterfaceAddress) -> bool:
    """Whether it is known where all others see this interface."""
    known = face.external is not None or not _is_private(face.internal)
    return known and face.nat.mapping in (Mapping.NONE, Mapping.EIM, Mapping.UNKNOWN)


def _is_private(endpoint: Endpoint) -> bool:
    return any(endpoint.ip in network for network in _PRIVATE if network.version == endpoint.family)


def _gap(index: int, near_count: int) -> float:
    return LAN_DELAY if index <= near_count else ATTEMPT_DELAY


def _interleave(targets: list[Target]) -> list[Target]:
    six = [t for t in targets if t.remote.family is Family.IP6]
    four = [t for t in targets if t.remote.family is Family.IP4]
    mixed: list[Target] = []
    while six or four:
        mixed += [family.pop(0) for family in (six, four) if family]
    return mixed


def _same_link(
    faces: list[LocalInterface], internal: Endpoint, external: Endpoint | None
) -> LocalInterface | None:
    """The interface of ours that shares a link with the peer's; the surest sign counts first."""
    signs: tuple[Callable[[LocalInterface], bool], ...] = (
        lambda face: face.internal.host == internal.host,  # the same machine
        lambda face: _on_link(face, internal),
        lambda face: (
            external is not None and face.external is not None and face.external.host == external.host
        ),
    )
    return next((face for sign in signs for face in faces if sign(face)), None)


def _on_link(face: LocalInterface, remote: Endpoint) -> bool:
    if not face.prefix:
        return False
    shift = (32 if face.family is Family.IP4 else 128) - face.prefix
    return int(face.internal.ip) >> shift == int(remote.ip) >> shift
