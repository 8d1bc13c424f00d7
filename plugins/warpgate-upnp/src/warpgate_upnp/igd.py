"""UPnP Internet Gateway Device: which services a router offers, and the SOAP with which one asks them.

Sans-I/O. Follows UPnP-gw-WANIPConnection v1 and v2, WANPPPConnection v1 and WANIPv6FirewallControl v1. Only
these service types are known; what a device calls itself otherwise never gets into a request. Where a
control URL leads is checked here: to the very address that the description came from, or it is refused.
"""

from __future__ import annotations

import html
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from warpgate_core import ProtocolError
from warpgate_upnp import markup
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.http import Response, Url, parse_url, request, resolve_url

__all__ = [
    "CONNECTIONS",
    "FIREWALL",
    "Call",
    "Entry",
    "Fault",
    "Service",
    "add_any_mapping",
    "add_mapping",
    "add_pinhole",
    "delete_mapping",
    "delete_pinhole",
    "external_address",
    "generic_entry",
    "parse_entry",
    "parse_external_address",
    "parse_pinhole",
    "parse_port",
    "parse_services",
    "read_answer",
    "update_pinhole",
]

FIREWALL: Final = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
CONNECTIONS: Final = (  # in the order of preference: version 2 can choose a free port itself
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
MAX_SERVICES = 8  # of those types in one description; routers have one to three
MAX_PINHOLE_ID = 65_535  # ui2, WANIPv6FirewallControl v1 section 2.4
_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17}  # IANA


class Fault:
    """Error codes (WANIPConnection v2 table 2-12 and following, UDA 1.1 table 3-3)."""

    INVALID_ACTION = 401
    INVALID_ARGS = 402
    ACTION_FAILED = 501
    OPTIONAL_ACTION = 602
    NOT_AUTHORIZED = 606
    END_OF_LIST = 713
    CONFLICT = 718
    SAME_PORTS_REQUIRED = 724
    ONLY_PERMANENT = 725
    NO_ROOM = 728
    CONFLICT_WITH_OTHER = 729


_SAYINGS = {
    Fault.NOT_AUTHORIZED: "it does not allow it",
    Fault.CONFLICT: "the port is taken",
    Fault.SAME_PORTS_REQUIRED: "it maps a port to the same port only, and that is taken",
    Fault.NO_ROOM: "it has no room for further mappings",
    Fault.CONFLICT_WITH_OTHER: "the port is taken",
    702: "its IPv6 firewall is off",
    703: "its owner does not allow pinholes",
    708: "pinholes for this protocol are not possible",
}


@dataclass(frozen=True, slots=True)
class Service:
    """One service of a router.

    Args:
        type: one of `CONNECTIONS`, or `FIREWALL`.
        control: where requests go.
    """

    type: str
    control: Url


@dataclass(frozen=True, slots=True)
class Call:
    """One SOAP request, ready to be sent to `service.control`.

    Args:
        service: whom to ask.
        action: what for.
        data: the whole HTTP request.
    """

    service: Service
    action: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the router's table of mappings."""

    external_port: int
    protocol: str
    internal_port: int
    internal_client: str
    description: str
    lease: int


def parse_services(document: bytes, location: Url) -> list[Service]:
    """The services that we know, in a device's description; the preferred ones first.

    Args:
        document: the description.
        location: where it was fetched from.

    Raises:
        ProtocolError: unreadable, or one of these services is on another host.
    """
    root = markup.parse(document)
    base = location
    if text := root.text_of("URLBase"):  # UDA 1.0; gone in 1.1
        base = parse_url(text)
        if base.endpoint.host != location.endpoint.host:
            raise ProtocolError(f"the device at {location.endpoint.host} points to {base.endpoint.host}")
    known = [*CONNECTIONS, FIREWALL]
    found: list[Service] = []
    for element in root.every("service"):
        kind = element.text_of("serviceType")
        if kind in known and len(found) < MAX_SERVICES:
            found.append(Service(kind, resolve_url(base, element.text_of("controlURL"))))
    return sorted(found, key=lambda service: known.index(service.type))


def external_address(service: Service) -> Call:
    """Ask for the router's external IPv4 address."""
    return _call(service, "GetExternalIPAddress", ())


def add_mapping(
    service: Service, transport: str, external: int, client: tuple[str, int], lease: int, description: str
) -> Call:
    """Ask for a mapping of that very external port; also renews one.

    Args:
        service: one of `CONNECTIONS`.
        transport: "tcp" or "udp".
        external: port outside.
        client: own address and port.
        lease: seconds, 0 for ever.
        description: what the router's owner sees.
    """
    return _call(service, "AddPortMapping", _mapping(transport, external, client, lease, description))


def add_any_mapping(
    service: Service, transport: str, external: int, client: tuple[str, int], lease: int, description: str
) -> Call:
    """Ask for a mapping of that external port or of another (WANIPConnection:2 only). Arguments as above."""
    return _call(service, "AddAnyPortMapping", _mapping(transport, external, client, lease, description))


def delete_mapping(service: Service, transport: str, external: int) -> Call:
    """Take a mapping back."""
    arguments = (("NewRemoteHost", ""), ("NewExternalPort", external), ("NewProtocol", transport.upper()))
    return _call(service, "DeletePortMapping", arguments)


def generic_entry(service: Service, index: int) -> Call:
    """Ask for one line of the table of mappings."""
    return _call(service, "GetGenericPortMappingEntry", (("NewPortMappingIndex", index),))


def add_pinhole(service: Service, transport: str, client: tuple[str, int], lease: int) -> Call:
    """Ask to let everybody in to an own IPv6 endpoint."""
    arguments = (
        ("RemoteHost", ""),
        ("RemotePort", 0),
        ("InternalClient", client[0]),
        ("InternalPort", client[1]),
        ("Protocol", _PROTOCOL_NUMBERS[transport]),
        ("LeaseTime", lease),
    )
    return _call(service, "AddPinhole", arguments)


def update_pinhole(service: Service, number: int, lease: int) -> Call:
    """Renew a pinhole."""
    return _call(service, "UpdatePinhole", (("UniqueID", number), ("NewLeaseTime", lease)))


def delete_pinhole(service: Service, number: int) -> Call:
    """Close a pinhole."""
    return _call(service, "DeletePinhole", (("UniqueID", number),))


def read_answer(call: Call, response: Response) -> markup.Element:
    """The element that holds the results.

    Raises:
        RefusalError: a UPnP error, with its code.
        ProtocolError: anything else than an answer to this call.
    """
    if response.status not in (200, 500):
        where = f"{call.service.control} answered HTTP status {response.status}"
        raise ProtocolError(f"{where} to {call.action}; redirects are not followed")
    body = markup.parse(response.body).child("Body")
    if body is None:
        raise ProtocolError(f"the answer to {call.action} is no SOAP envelope")
    result = body.child(f"{call.action}Response")
    if response.status == 200 and result is not None:
        return result
    for error in body.every("UPnPError"):
        code = _number(error.text_of("errorCode"), 1, 999, "an error code")
        said = _SAYINGS.get(code) or error.text_of("errorDescription")[:80] or "no reason given"
        raise RefusalError(f"the router refused {call.action}: {said} (UPnP error {code})", code=code)
    raise ProtocolError(f"the answer to {call.action} holds neither a result nor an error")


def parse_external_address(result: markup.Element) -> str:
    """The address; "" if the router has none at present.

    Raises:
        ProtocolError: something else.
    """
    text = result.text_of("NewExternalIPAddress")
    if not text:
        return ""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise ProtocolError(f"the router calls {text[:40]!r} its external address") from error
    return "" if address.is_unspecified else str(address)


def parse_port(result: markup.Element) -> int:
    """The port that AddAnyPortMapping gave.

    Raises:
        ProtocolError: none.
    """
    return _number(result.text_of("NewReservedPort"), 1, 65_535, "a port")


def parse_pinhole(result: markup.Element) -> int:
    """The number that AddPinhole gave.

    Raises:
        ProtocolError: none.
    """
    return _number(result.text_of("UniqueID"), 0, MAX_PINHOLE_ID, "a pinhole's number")


def parse_entry(result: markup.Element) -> Entry:
    """One line of the table.

    Raises:
        ProtocolError: a number in it is none.
    """
    return Entry(
        external_port=_number(result.text_of("NewExternalPort"), 0, 65_535, "a port"),
        protocol=result.text_of("NewProtocol").lower(),
        internal_port=_number(result.text_of("NewInternalPort"), 0, 65_535, "a port"),
        internal_client=result.text_of("NewInternalClient"),
        description=result.text_of("NewPortMappingDescription"),
        lease=_number(result.text_of("NewLeaseDuration") or "0", 0, 2**32 - 1, "a lease"),
    )


def _mapping(
    transport: str, external: int, client: tuple[str, int], lease: int, description: str
) -> Sequence[tuple[str, str | int]]:
    return (
        ("NewRemoteHost", ""),
        ("NewExternalPort", external),
        ("NewProtocol", transport.upper()),
        ("NewInternalPort", client[1]),
        ("NewInternalClient", client[0]),
        ("NewEnabled", 1),
        ("NewPortMappingDescription", description),
        ("NewLeaseDuration", lease),
    )


def _call(service: Service, action: str, arguments: Sequence[tuple[str, str | int]]) -> Call:
    """UDA 1.1 section 3.2.1; the arguments in the order of the service's description."""
    inside = "".join(f"<{name}>{html.escape(str(value), quote=False)}</{name}>" for name, value in arguments)
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service.type}">{inside}</u:{action}>'
        "</s:Body></s:Envelope>\r\n"
    )
    headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{service.type}#{action}"'}
    return Call(service, action, request("POST", service.control, headers, body.encode("utf-8")))


def _number(text: str, low: int, high: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise ProtocolError(f"the router calls {text[:40]!r} {what}")
    return int(text)
