"""Who allocates, for whom a permission is made, and what is checked from where. Pure.

One relay is enough for both ends: the other end sends to it from its own UDP socket, whatever NAT that
socket is behind, because the relay answers to where the packets come from. The responder allocates:
its card then travels with or behind the answer, and the initiator's checks find it after one trip over the
relay and back (2S + 2R in all, R = 2r). A relay at the initiator has to be told to the responder first, and
then needs one more crossing, since only the initiator's nonce makes a proof complete for the initiator.

The initiator allocates at once only if no packet of its own is likely to reach a relay over UDP, or nobody
knows from where it would come: it has no mapped endpoint. Else it stands by, and allocates when the
responder has no relay to offer, or needs too long for one.

Rejected: allocating at both ends always, as ICE agents do (twice the load on the servers for paths that
are no better), and deciding by public key who allocates (the end that hears later would then lose S).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from warpgate_core import IP4, IP6, DatagramSocket, Endpoint, Family, NodeAddress, Role
from warpgate_turn.card import Card, State

__all__ = [
    "MAX_GRANTS",
    "allocates_at_once",
    "grants",
    "is_mapped",
    "needs_own_relay",
    "pairs",
    "wanted_family",
]

MAX_GRANTS = 16  # permissions per relay: an address names at most 16 interfaces, most share one host
MAX_SOCKETS = 4  # own sockets per remote relay: cards of one machine that may each be the way out


def is_mapped(local: NodeAddress) -> bool:
    """Whether UDP of this node is known to get out: STUN has shown a mapped endpoint."""
    return any(face.external is not None for face in local.interfaces)


def allocates_at_once(role: Role, *, has_servers: bool, mapped: bool, peer: Card | None) -> bool:
    """Whether this end makes a relay as soon as it can.

    Args:
        role: of this end.
        has_servers: whether it has any to ask.
        mapped: see `is_mapped`.
        peer: as responder, the initiator's card; None as initiator, or if it follows later.
    """
    if not has_servers:
        return False
    if not mapped:
        return True
    if role is Role.INITIATOR:
        return False
    return peer is None or peer.state in (State.NONE, State.STANDBY)


def needs_own_relay(peer: Card, *, has_servers: bool) -> bool:
    """Whether an end that stood by has to make a relay, now that it knows the peer's card."""
    return has_servers and peer.state is State.NONE


def wanted_family(peer: NodeAddress) -> Family:
    """Which relayed address to ask for: IPv4 (RFC 8656 section 7.1), unless the peer has IPv6 only."""
    families = {face.internal.family for face in peer.interfaces}
    return IP6 if families == {IP6} else IP4


def grants(family: Family, peer: NodeAddress, card: Card | None) -> tuple[str, ...]:
    """For which IP addresses a relay of this family needs a permission.

    Permissions are by address, without a port (RFC 8656 section 9), so that the published mapped endpoint
    serves for symmetric NATs too: the port differs, the address does not. The peer's own relays count as
    well: it sends from there when its sockets cannot. Its internal addresses come last; they matter when
    there is no NAT, or when the server stands in the same private network.

    Args:
        family: of the relayed address.
        peer: its address.
        card: its card, as far as known.
    """
    wanted: list[Endpoint] = []
    if card is not None:
        wanted += [*card.relays, *card.mapped]
    wanted += [face.external for face in peer.interfaces if face.external is not None]
    wanted += [face.internal for face in peer.interfaces]
    hosts = dict.fromkeys(end.host for end in wanted if end.family is family and _is_a_machine(end.host))
    return tuple(hosts)[:MAX_GRANTS]


def pairs(
    own: Iterable[DatagramSocket], relay: DatagramSocket | None, card: Card, *, doubts_udp: bool
) -> list[tuple[DatagramSocket, Endpoint]]:
    """What to check: from which socket to which of the peer's relays.

    From one's own sockets in any case; from one's own relay if they may get nowhere.

    Args:
        own: the node's UDP sockets.
        relay: this end's own relay, if there is one.
        card: the peer's.
        doubts_udp: own sockets may reach no relay: nothing is mapped, or a check was in vain.
    """
    found: list[tuple[DatagramSocket, Endpoint]] = []
    for remote in card.relays:
        near = [sock for sock in own if sock.local.family is remote.family][:MAX_SOCKETS]
        found += [(sock, remote) for sock in near]
        if relay is not None and relay.local.family is remote.family and (doubts_udp or not near):
            found.append((relay, remote))
    return found


def _is_a_machine(host: str) -> bool:
    """Whether a server may be asked to let packets from there through: not multicast, not link-local."""
    ip = ipaddress.ip_address(host)
    return not (ip.is_multicast or ip.is_unspecified or ip.is_link_local or "%" in host)
