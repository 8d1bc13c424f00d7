"""Which pair of NATs is worth a search, and which of the two ends does what: pure.

Both ends come to the same result, because both know both addresses as the offer and the answer hold them.

==========================  =======================  ===============================================
one end                     the other                what is done
==========================  =======================  ===============================================
port known, lets in whom    port depends on the      `ASK`: the latter sends, the former has sent to
it sent to (any port)       destination              its address before. Nothing is guessed
port known, lets in only    the same, ports counted  `FOLLOW`: the latter says where its ports are,
the port it sent to         up or those of the host  the former tries these
the same                    random, or in a block    `SEARCH`: many ports against many probes
ports counted up            ports counted up         `MATCH`: both send to where the other's will be
==========================  =======================  ===============================================

All else is hopeless: with random ports at both ends a probe must come from the right port and go to the
right port, and 256 * 1,200 pairs are nothing against 64,512 squared (p < 0.01 %).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from warpgate_core import (
    Allocation,
    Endpoint,
    Filtering,
    InterfaceAddress,
    Mapping,
    NatProfile,
    NodeAddress,
    Role,
)

__all__ = ["Method", "Pairing", "choose", "may_come"]


UNKNOWN_ENDS = (
    "no mapped endpoint is known at one end or the other: UDP is blocked there, or no STUN server answers"
)


class Method(enum.IntEnum):
    """See the module's table; the order is the order of preference."""

    ASK = 0
    FOLLOW = 1
    MATCH = 2
    SEARCH = 3


@dataclass(frozen=True, slots=True)
class Pairing:
    """What to do between which interfaces.

    Args:
        method: see `Method`.
        initiator: the initiator's interface.
        responder: the responder's.
        cone: whose port is known; with `MATCH`, nobody's: then it is the initiator.
    """

    method: Method
    initiator: InterfaceAddress
    responder: InterfaceAddress
    cone: Role

    def face(self, role: Role) -> InterfaceAddress:
        """The interface of one end."""
        return self.initiator if role is Role.INITIATOR else self.responder

    def outside(self, role: Role) -> Endpoint:
        """The mapped endpoint of one end's long-lived socket; of the cone, the one to send to."""
        external = self.face(role).external
        assert external is not None  # `choose` takes no others
        return external

    @property
    def symmetric(self) -> InterfaceAddress:
        """The end whose port depends on the destination."""
        return self.responder if self.cone is Role.INITIATOR else self.initiator


def choose(initiator: NodeAddress, responder: NodeAddress) -> Pairing | str:
    """The best pairing of the two nodes' interfaces, or one sentence why there is none."""
    found: list[Pairing] = []
    reasons: list[str] = []
    for one in initiator.interfaces:
        for other in responder.interfaces:
            result = _pair(one, other)
            if isinstance(result, Pairing):
                found.append(result)
            elif result:
                reasons.append(result)
    if found:
        return min(found, key=lambda pairing: pairing.method)  # the first of equals, at both ends
    return reasons[0] if reasons else UNKNOWN_ENDS


def may_come(initiator: NodeAddress, responder: NodeAddress) -> bool:
    """Whether a search may turn out to be of use once the peer has said what its NAT is like."""
    if isinstance(choose(initiator, responder), Pairing):
        return True
    faces = [face.nat for face in responder.interfaces if face.internal.family == 4]
    own = [face.nat for face in initiator.interfaces if face.internal.family == 4]
    return any(nat.mapping is Mapping.UNKNOWN for nat in faces) and any(
        _is_symmetric(nat) or (nat.is_predictable and nat.filtering is not Filtering.EIF) for nat in own
    )


def _pair(one: InterfaceAddress, other: InterfaceAddress) -> Pairing | str:
    if one.internal.family is not other.internal.family or one.external is None or other.external is None:
        return ""
    if one.external.host == other.external.host:
        return "both ends are behind the same NAT, where other strategies do better"
    for face in (one, other):
        if face.nat.mapping is Mapping.UNKNOWN:
            return f"what the NAT at {face.external} does is not known (yet); more STUN servers help"
    if one.nat.is_predictable and other.nat.is_predictable:
        return (
            "the mapped endpoints of both ends are known, so there is nothing to search; punch-udp joins them"
        )
    if _is_symmetric(one.nat) and _is_symmetric(other.nat):
        if one.nat.allocation is other.nat.allocation is Allocation.SEQUENTIAL:
            return Pairing(Method.MATCH, one, other, Role.INITIATOR)
        return (
            f"both NATs map per destination ({one.nat.label} and {other.nat.label}), and finding both ports "
            "at once is hopeless; a TURN server or a port mapping (UPnP) at one end helps"
        )
    cone = Role.INITIATOR if one.nat.is_predictable else Role.RESPONDER
    known, unknown = (one, other) if cone is Role.INITIATOR else (other, one)
    if known.nat.mapping is Mapping.NONE and known.nat.filtering is Filtering.EIF:
        return f"{known.external} is open to everybody, so there is nothing to search; direct joins them"
    return Pairing(_method(known.nat, unknown.nat), one, other, cone)


def _method(known: NatProfile, unknown: NatProfile) -> Method:
    if known.filtering in (Filtering.EIF, Filtering.ADF):
        return Method.ASK
    if unknown.allocation in (Allocation.SEQUENTIAL, Allocation.PRESERVED):
        return Method.FOLLOW
    return Method.SEARCH


def _is_symmetric(nat: NatProfile) -> bool:
    return nat.mapping in (Mapping.ADM, Mapping.APDM)
