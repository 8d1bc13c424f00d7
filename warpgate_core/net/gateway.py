"""The default gateways: where the port-mapping protocols knock, and what `warpgate doctor` shows.

Asked in this order, the first source that answers wins: netlink; `/proc/net` (Linux where netlink is
forbidden, Android for one); the `netifaces` extra, which knows BSD, macOS and Windows. Where none of
them does the answer is empty, never a guess such as ".1 of our own subnet": a port-mapping request to a
guessed address goes to a stranger. Rejected: running `route` or `ipconfig` and reading their words.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from warpgate_core.endpoint import Family
from warpgate_core.net import netlink

__all__ = ["Gateway", "default_gateways", "index_of", "scoped"]

_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200  # linux/route.h
_MAX_LINES = 10_000  # of a routing table that are read; the default route stands in front


@dataclass(frozen=True, slots=True)
class Gateway:
    """One way out to everywhere.

    Args:
        family: IPv4 or IPv6.
        host: address of the router, None on a point-to-point link; an IPv6 link-local one carries
            ``%index``.
        interface: name of the card.
        metric: the lower one is preferred by the system.
    """

    family: Family
    host: str | None
    interface: str
    metric: int = 0


def default_gateways(*, proc: Path = Path("/proc/net")) -> tuple[Gateway, ...]:
    """The default routes of this machine, the preferred one of each family first.

    Args:
        proc: where the kernel's text tables are.

    Returns:
        Empty if there is none, or the system does not tell.
    """
    found = _from_netlink()
    if found is None:
        found = _from_proc(proc)
    if found is None:
        found = _from_netifaces()
    return tuple(sorted(found, key=lambda gateway: (gateway.family, gateway.metric)))


def scoped(host: str | None, index: int) -> str | None:
    """`host`, with ``%index`` if it is an IPv6 link-local address."""
    return f"{host}%{index}" if host and host.lower().startswith("fe80:") else host


def _from_netlink() -> list[Gateway] | None:
    try:
        now = netlink.snapshot()
    except OSError:
        return None
    names = {link.index: link.name for link in now.links}
    return [
        Gateway(Family(route.version), scoped(route.gateway, route.index), names[route.index], route.metric)
        for route in now.routes
        if route.index in names
    ]


def _from_proc(proc: Path) -> list[Gateway] | None:
    found: list[Gateway] = []
    known = False
    for name, parse in (("route", _parse_route), ("ipv6_route", _parse_ipv6_route)):
        try:
            with (proc / name).open(encoding="ascii", errors="replace") as table:
                known = True
                for _, line in zip(range(_MAX_LINES), table, strict=False):
                    gateway = parse(line.split())
                    if gateway is not None:
                        found.append(gateway)
        except OSError:
            continue
    return found if known else None


def _parse_route(fields: list[str]) -> Gateway | None:
    """Interface, destination, gateway (little-endian hex), flags, RefCnt, Use, metric, mask..."""
    if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
        return None
    flags = int(fields[3], 16)
    if not flags & _RTF_UP or flags & _RTF_REJECT:
        return None
    host = str(ipaddress.IPv4Address(bytes.fromhex(fields[2])[::-1])) if flags & _RTF_GATEWAY else None
    return Gateway(Family.IP4, host, fields[0], int(fields[6]))


def _parse_ipv6_route(fields: list[str]) -> Gateway | None:
    """Destination, prefix, source, prefix, next hop, metric, RefCnt, Use, flags, interface."""
    if len(fields) < 10 or fields[0] != "0" * 32 or fields[1] != "00" or fields[9] == "lo":
        return None
    flags = int(fields[8], 16)
    if not flags & _RTF_UP or flags & _RTF_REJECT:
        return None
    host = None
    if flags & _RTF_GATEWAY:
        host = scoped(str(ipaddress.IPv6Address(bytes.fromhex(fields[4]))), index_of(fields[9]))
    return Gateway(Family.IP6, host, fields[9], int(fields[5], 16))


def index_of(name: str) -> int:
    """The system's number of a card; 0 if it has none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _from_netifaces() -> list[Gateway]:
    if importlib.util.find_spec("netifaces") is None:
        return []
    netifaces = importlib.import_module("netifaces")
    table = netifaces.gateways()
    found = []
    for family, number in ((Family.IP4, netifaces.AF_INET), (Family.IP6, netifaces.AF_INET6)):
        for host, name, is_default in table.get(number, ()):
            found.append(
                Gateway(family, scoped(host.partition("%")[0], index_of(name)), name, 0 if is_default else 1)
            )
    return found
