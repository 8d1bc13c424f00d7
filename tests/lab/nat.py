"""The NATs of the lab: what each is, in the words of RFC 4787, and which rules make it so.

Every entry is measured by `tests.lab.proof` before anything relies on it (`test_lab_nat.py` goes through
the whole enum), so a further kind is one `Behaviour` here and, if need be, one function in `nat_rules`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tests.lab.nat_rules import Rules, Site, chunked, cone, guard, masquerade, none, sequential
from warpgate_core.nat import Allocation, Filtering, Mapping

__all__ = ["Behaviour", "Nat", "ruleset"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a kind of NAT does to UDP and TCP over IPv4, end to end.

    Args:
        mapping: RFC 4787 section 4.1.
        filtering: RFC 4787 section 5.
        allocation: of external ports.
        rules: the ``table ip nat`` of the home's router.
        carrier: name of the `Nat` that the carrier runs between the home and the internet, or "".
        udp: whether UDP gets out at all.
        tcp_ports: the only TCP destination ports that get out; empty for all.
    """

    mapping: Mapping
    filtering: Filtering
    allocation: Allocation
    rules: Rules
    carrier: str = ""
    udp: bool = True
    tcp_ports: tuple[int, ...] = ()

    @property
    def translates(self) -> bool:
        """Whether there is a NAT at all; else the machines inside have public addresses."""
        return self.mapping is not Mapping.NONE

    @property
    def blocked(self) -> tuple[str, ...]:
        """nftables conditions of what does not get out."""
        found = [] if self.udp else ["meta l4proto udp"]
        if self.tcp_ports:
            found.append(f"tcp dport != {{ {', '.join(map(str, self.tcp_ports))} }}")
        return tuple(found)


_EIM, _APDM = Mapping.EIM, Mapping.APDM
_EIF, _ADF, _APDF = Filtering.EIF, Filtering.ADF, Filtering.APDF
_SAME, _RANDOM = Allocation.PRESERVED, Allocation.RANDOM


class Nat(enum.Enum):
    """The kinds of NAT a home can have; `slug` is what people type."""

    OPEN = Behaviour(Mapping.NONE, _EIF, _SAME, none)
    FULL_CONE = Behaviour(_EIM, _EIF, _SAME, cone(_EIF))
    ADDRESS_RESTRICTED = Behaviour(_EIM, _ADF, _SAME, cone(_ADF))
    PORT_RESTRICTED = Behaviour(_EIM, _APDF, _SAME, masquerade())
    PORT_RESTRICTED_RANDOM = Behaviour(_EIM, _APDF, _RANDOM, cone(_APDF, preserve=False))
    SYMMETRIC_RANDOM = Behaviour(_APDM, _APDF, _RANDOM, masquerade("fully-random"))
    SYMMETRIC_SEQUENTIAL = Behaviour(_APDM, _APDF, Allocation.SEQUENTIAL, sequential)
    PORT_CHUNKED = Behaviour(_APDM, _APDF, Allocation.CHUNKED, chunked)
    CARRIER_EIM = Behaviour(_EIM, _APDF, _SAME, masquerade(), carrier="PORT_RESTRICTED")
    CARRIER_SYMMETRIC = Behaviour(_APDM, _APDF, _RANDOM, masquerade(), carrier="SYMMETRIC_RANDOM")
    UDP_BLOCKED = Behaviour(_EIM, _APDF, _SAME, masquerade(), udp=False)
    ONLY_443 = Behaviour(_EIM, _APDF, _SAME, masquerade(), udp=False, tcp_ports=(443,))

    @property
    def behaviour(self) -> Behaviour:
        """What it does."""
        behaviour: Behaviour = self.value
        return behaviour

    @property
    def slug(self) -> str:
        """Name for the command line: ``port-restricted``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def named(cls, slug: str) -> Nat:
        """The kind with this `slug`.

        Raises:
            ValueError: there is none; the message lists what there is.
        """
        for nat in cls:
            if nat.slug == slug:
                return nat
        raise ValueError(f"no NAT is called {slug!r}; there are {', '.join(nat.slug for nat in cls)}")


def ruleset(nat: Nat, site: Site) -> str:
    """Everything nftables needs to make a router of this kind."""
    return nat.behaviour.rules(site) + guard(site, nat.behaviour.translates)
