"""SSDP, how UPnP devices are found and how they say that they come and go (UPnP Device Architecture 1.1, 1).

It is HTTP headers in a datagram. Everything in one is a claim of whoever sent it; who may be believed is
decided by the address it came from, in `search` and `announcements`. Rejected: searching for ``ssdp:all``
or ``upnp:rootdevice``, at which every television on the LAN answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from warpgate_core import Endpoint, Family, ProtocolError
from warpgate_upnp.http import Url, parse_url

__all__ = [
    "GROUPS",
    "PORT",
    "SEARCH_TARGETS",
    "Found",
    "Notice",
    "NoticeKind",
    "Sightings",
    "parse_found",
    "parse_notice",
    "search",
]

PORT = 1900  # UDA 1.1 section 1
GROUPS = {Family.IP4: "239.255.255.250", Family.IP6: "ff02::c"}  # UDA 1.1 section 1 and annex A
# A device of version 2 answers a search for version 1 as well (UDA 1.1 section 1.3.2), but not all do.
SEARCH_TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)
MX = 1  # s over which devices spread their answers; a home has one router
MAX_DATAGRAM = 4_096  # bytes; miniupnpd's have 400
MAX_TYPES = 16  # notification types that are remembered of one router

_GATEWAY = re.compile(
    r"urn:schemas-upnp-org:(?:device:InternetGatewayDevice|service:WAN(?:IP|PPP)Connection):\d"
)
_LINE = re.compile(r"([!-9;-~]{1,64}):[ \t]*([\x20-\x7e\t]*?)[ \t]*")


class NoticeKind(Enum):
    """What a device says of itself (NTS header)."""

    ALIVE = "ssdp:alive"
    BYEBYE = "ssdp:byebye"
    UPDATE = "ssdp:update"


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to a search.

    Args:
        location: where the device's description is, by its own words.
        target: what kind of device it is.
        boot: what changes when it restarts; "" if it does not say.
    """

    location: Url
    target: str
    boot: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a device announces to everybody.

    Args:
        kind: that it is there, leaves, or changes.
        type: of device or service (NT header).
        location: of its description, as text; "" with a byebye.
        boot: as in `Found`.
    """

    kind: NoticeKind
    type: str
    location: str = ""
    boot: str = ""


def search(group: Endpoint, target: str) -> bytes:
    """A search to a group or to one host (UDA 1.1 section 1.3.2)."""
    host = group.host.partition("%")[0]
    lines = [
        "M-SEARCH * HTTP/1.1",
        f"HOST: {Endpoint(host, group.port)}",
        'MAN: "ssdp:discover"',
        f"MX: {MX}",
        f"ST: {target}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def parse_found(data: bytes) -> Found | None:
    """Read an answer to a search; None if it is of something that is no internet gateway.

    Raises:
        ProtocolError: not an answer, or without a usable location.
    """
    start, headers = _parse(data)
    if not re.fullmatch(r"HTTP/1\.[01] 200(?: .*)?", start):
        raise ProtocolError(f"no answer to a search: {start[:40]!r}")
    target = headers.get("st", "")
    if not _GATEWAY.fullmatch(target):
        return None
    return Found(parse_url(headers.get("location", "")), target, _boot(headers))


def parse_notice(data: bytes) -> Notice | None:
    """Read an announcement; None if it is of something that is no internet gateway.

    Raises:
        ProtocolError: not an announcement.
    """
    start, headers = _parse(data)
    if start not in ("NOTIFY * HTTP/1.1", "NOTIFY * HTTP/1.0"):
        raise ProtocolError(f"no announcement: {start[:40]!r}")
    if not _GATEWAY.fullmatch(headers.get("nt", "")):
        return None
    try:
        kind = NoticeKind(headers.get("nts", ""))
    except ValueError as error:
        raise ProtocolError(f"no announcement: NTS {headers.get('nts', '')[:40]!r}") from error
    return Notice(kind, headers["nt"], headers.get("location", ""), _boot(headers))


class Sightings:
    """What a router's announcements say together: has it restarted?

    It has if it took leave, or if for one and the same type the boot number or the location is not what it
    was (miniupnpd listens on another port after each start). The first announcement of a type counts as well,
    since nobody knows what it was before; that costs one request too many in the life of a node. A router may
    announce several devices with several locations, so each type is compared with itself only.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}

    def learn(self, found: Found) -> None:
        """Remember what an answer to our own search said."""
        self._remember(found.target, (str(found.location), found.boot))

    def observe(self, notice: Notice) -> bool:
        """Whether this one says that the router has restarted, or is about to go."""
        if notice.kind is NoticeKind.BYEBYE:
            return True
        now = (notice.location, notice.boot)
        return self._remember(notice.type, now)

    def _remember(self, kind: str, what: tuple[str, str]) -> bool:
        """Whether that is new."""
        if self._seen.get(kind) == what:
            return False
        if kind in self._seen or len(self._seen) < MAX_TYPES:
            self._seen[kind] = what
            return True
        return False  # nobody has so many types; a flood of them is no news


def _boot(headers: dict[str, str]) -> str:
    """UDA 1.1 section 1.2.2; 01-NLS is what its predecessors used for the same."""
    return (headers.get("bootid.upnp.org") or headers.get("01-nls") or "")[:32]


def _parse(data: bytes) -> tuple[str, dict[str, str]]:
    """First line and headers, names in lower case."""
    if len(data) > MAX_DATAGRAM:
        raise ProtocolError(f"an SSDP datagram of {len(data)} bytes")
    start, *lines = data.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        if found := _LINE.fullmatch(line):  # others are skipped: old devices send odd ones
            headers.setdefault(found[1].lower(), found[2])
    return start, headers
