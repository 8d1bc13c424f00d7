"""The nftables rules that make a router behave like a given kind of NAT.

Traps, each found under test:

- Without a chain at the prerouting NAT hook replies are not translated back: it stands even if empty.
- An unsolicited packet that reaches the router's own input leaves a connection entry, which takes the
  mapping's place, and the next outgoing packet gets another port. Dropped in input, it leaves none.
- Linux picks the same port for every destination as long as the whole 5-tuple is free, so plain
  ``masquerade`` is endpoint-independent; with ``fully-random`` every new 5-tuple draws anew.
- The same freedom gives two machines one outer port towards two destinations, which no cone can have:
  where outsiders may send in, ports in use are remembered and a second machine gets another.
- ``ct status != dnat`` compares all status bits, so it is true of translated packets too.
- ``numgen`` as a port skips the byte order and steps by 256; it must go through a map of ports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from warpgate_core.nat import Filtering

__all__ = [
    "CHUNK",
    "SEQUENCE",
    "Rules",
    "Site",
    "chunk_of",
    "chunked",
    "cone",
    "guard",
    "masquerade",
    "none",
    "sequential",
]

SEQUENCE = range(20000, 22048)  # what a sequential NAT hands out, in this order
CHUNK = 1024  # ports a port-chunked NAT gives to one subscriber
FIRST_CHUNK = 8192  # ports below are left to others, as RFC 7422 section 2 suggests
TCP_LIFETIME = 7440  # seconds; RFC 5382 REQ-5: at least 2 hours 4 minutes
ENTRIES = 65536  # of each map: as many as there are ports


@dataclass(frozen=True, slots=True)
class Site:
    """The router that rules are written for.

    Args:
        lan: device towards the machines inside; may end in ``*``.
        wan: device towards the network above.
        lan4: the inner IPv4 network, as text with its length.
        wan4: the outer IPv4 address.
        firewall6: whether unsolicited IPv6 is kept out, as home routers do.
        hairpin: whether a machine inside reaches another by its outer endpoint (RFC 4787 section 6);
            for endpoint-independent NATs only. Filtering is not applied to it.
        syn_reset: whether an unsolicited SYN is answered with RST (against RFC 5382 REQ-4).
        lifetime: seconds an idle UDP mapping lives.
        blocked: nftables conditions of what is not let out.
    """

    lan: str
    wan: str
    lan4: str
    wan4: str
    firewall6: bool = True
    hairpin: bool = False
    syn_reset: bool = False
    lifetime: int = 300
    blocked: tuple[str, ...] = ()


Rules = Callable[[Site], str]


def none(site: Site) -> str:
    """No translation."""
    return ""


def masquerade(how: str = "") -> Rules:
    """Translation by connection tracking alone; `how` is empty or an option of ``masquerade``."""

    def rules(site: Site) -> str:
        if how:
            _refuse_hairpin(site)
        elif site.hairpin:
            return cone(Filtering.APDF)(site)
        return _nat_table(site, f'oifname "{site.wan}" ip saddr {site.lan4} masquerade {how}')

    return rules


def sequential(site: Site) -> str:
    """A new port for each new connection, one higher than the last."""
    _refuse_hairpin(site)
    ports = ", ".join(f"{number} : {port}" for number, port in enumerate(SEQUENCE))
    pick = f"numgen inc mod {len(SEQUENCE)} map {{ {ports} }}"
    out = f'oifname "{site.wan}" ip saddr {site.lan4}'
    return _nat_table(
        site,
        f"{out} meta l4proto {{ tcp, udp }} snat ip to {site.wan4} : {pick}",
        f"{out} masquerade",
    )


def chunk_of(wan4: str) -> range:
    """The block of ports that the subscriber with this address has."""
    first = FIRST_CHUNK + CHUNK * (int(ipaddress.IPv4Address(wan4)) % 50)
    return range(first, first + CHUNK)


def chunked(site: Site) -> str:
    """A random port of the subscriber's own block for each new connection."""
    _refuse_hairpin(site)
    chunk = chunk_of(site.wan4)
    ports = f"{chunk[0]}-{chunk[-1]}"
    out = f'oifname "{site.wan}" ip saddr {site.lan4}'
    return _nat_table(
        site,
        f"{out} meta l4proto {{ tcp, udp }} masquerade to :{ports} fully-random",
        f"{out} masquerade",
    )


def cone(filtering: Filtering, preserve: bool = True) -> Rules:
    """Endpoint-independent mapping by maps that are written after translation and read before the next.

    Args:
        filtering: who may send in. EIF and ADF need the maps; APDF leaves it to connection tracking.
        preserve: whether the outer port is the inner one when free; else it is random.
    """

    def rules(site: Site) -> str:
        tables, before, after, record = "", [], [], []
        for proto, lifetime in (("udp", site.lifetime), ("tcp", TCP_LIFETIME)):
            tables += _maps(proto, lifetime)
            before += _inbound(site, proto, filtering)
            after += _outbound(site, proto, preserve)
            record += _recording(site, proto)
        after.append(f'oifname "{site.wan}" ip saddr {site.lan4} masquerade')
        return f"""
table ip nat {{
{tables}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {_lines(before)}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {_lines(after)}
  }}
  chain record {{
    type filter hook postrouting priority srcnat + 10; policy accept;
    {_lines(record)}
  }}
}}
"""

    return rules


def guard(site: Site, translates: bool) -> str:
    """Keep unsolicited packets off the router itself and out of the home, and blocked ones in.

    Args:
        site: the router.
        translates: whether there is IPv4 translation; without it, unsolicited IPv4 goes in.
    """
    into = [f'iifname "{site.wan}" ct state established,related accept']
    into += [f'iifname "{site.wan}" meta l4proto {{ icmp, icmpv6 }} accept']
    if site.syn_reset:
        into += [f'iifname "{site.wan}" meta l4proto tcp reject with tcp reset']
    into += [f'iifname "{site.wan}" drop']
    through = [f'iifname "{site.lan}" {what} drop' for what in site.blocked]
    if translates:
        through.append(f'iifname "{site.wan}" meta nfproto ipv4 ct status dnat accept')
        through.append(f'iifname "{site.wan}" meta nfproto ipv4 ct state new drop')
    if site.firewall6:
        through.append(f'iifname "{site.wan}" meta nfproto ipv6 ct state established,related accept')
        through.append(f'iifname "{site.wan}" meta nfproto ipv6 drop')
    return f"""
table inet guard {{
  chain input {{
    type filter hook input priority filter; policy accept;
    {_lines(into)}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {_lines(through)}
  }}
}}
"""


def _refuse_hairpin(site: Site) -> None:
    if site.hairpin:
        raise ValueError("a symmetric NAT has no endpoint that others inside could use: no hairpin")


def _nat_table(site: Site, *postrouting: str) -> str:
    return f"""
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {_lines(postrouting)}
  }}
}}
"""


def _maps(proto: str, lifetime: int) -> str:
    """Outer port to inner endpoint, inner endpoint to outer port, ports in use, and who was spoken to."""
    life = f"flags dynamic,timeout; timeout {lifetime}s; size {ENTRIES};"
    return f"""
  map {proto}_in {{ type inet_service : ipv4_addr . inet_service; {life} }}
  map {proto}_out {{ type ipv4_addr . inet_service : inet_service; {life} }}
  set {proto}_used {{ type inet_service; {life} }}
  set {proto}_peers {{ type inet_service . ipv4_addr; {life} }}
"""


def _inbound(site: Site, proto: str, filtering: Filtering) -> list[str]:
    translate = f"dnat ip to {proto} dport map @{proto}_in"
    rules = []
    if filtering is Filtering.EIF:
        rules.append(f'iifname "{site.wan}" ip daddr {site.wan4} {translate}')
    if filtering is Filtering.ADF:
        known = f"{proto} dport . ip saddr @{proto}_peers"
        rules.append(f'iifname "{site.wan}" ip daddr {site.wan4} {known} {translate}')
    if site.hairpin:
        rules.append(f'iifname "{site.lan}" ip daddr {site.wan4} {translate}')
    return rules


def _outbound(site: Site, proto: str, preserve: bool) -> list[str]:
    leaving = [f'oifname "{site.wan}" ip saddr {site.lan4}']
    if site.hairpin:
        leaving.append(f'oifname "{site.lan}" ip saddr {site.lan4} ct status dnat')
    rules = []
    for packet in leaving:
        packet += f" meta l4proto {proto}"
        to = f"snat ip to {site.wan4}"
        rules.append(f"{packet} {to} : ip saddr . {proto} sport map @{proto}_out")
        if preserve:
            rules.append(f"{packet} {proto} sport @{proto}_used {to} fully-random")
            rules.append(f"{packet} {to}")
        else:
            rules.append(f"{packet} {to} fully-random")
    return rules


def _recording(site: Site, proto: str) -> list[str]:
    """Every packet on its way out renews its mapping (RFC 4787 REQ-6)."""
    inner = "ct original ip saddr . ct original proto-src"
    updates = " ".join(
        (
            f"update @{proto}_in {{ {proto} sport : {inner} }}",
            f"update @{proto}_out {{ {inner} : {proto} sport }}",
            f"update @{proto}_used {{ {proto} sport }}",
            f"update @{proto}_peers {{ {proto} sport . ip daddr }}",
        )
    )
    devices = [site.wan, site.lan] if site.hairpin else [site.wan]
    translated = f"ip saddr {site.wan4} ct direction original ct status snat"
    return [f'oifname "{device}" {translated} meta l4proto {proto} {updates}' for device in devices]


def _lines(rules: list[str] | tuple[str, ...]) -> str:
    return "\n    ".join(rules)
