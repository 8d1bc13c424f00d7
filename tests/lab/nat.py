"""The NATs of the lab: what each is in the words of RFC 4787, and the nftables rules that make it so.

Every entry is measured by `tests.lab.proof` before anything relies on it (`test_lab_nat.py` goes through
the whole enum), so a further kind is one `Behaviour` and one function that returns rules.

Traps, each found under test:
- Without a chain at the prerouting NAT hook replies are not translated back: it stands even if empty.
- An unsolicited packet that reaches the router's own input leaves a connection entry, which takes the
  mapping's place, and the next outgoing packet gets another port. Dropped in input, it leaves none.
- Linux picks the same port for every destination as long as the whole 5-tuple is free, so plain
  ``masquerade`` is endpoint-independent; with ``fully-random`` every new 5-tuple draws anew.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from warpgate_core.nat import Allocation, Filtering, Mapping

__all__ = ["Behaviour", "Nat", "Site", "ruleset"]


@dataclass(frozen=True, slots=True)
class Site:
    """The router that rules are written for.

    Args:
        lan: device towards the machines inside.
        wan: device towards the network above.
        lan4: the inner IPv4 network, as text with its length.
        wan4: the outer IPv4 address.
        firewall6: whether unsolicited IPv6 is kept out, as home routers do.
    """

    lan: str
    wan: str
    lan4: str
    wan4: str
    firewall6: bool


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a NAT kind does to UDP and TCP over IPv4.

    Args:
        mapping: RFC 4787 section 4.1.
        filtering: RFC 4787 section 5.
        allocation: of external ports.
        rules: the ``table ip nat`` that does it.
        inner_is_public: no translation at all; the machines inside have public addresses.
    """

    mapping: Mapping
    filtering: Filtering
    allocation: Allocation
    rules: Callable[[Site], str]
    inner_is_public: bool = False


def _none(site: Site) -> str:
    return ""


def _masquerade(options: str) -> Callable[[Site], str]:
    def rules(site: Site) -> str:
        return f"""
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{site.wan}" ip saddr {site.lan4} masquerade {options}
  }}
}}
"""

    return rules


class Nat(enum.Enum):
    """The kinds of NAT a home can have. The name is what people type, in lower case with dashes."""

    OPEN = Behaviour(Mapping.NONE, Filtering.EIF, Allocation.PRESERVED, _none, inner_is_public=True)
    PORT_RESTRICTED = Behaviour(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED, _masquerade(""))
    SYMMETRIC_RANDOM = Behaviour(Mapping.APDM, Filtering.APDF, Allocation.RANDOM, _masquerade("fully-random"))

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
    return nat.behaviour.rules(site) + _guard(nat, site)


def _guard(nat: Nat, site: Site) -> str:
    """Keep unsolicited packets off the router itself, and out of the home where that is its habit."""
    forward = []
    if not nat.behaviour.inner_is_public:
        forward.append(f'iifname "{site.wan}" meta nfproto ipv4 ct state new ct status != dnat drop')
    if site.firewall6:
        forward += [
            f'iifname "{site.wan}" meta nfproto ipv6 ct state established,related accept',
            f'iifname "{site.wan}" meta nfproto ipv6 drop',
        ]
    lines = "\n    ".join(forward)
    return f"""
table inet guard {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{site.wan}" ct state established,related accept
    iifname "{site.wan}" meta l4proto {{ icmp, icmpv6 }} accept
    iifname "{site.wan}" drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {lines}
  }}
}}
"""
