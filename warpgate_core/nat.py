"""What a NAT does, in the words of RFC 4787: mapping behaviour x filtering behaviour x allocation.

"Full cone" and "symmetric" appear only as labels for people (`NatProfile.label`). These are values;
how they are learnt is in `net/`. They enter the node address, so the numbers are wire format.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Allocation", "Filtering", "Mapping", "NatProfile"]


class Mapping(enum.IntEnum):
    """How the external endpoint depends on the destination (RFC 4787 section 4.1)."""

    UNKNOWN = 0
    NONE = 1  # no NAT: the internal endpoint is the external one
    EIM = 2  # endpoint-independent
    ADM = 3  # address-dependent
    APDM = 4  # address-and-port-dependent


class Filtering(enum.IntEnum):
    """From whom an inbound packet is let through (RFC 4787 section 5)."""

    UNKNOWN = 0
    EIF = 1  # endpoint-independent: anybody
    ADF = 2  # address-dependent
    APDF = 3  # address-and-port-dependent


class Allocation(enum.IntEnum):
    """How the NAT chooses external ports (RFC 4787 section 4.2, RFC 5128 section 3.4)."""

    UNKNOWN = 0
    PRESERVED = 1
    SEQUENTIAL = 2
    RANDOM = 3
    CHUNKED = 4  # random inside a block given to this subscriber (RFC 7422)


@dataclass(frozen=True, slots=True)
class NatProfile:
    """One interface and family's NAT, as far as it is known.

    Args:
        mapping: see `Mapping`.
        filtering: see `Filtering`.
        allocation: see `Allocation`.
        step: for sequential allocation, the distance between two successive ports (may be negative);
            else 0. -128 to 127.
        chunk: for chunked allocation, (first port, number of ports); else None.
    """

    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    allocation: Allocation = Allocation.UNKNOWN
    step: int = 0
    chunk: tuple[int, int] | None = None

    @property
    def is_predictable(self) -> bool:
        """Whether the endpoint that STUN showed is the one any peer will see."""
        return self.mapping in (Mapping.NONE, Mapping.EIM)

    @property
    def label(self) -> str:
        """A name for people: "open", "full cone", "symmetric (random ports)"..."""
        if self.mapping is Mapping.UNKNOWN:
            return "unknown"
        if self.mapping is Mapping.NONE:
            return {Filtering.EIF: "open", Filtering.UNKNOWN: "no NAT"}.get(
                self.filtering, "firewall, no NAT"
            )
        if self.mapping is Mapping.EIM:
            return {
                Filtering.EIF: "full cone",
                Filtering.ADF: "address-restricted cone",
                Filtering.APDF: "port-restricted cone",
                Filtering.UNKNOWN: "cone",
            }[self.filtering]
        ports = {
            Allocation.SEQUENTIAL: f"sequential ports, step {self.step}",
            Allocation.RANDOM: "random ports",
            Allocation.CHUNKED: "random ports in a block",
            Allocation.PRESERVED: "ports preserved where free",
        }.get(self.allocation, "ports unknown")
        return f"symmetric ({ports})"
