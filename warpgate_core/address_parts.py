"""What a node address is made of: one entry per interface and family, and hints to brokers.

Values that check themselves when they are made, so that whatever exists can be encoded, and so that
what the decoder accepts and what a program may build are the same. Hosts stand in the one text form
that `ipaddress` gives them. Published is what connecting needs: no interface names, no prefix
lengths, no scopes, no credentials of brokers.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import AddressError
from warpgate_core.nat import NatProfile

__all__ = ["DEFAULT_PORTS", "MAX_NIC", "BrokerHint", "InterfaceAddress", "packed_host"]

_UNKNOWN_NAT = NatProfile()

MAX_NIC = 15  # four bits on the wire; as many cards as an address has room for interfaces

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""Broker schemes, in wire order, and the port each has by default (IANA; RFC 6455 section 3)."""

_MAX_NAME = 253  # RFC 1035 section 3.1: 255 octets on the wire
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1123 section 2.1, and "_" as is seen
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # resolvers take such a last label for an IPv4 address


_HOSTS_REMEMBERED = 512  # text to bytes and back costs 10 us for IPv6; each host is needed several times


@functools.lru_cache(maxsize=_HOSTS_REMEMBERED)
def packed_host(host: str) -> bytes:
    """The 4 or 16 bytes of a numeric host that may be published.

    Raises:
        AddressError: not numeric, with a scope, not in canonical text form, or nothing one can send to.
    """
    try:
        ip = ipaddress.ip_address(str(host))
    except ValueError as error:
        raise AddressError(f"{host!r} is not a numeric IP address") from error
    if "%" in host:
        raise AddressError(f"{host!r} has a scope, which means nothing on another machine; leave it out")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        raise AddressError(f"{host!r} is an IPv4 address in IPv6 form; write {ip.ipv4_mapped}")
    if ip.is_unspecified or ip.is_multicast:
        raise AddressError(f"{host!r} is not the address of one machine")
    if str(ip) != host:
        raise AddressError(f"{host!r} is not in canonical form; write {str(ip)!r}")
    return ip.packed


def _check_port(port: int, what: str) -> None:
    if not (isinstance(port, int) and 1 <= port <= 0xFFFF):
        raise AddressError(f"{what} has port {port!r}; it must be a number from 1 to 65535")


def _check_nat(nat: NatProfile) -> None:
    if not -128 <= nat.step <= 127:
        raise AddressError(f"a NAT's port step is -128 to 127, not {nat.step}")
    if nat.chunk is not None:
        first, count = nat.chunk
        if not (0 <= first <= 0xFFFF and 1 <= count <= 0x10000 - first and count <= 0xFFFF):
            raise AddressError(f"a NAT's port block {nat.chunk} is not within 0 to 65535")


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One network card in one address family.

    Args:
        nic: number of the card, 0 to 15; its IPv4 and IPv6 entries share it.
        internal: private address, and the port that the UDP socket and the TCP listener share.
        external: mapped endpoint as STUN over UDP saw it; None if unknown; equal to `internal` without NAT.
        nat: what the NAT in front does, as far as known.
        tcp_external: TCP endpoint that is reachable from outside (port mapping, or no NAT); None if unknown.

    Raises:
        AddressError: an endpoint that cannot be published, mixed families, or a number out of range.
    """

    nic: int
    internal: Endpoint
    external: Endpoint | None = None
    nat: NatProfile = _UNKNOWN_NAT
    tcp_external: Endpoint | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.nic, int) and 0 <= self.nic <= MAX_NIC):
            raise AddressError(f"the number of a network card is 0 to {MAX_NIC}, not {self.nic!r}")
        for name in ("internal", "external", "tcp_external"):
            endpoint = getattr(self, name)
            if endpoint is None and name != "internal":
                continue
            if not isinstance(endpoint, Endpoint):
                raise AddressError(f"{name} must be an Endpoint, not {endpoint!r}")
            packed_host(endpoint.host)
            _check_port(endpoint.port, f"{name} endpoint {endpoint}")
            if endpoint.family is not self.internal.family:
                raise AddressError(f"{name} endpoint {endpoint} is of another family than {self.internal}")
        _check_nat(self.nat)

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.internal.family


@dataclass(frozen=True, slots=True)
class BrokerHint:
    """A broker at which the node is subscribed.

    Args:
        host: numeric IP address, or a DNS name in lower case (ASCII, without a final dot).
        port: 1 to 65,535.
        scheme: "mqtt", "mqtts" (TLS), "ws" or "wss" (MQTT over WebSocket).

    Raises:
        AddressError: another scheme, a port out of range, or a host that is neither.
    """

    host: str
    port: int
    scheme: str = "mqtt"

    def __post_init__(self) -> None:
        if not isinstance(self.host, str):
            raise AddressError(f"a broker's host is text, not {self.host!r}")
        if self.scheme not in DEFAULT_PORTS:
            raise AddressError(f"broker scheme {self.scheme!r} is none of {', '.join(DEFAULT_PORTS)}")
        _check_port(self.port, f"broker {self.host!r}")
        if self.is_numeric:
            packed_host(self.host)
        else:
            _check_name(self.host)

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an IP address and not a name."""
        return ":" in self.host or _NUMBER.fullmatch(self.host.rpartition(".")[2]) is not None

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def _check_name(name: str) -> None:
    if not (1 <= len(name) <= _MAX_NAME and all(_LABEL.fullmatch(label) for label in name.split("."))):
        raise AddressError(
            f"broker host {name[:_MAX_NAME]!r} is no host name: letters a-z, digits, '-' and '_' in labels "
            f"of up to 63, {_MAX_NAME} characters in all (international names in their xn-- form)"
        )
