"""What a checkup means for connecting, in plain words: pure, so that its rules can be tabulated."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from warpgate_core.cli.checkup import Checkup, Face
from warpgate_core.cli.text import joined
from warpgate_core.endpoint import IP4, IP6
from warpgate_core.nat import Filtering, Mapping
from warpgate_core.registry import PluginState
from warpgate_core.signal.skew import SKEW_NOTICE

__all__ = ["Advice", "Level", "verdict"]

SLOW_BROKER = 1.0  # s; a connection needs two to four round trips through it


class Level(enum.StrEnum):
    """How bad it is."""

    GOOD = "good"
    HINT = "hint"  # it could be better
    BAD = "bad"  # something that is needed does not work


@dataclass(frozen=True, slots=True)
class Advice:
    """One sentence or two."""

    level: Level
    text: str


def verdict(found: Checkup) -> list[Advice]:
    """What to tell a person, the worst first."""
    said = [*_network(found), *_outside(found), *_brokers(found), *_relay(found), *_rest(found)]
    order = list(Level)
    return sorted(said, key=lambda advice: -order.index(advice.level))


def _good(text: str) -> Advice:
    return Advice(Level.GOOD, text)


def _hint(text: str) -> Advice:
    return Advice(Level.HINT, text)


def _bad(text: str) -> Advice:
    return Advice(Level.BAD, text)


def _network(found: Checkup) -> Iterator[Advice]:
    if found.network_error:
        yield _bad(f"A node cannot start here: {found.network_error}.")
        return
    if all(face.internal.ip.is_loopback for face in found.faces):
        yield _hint("Only the loopback is in use: nodes on this machine can connect, nobody else can.")
        return
    families = {face.family for face in found.faces}
    if families == {IP4}:
        yield _hint("There is no IPv6 here. Where both ends have it, it often needs no trick at all.")
    elif families == {IP6}:
        yield _hint("There is no IPv4 here: peers that have nothing else can be reached by a relay only.")
    else:
        yield _good("IPv4 and IPv6 are both in use.")


def _outside(found: Checkup) -> Iterator[Advice]:
    """One piece of advice per family, for its best address."""
    faces = [face for face in found.faces if not face.internal.ip.is_loopback]
    if not faces:
        return
    if not found.stun:
        yield _hint(
            "How this node looks from outside is unknown, because no STUN server is configured "
            "(--stun or WARPGATE_STUN). Peers outside this network can connect only if this node can dial "
            "them."
        )
        return
    if all(row.error for row in found.stun):
        yield _bad(
            "No STUN server answers. Either they are all down, or UDP does not pass to the outside; "
            "then only TCP to open peers works, and a relay over TCP (TURN)."
        )
        return
    for family in (IP4, IP6):
        known = [face for face in faces if face.family is family and face.external is not None]
        if known:
            yield _of_nat(min(known, key=lambda face: face.nat.mapping), found)
    for face in faces:
        yield from (_hint(f"{face.name} {face.internal.host}: {note}.") for note in face.notes)


def _of_nat(face: Face, found: Checkup) -> Advice:
    nat, name = face.nat, f"IPv{int(face.family)}"
    if face.mapped:
        kinds = joined(f"{kind} {endpoint}" for kind, endpoint in face.mapped)
        return _good(f"{name}: the router forwards to this node ({kinds}), so peers can connect directly.")
    if nat.mapping is Mapping.NONE:
        if nat.filtering is Filtering.EIF:
            return _good(f"{name}: no NAT and no firewall in the way; anybody can connect directly.")
        return _hint(
            f"{name}: no NAT, but a firewall lets in only what this node has asked for. Peers that are open "
            f"can be dialled; both behind such firewalls need hole punching{_punch(found)}."
        )
    if nat.mapping is Mapping.EIM:
        if nat.filtering is Filtering.EIF:
            return _good(f"{name}: a full-cone NAT; peers reach this node at {face.external} over UDP.")
        return _hint(
            f"{name}: a {nat.label} NAT. Open peers can be dialled and can be asked to dial; with most "
            f"others hole punching works{_punch(found)}{_mapping(found)}."
        )
    if nat.mapping in (Mapping.ADM, Mapping.APDM):
        return _hint(
            f"{name}: a {nat.label} NAT, the most difficult kind: each peer sees another port. Open peers "
            f"can be dialled; peers behind cone NATs need port probing{_probe(found)}, others a relay"
            f"{_mapping(found)}."
        )
    return _hint(f"{name}: seen from outside as {face.external}; what the NAT does is not known yet.")


def _punch(found: Checkup) -> str:
    return "" if found.has_strategy("punch-udp", "punch-tcp") else " (pip install warpgate-punch)"


def _probe(found: Checkup) -> str:
    return "" if found.has_strategy("probe") else " (pip install warpgate-probe)"


def _mapping(found: Checkup) -> str:
    if found.mappers:
        return ". The router gave no port mapping; perhaps UPnP, NAT-PMP and PCP are switched off there"
    return ". Many routers forward a port if they are asked (pip install warpgate-upnp)"


def _brokers(found: Checkup) -> Iterator[Advice]:
    if not found.brokers:
        yield _hint(
            "No broker is configured (--broker or WARPGATE_BROKERS), so a peer can only be connected to if "
            "one of the endpoints in its address can be reached directly. With a broker both ends can agree."
        )
        return
    up = [row for row in found.brokers if row.is_up]
    if not up:
        yield _bad(
            "None of the configured brokers answers, so nobody can call this node through them. Endpoints "
            "that can be reached directly still can."
        )
    elif len(up) < len(found.brokers):
        yield _hint(
            f"{len(up)} of {len(found.brokers)} brokers answer. One is enough; the others cost nothing."
        )
    else:
        yield _good("All brokers answer." if len(up) > 1 else "The broker answers.")
    if up and min(row.latency or 0.0 for row in up) > SLOW_BROKER:
        yield _hint("The brokers are slow to answer; connections will take several seconds to agree on.")


def _relay(found: Checkup) -> Iterator[Advice]:
    has_turn = found.has_strategy("turn")
    if found.turn and not has_turn:
        yield _hint("A TURN server is configured, but nothing here uses it: pip install warpgate-turn.")
    elif found.turn:
        yield _good("A relay (TURN) is configured for when nothing direct works.")
    elif any(face.nat.mapping in (Mapping.ADM, Mapping.APDM) for face in found.faces):
        what = "a TURN server (--turn)" if has_turn else "warpgate-turn and a TURN server (--turn)"
        yield _hint(f"Behind this NAT some peers can be reached by a relay only; that needs {what}.")


def _rest(found: Checkup) -> Iterator[Advice]:
    if found.skew is not None and abs(found.skew) >= SKEW_NOTICE:
        way = "ahead" if found.skew > 0 else "behind"
        yield _hint(
            f"The clock is {abs(found.skew):.0f} s {way}. Peers refuse messages that are two minutes off; "
            "set the clock, or give a time server (--ntp)."
        )
    for record in found.plugins:
        if record.state not in (PluginState.LOADED, PluginState.DISABLED):
            yield _hint(f"The plugin {record.name!r} of {record.source} is not used: {record.error}.")
