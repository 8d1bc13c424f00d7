"""Which way out: a card's name, an address, or an aionetiface object, as one value.

aionetiface is not imported; its `Interface` and `AFGroup` are recognised by the two methods that both have,
``what_afs()`` and ``nic(af)``. Anything else with these two methods is accepted as well.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from warpgate_core.endpoint import IP4, IP6, Family
from warpgate_core.errors import ConfigError
from warpgate_core.net.interfaces import LocalAddress, enumerate_addresses

__all__ = ["ANY", "Binding", "parse_nic"]


@dataclass(frozen=True, slots=True)
class Binding:
    """The local addresses to connect from.

    Args:
        name: for people; "" when the system chooses.
        hosts: one numeric address per family that may be used; empty when the system chooses.
        index: number of the card to leave by, 0 if only the address matters.
    """

    name: str = ""
    hosts: tuple[tuple[Family, str], ...] = ()
    index: int = 0

    def allows(self, family: Family) -> bool:
        """Whether brokers of this family can be reached."""
        return not self.name or self.local(family) is not None

    def local(self, family: Family) -> str | None:
        """The address to bind to; None to let the system choose."""
        return dict(self.hosts).get(family)

    def __str__(self) -> str:
        return self.name or "this machine"


ANY: Final = Binding()


def parse_nic(nic: object, addresses: Callable[[], Sequence[LocalAddress]] = enumerate_addresses) -> Binding:
    """Read the `nic=` argument.

    Args:
        nic: None (the system chooses), the name of a card, a numeric address of this machine, or an
            aionetiface ``Interface`` or ``AFGroup`` that has been awaited.
        addresses: where names are looked up.

    Raises:
        ConfigError: no such card, a card without addresses, or another kind of object.
    """
    if nic is None:
        return ANY
    if isinstance(nic, Binding):
        return nic
    if isinstance(nic, str):
        return _of_address(nic) or _of_name(nic, addresses())
    if callable(getattr(nic, "what_afs", None)) and callable(getattr(nic, "nic", None)):
        return _of_aionetiface(nic)
    raise ConfigError(
        "nic= is the name of a network card, an address of this machine, or an Interface or AFGroup of "
        f"aionetiface; not {type(nic).__name__}"
    )


def _of_address(text: str) -> Binding | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return Binding(str(address), ((Family(address.version), str(address)),))


def _of_name(name: str, found: Sequence[LocalAddress]) -> Binding:
    own = [a for a in found if a.name == name]
    if not own:
        names = ", ".join(dict.fromkeys(a.name for a in found)) or "none"
        raise ConfigError(
            f"nic={name!r}: this machine has no such network card with an address; it has {names}"
        )
    hosts = []
    for family in (IP4, IP6):
        usable = [a for a in own if a.family is family and a.is_valid and not a.host.startswith("fe80")]
        if usable:
            best = min(usable, key=lambda a: (a.is_deprecated, a.is_temporary))
            hosts.append((family, best.host))
    if not hosts:
        raise ConfigError(f"nic={name!r}: this network card has no address to connect from")
    return Binding(name, tuple(hosts), own[0].index)


def _of_aionetiface(nic: object) -> Binding:
    families = {int(socket.AF_INET): IP4, int(socket.AF_INET6): IP6}
    hosts = []
    try:
        for af in nic.what_afs():  # type: ignore[attr-defined]
            host = nic.nic(af)  # type: ignore[attr-defined]
            if int(af) in families and host:
                hosts.append((families[int(af)], str(ipaddress.ip_address(str(host)))))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"nic=: this {type(nic).__name__} tells no address ({error}); await it first, as in "
            "`nic = await Interface()`"
        ) from error
    if not hosts:
        raise ConfigError(f"nic=: this {type(nic).__name__} has no address to connect from")
    return Binding(str(getattr(nic, "name", "") or type(nic).__name__), tuple(hosts))
