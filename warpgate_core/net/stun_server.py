"""The name of a STUN server as people write it, and its addresses.

Names are looked up in a daemon thread of our own (`threads.in_thread`), each at most 3 s: with
`loop.getaddrinfo` a name server that does not answer holds up the whole pool of the loop, and the end
of the program as well, because `asyncio.run` waits for that pool.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import ConfigError, InputError, NetworkError
from warpgate_core.net.stun import DEFAULT_PORT
from warpgate_core.net.threads import in_thread

__all__ = ["MAX_SERVERS", "StunServer", "read_servers", "resolve"]

MAX_SERVERS = 16  # all are asked at once; two already tell how a NAT maps
LOOKUP_TIMEOUT = 3.0  # s; resolv.conf(5) asks its second server after 5, nobody wants to wait for that
_MAX_NAME = 253  # characters, RFC 1035 section 2.3.4


@dataclass(frozen=True, slots=True)
class StunServer:
    """One configured server.

    Args:
        host: a name, or a numeric address.
        port: 1 to 65,535.

    Raises:
        ConfigError: host or port cannot be one.
    """

    host: str
    port: int = DEFAULT_PORT

    def __post_init__(self) -> None:
        if not ((_is_name(self.host) or _is_numeric(self.host)) and 0 < self.port <= 65535):
            raise ConfigError(f"{str(self)!r} is no STUN server: write HOST, HOST:PORT or stun:HOST:PORT")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> StunServer:
        """Read ``host``, ``host:port``, ``[IPv6]:port``, each with or without ``stun:`` (RFC 7064).

        Raises:
            ConfigError: it is none of those.
        """
        rest = text.strip()
        scheme, sep, after = rest.partition(":")
        if sep and scheme.lower() == "stun":
            rest = after.removeprefix("//")
        elif sep and scheme.lower() in ("stuns", "turn", "turns", "http", "https"):
            raise ConfigError(f"{text!r} is no STUN server: write stun:HOST:PORT (UDP, RFC 7064)")
        try:
            endpoint = Endpoint.parse(rest, DEFAULT_PORT)
        except InputError:
            host, sep, port = rest.rpartition(":")
            if not sep:
                host, port = rest, str(DEFAULT_PORT)
            if not (port.isascii() and port.isdigit() and len(port) <= 5):
                raise ConfigError(f"{text!r} is no STUN server: {port!r} is not a port") from None
            return cls(host.rstrip("."), int(port))
        return cls(endpoint.host, endpoint.port)


def read_servers(servers: object) -> tuple[StunServer, ...]:
    """Read a list of servers (texts or `StunServer`), in order and without duplicates.

    Raises:
        ConfigError: one of them cannot be read, or there are more than `MAX_SERVERS`.
    """
    if isinstance(servers, str):
        servers = [part for part in servers.split(",") if part.strip()]
    if not isinstance(servers, list | tuple):
        raise ConfigError(f"STUN servers are given as a list, not as {type(servers).__name__}")
    found = dict.fromkeys(
        server if isinstance(server, StunServer) else StunServer.parse(str(server)) for server in servers
    )
    if len(found) > MAX_SERVERS:
        raise ConfigError(f"{len(found)} STUN servers are too many; {MAX_SERVERS} at most, 3 are plenty")
    return tuple(found)


async def resolve(server: StunServer, family: Family) -> Endpoint:
    """The server's address in this family.

    Raises:
        NetworkError: it has none, the name is unknown, or no answer came within 3 s.
    """
    if _is_numeric(server.host):
        endpoint = Endpoint(server.host, server.port)
        if endpoint.family is not family:
            raise NetworkError(f"STUN server {server} has no IPv{int(family)} address")
        return endpoint
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            answers = await in_thread(
                f"resolve {server.host}",
                lambda: socket.getaddrinfo(
                    server.host, server.port, family.socket_family, socket.SOCK_DGRAM, socket.IPPROTO_UDP
                ),
            )
    except TimeoutError as error:
        raise NetworkError(f"the name {server.host} was not resolved within {LOOKUP_TIMEOUT:g} s") from error
    except (OSError, UnicodeError) as error:
        raise NetworkError(
            f"STUN server {server.host} has no IPv{int(family)} address we can find: {error}"
        ) from error
    return Endpoint.of(answers[0][4])


def _is_name(host: str) -> bool:
    labels = host.split(".")
    return (
        0 < len(host) <= _MAX_NAME
        and host.isascii()
        and all(0 < len(label) <= 63 for label in labels)
        and all(char.isalnum() or char in "-_." for char in host)
        and not labels[-1].isdigit()  # "300.1.1.1" is a slip of the pen, not a name
    )


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
