"""A transport address: host and port, the smallest word of the whole library.

A plain tuple underneath, so that it compares equal to what the socket module hands out and costs
nothing in the per-packet path. Rejected: a dataclass around `ipaddress` objects (1.6 us to build,
per packet) and bare strings ("host:port" is ambiguous for IPv6).
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from typing import NamedTuple

from warpgate_core.errors import InputError

__all__ = ["IP4", "IP6", "Endpoint", "Family"]


class Family(enum.IntEnum):
    """Address family; the value is the IP version."""

    IP4 = 4
    IP6 = 6

    @property
    def socket_family(self) -> socket.AddressFamily:
        """The family as the socket module names it."""
        return socket.AF_INET if self is Family.IP4 else socket.AF_INET6


IP4 = Family.IP4
IP6 = Family.IP6


class Endpoint(NamedTuple):
    """An IP address in its canonical text form, and a port.

    Args:
        host: numeric IP address, never a name; an IPv6 link-local one may carry ``%scope``.
        port: 0 to 65,535.
    """

    host: str
    port: int

    @property
    def family(self) -> Family:
        """IPv4 or IPv6, told by the text alone."""
        return Family.IP6 if ":" in self.host else Family.IP4

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The host as an `ipaddress` object."""
        return ipaddress.ip_address(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def of(cls, sockaddr: tuple[object, ...]) -> Endpoint:
        """From what the socket module hands out (two or four fields).

        IPv4-mapped IPv6 addresses become plain IPv4.
        """
        host, port = str(sockaddr[0]), int(str(sockaddr[1]))
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        if len(sockaddr) == 4 and sockaddr[3] and "%" not in host and host.startswith("fe80"):
            host = f"{host}%{sockaddr[3]}"
        return cls(host, port)

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Endpoint:
        """Read ``1.2.3.4:5`` or ``[2001:db8::1]:5``; the port may be absent if there is a default.

        Raises:
            InputError: not a numeric address, or no port and no default.
        """
        stripped = text.strip()
        if stripped.startswith("["):
            host, bracket, rest = stripped[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
                raise InputError(f"{text!r} is not a numeric address; write 1.2.3.4:PORT or [IPv6]:PORT")
            sep, port = rest[:1], rest[1:]
        elif stripped.count(":") == 1:
            host, sep, port = stripped.partition(":")
        else:
            host, sep, port = stripped, "", ""
        if not sep:
            if default_port is None:
                raise InputError(f"{text!r} has no port; write HOST:PORT, or [IPv6]:PORT")
            port = str(default_port)
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError as error:
            raise InputError(
                f"{text!r} is not a numeric address; write 1.2.3.4:PORT or [IPv6]:PORT"
            ) from error
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
            raise InputError(f"{text!r} has no usable port: {port[:9]!r} is not a number from 0 to 65535")
        return cls(host, int(port))
