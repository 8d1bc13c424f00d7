"""The interfaces that an address tells of, in the form that the race plan takes."""

from __future__ import annotations

from warpgate_core.address import NodeAddress
from warpgate_core.net.edge import LocalInterface

__all__ = ["faces_of"]


def faces_of(address: NodeAddress) -> tuple[LocalInterface, ...]:
    """What `address` publishes, as interfaces; names and prefixes are not published and stay empty."""
    return tuple(
        LocalInterface(face.nic, "", face.internal, face.external, face.nat, face.tcp_external)
        for face in address.interfaces
    )
