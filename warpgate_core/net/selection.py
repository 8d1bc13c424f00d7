"""Which of the machine's addresses a node uses: a pure function, so that its rules can be tabulated.

Without a wish: one address per card and family, of cards that are up. Not the loopback, no IPv4
link-local address (RFC 3927), no bridge without a way out while another card has one (those lead to
containers and virtual machines on this host, and would only be published in vain). IPv6 link-local
addresses if there is nothing else, then such bridges, then the loopback. A card asked for by name may
have any of these addresses; an address asked for is taken as it is.

Of several IPv6 addresses on a card the one that lasts is taken, because it is published: global before
unique-local, then stable (RFC 7217, DHCPv6, by hand), then temporary (RFC 8981), and last a stable one that
contains the card's hardware address (RFC 4291 appendix A), which nobody needs to know. Rejected: RFC 6724's
preference for temporary addresses, made for clients; they are deprecated after a day.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from warpgate_core.endpoint import Family
from warpgate_core.errors import ConfigError
from warpgate_core.net.interfaces import LocalAddress

__all__ = ["MAX_ADDRESSES", "NicWish", "choose", "read_wishes"]

MAX_ADDRESSES = 16  # eight cards with two families: 2 sockets each, and the published address stays small

_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")  # RFC 4193


@dataclass(frozen=True, slots=True)
class NicWish:
    """What `nics=` asked for: a card, or one of its addresses.

    Args:
        name: of a card, or "".
        host: a numeric address, or "".
        family: only this family of the card; None for both.
    """

    name: str = ""
    host: str = ""
    family: Family | None = None

    def __str__(self) -> str:
        return self.name or self.host


def read_wishes(nics: object) -> tuple[NicWish, ...]:
    """Read `nics=`: None, a name, an address, an object with `.name`, or several of those.

    aionetiface's `Interface` (`.name`) and `AFGroup` (`.by_af`, a card per family) are such objects;
    its name "default" stands for no wish.

    Raises:
        ConfigError: something else was given.
    """
    if nics is None:
        return ()
    if isinstance(nics, NicWish):
        return (nics,)
    if isinstance(nics, str):
        return _read_text(nics)
    by_family = getattr(nics, "by_af", None)
    if isinstance(by_family, Mapping):
        return tuple(
            replace(wish, family=Family.IP4 if int(number) == Family.IP4.socket_family else Family.IP6)
            for number, nic in by_family.items()
            for wish in read_wishes(nic)
        )
    if hasattr(nics, "name"):
        return read_wishes(_text_of(nics))
    if isinstance(nics, Iterable):
        return tuple(wish for nic in nics for wish in read_wishes(nic))
    raise ConfigError(f"nics= takes names or addresses of network cards, not {type(nics).__name__}")


def _text_of(nic: Any) -> str | None:
    name = nic.name
    if name is None or isinstance(name, str):
        return name
    raise ConfigError(f"nics= was given a {type(nic).__name__} whose name is not text but {name!r}")


def _read_text(text: str) -> tuple[NicWish, ...]:
    text = text.strip()
    if text in ("", "default"):
        return ()
    try:
        return (NicWish(host=str(ipaddress.ip_address(text.strip("[]")))),)
    except ValueError:
        return (NicWish(name=text),)


def choose(
    addresses: Sequence[LocalAddress],
    wishes: Sequence[NicWish] = (),
    families: Iterable[Family] = (Family.IP4, Family.IP6),
) -> tuple[LocalAddress, ...]:
    """The addresses to use, the preferred card first; empty if none fits.

    Args:
        addresses: all there are.
        wishes: what was asked for; empty for the rules above.
        families: use only these.
    """
    wanted = set(families)
    fit = [address for address in addresses if address.family in wanted and address.is_valid]
    chosen = _by_wish(fit, wishes) if wishes else _best_per_card(_by_rule(fit))
    order = _card_order(fit)
    chosen.sort(key=lambda address: (order[address.name], address.family))
    return tuple(chosen[:MAX_ADDRESSES])


def _by_rule(addresses: list[LocalAddress]) -> list[LocalAddress]:
    outward = {address.name for address in addresses if address.metric is not None}
    up = [address for address in addresses if address.is_up]
    real = [address for address in up if not address.is_loopback]
    inner = [address for address in real if _is_inner_bridge(address, outward)]
    outer = [address for address in real if not _is_inner_bridge(address, outward)]
    for group in (
        [address for address in outer if not address.ip.is_link_local],
        [address for address in outer if address.family is Family.IP6],
        [address for address in inner if not address.ip.is_link_local],
        [address for address in up if address.is_loopback],
    ):
        if group:
            return group
    return []


def _is_inner_bridge(address: LocalAddress, outward: set[str]) -> bool:
    return address.kind == "bridge" and bool(outward) and address.name not in outward


def _by_wish(addresses: list[LocalAddress], wishes: Sequence[NicWish]) -> list[LocalAddress]:
    chosen: dict[str, LocalAddress] = {}
    for wish in wishes:
        if wish.host:
            found = _with_host(addresses, wish.host)
        else:
            found = _best_per_card(
                [
                    address
                    for address in addresses
                    if address.name == wish.name and address.is_up and wish.family in (None, address.family)
                ]
            )
        for address in found:
            chosen.setdefault(address.host, address)
    return list(chosen.values())


def _with_host(addresses: list[LocalAddress], host: str) -> list[LocalAddress]:
    bare, _, scope = host.partition("%")
    for address in addresses:
        own, _, index = address.host.partition("%")
        if own == bare and scope in ("", index, address.name):
            return [address]
    ip = ipaddress.ip_address(bare)
    for address in addresses:  # all of 127.0.0.0/8 is ours without being listed
        if address.is_loopback and ip in ipaddress.ip_network(
            f"{address.host}/{address.prefix}", strict=False
        ):
            return [replace(address, host=str(ip))]
    return []


def _best_per_card(addresses: list[LocalAddress]) -> list[LocalAddress]:
    best: dict[tuple[str, Family], LocalAddress] = {}
    for address in addresses:
        held = best.get((address.name, address.family))
        if held is None or _rank(address) < _rank(held):
            best[address.name, address.family] = address
    return list(best.values())


def _rank(address: LocalAddress) -> tuple[bool, bool, bool, int]:
    """Lower is better; of equals the one that the system lists first stays."""
    ip = address.ip
    if ip.version == 4:
        return (address.is_deprecated, ip.is_link_local, False, int(address.is_temporary))
    names_hardware = ip.packed[11:13] == b"\xff\xfe"
    durability = 1 if address.is_temporary else 2 if names_hardware else 0
    return (address.is_deprecated, ip.is_link_local, ip in _UNIQUE_LOCAL, durability)


def _card_order(addresses: Iterable[LocalAddress]) -> dict[str, tuple[bool, bool, int, int]]:
    """Per card a sort key: with a default route first, the lowest metric first, the loopback last."""
    order: dict[str, tuple[bool, bool, int, int]] = {}
    for address in addresses:
        key = (address.is_loopback, address.metric is None, address.metric or 0, address.index)
        order[address.name] = min(order.get(address.name, key), key)
    return order
