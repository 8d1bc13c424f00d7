"""Brokers as a person configures them: values, URLs, and the server lists of earlier programs.

Everything that is wrong is a `ConfigError` that says how to write it, and never repeats a password.
URLs are taken apart here and not by `urllib`: its error texts quote what it thinks is the port, which
for a password with a slash in it is the password.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from warpgate_core.address import BrokerHint
from warpgate_core.address_parts import DEFAULT_PORTS
from warpgate_core.endpoint import IP4, IP6, Family
from warpgate_core.errors import AddressError, ConfigError
from warpgate_core.signal.rendezvous import canonical_host

__all__ = [
    "DEFAULT_PATH",
    "ENVIRONMENT",
    "FAMILIES",
    "Broker",
    "from_environment",
    "merge",
    "parse_hints",
    "parse_url",
    "redact",
]

ENVIRONMENT: Final = "WARPGATE_BROKERS"

DEFAULT_PATH: Final = "/mqtt"  # what EMQX, HiveMQ and VerneMQ use; mosquitto takes any
BOTH: Final = frozenset((IP4, IP6))

FAMILIES: Final[dict[object, Family]] = {
    socket.AF_INET: IP4,
    socket.AF_INET6: IP6,
    IP4: IP4,
    IP6: IP6,
    "IPv4": IP4,
    "IPv6": IP6,
    "IP4": IP4,
    "IP6": IP6,
}
"""How an address family may be named: as the socket module does, as `Family`, or in words."""

_NO_PORT: Final = re.compile(r":(?!//|[0-9]*(?:[:/?]|$))[^:/?]*")

HOW: Final = (
    "write HOST, HOST:PORT or SCHEME://[USER:PASSWORD@]HOST[:PORT][/PATH] with mqtt, mqtts, ws or wss"
)


@dataclass(frozen=True, slots=True)
class Broker:
    """One MQTT broker.

    Args:
        host: canonical numeric address or DNS name.
        port: 1 to 65,535.
        scheme: "mqtt", "mqtts", "ws" or "wss".
        username: for the broker's own access control; None if it wants none.
        password: likewise. Never shown.
        path: for ws and wss.
        weight: share of the keys relative to other brokers, above 0.
        families: families it may be reached over.
        addresses: numeric addresses to dial instead of asking the DNS for `host`.

    Raises:
        ConfigError: any of these cannot be used.
    """

    host: str
    port: int
    scheme: str = "mqtt"
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    path: str = DEFAULT_PATH
    weight: float = 1.0
    families: frozenset[Family] = BOTH
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        host = canonical_host(self.host)
        object.__setattr__(self, "host", host)
        try:
            BrokerHint(host, self.port, self.scheme)  # the rules for what can be named to others
        except AddressError as error:
            raise ConfigError(f"{error}; {HOW}") from error
        number = isinstance(self.weight, int | float) and math.isfinite(self.weight)
        if not number or self.weight <= 0:
            raise ConfigError(f"broker {host}: weight {self.weight!r} is not a number above 0")
        if self.password is not None and not self.username:
            raise ConfigError(f"broker {host}: MQTT takes no password without a user name")
        if not self.path.startswith("/") or any(c in self.path for c in " \r\n"):
            raise ConfigError(f"broker {host}: a WebSocket path begins with / and has no spaces")
        if self.is_numeric:
            object.__setattr__(self, "families", frozenset((Family(ipaddress.ip_address(host).version),)))

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an address and not a name."""
        return _is_numeric(self.host)

    @property
    def broker_id(self) -> str:
        """Canonical ``host:port``: what the rendezvous hashes."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme, host, port and path. Never with credentials."""
        path = self.path if self.scheme in ("ws", "wss") else ""
        return f"{self.scheme}://{self.broker_id}{path}"

    @property
    def hint(self) -> BrokerHint:
        """As it stands in a node's address."""
        return BrokerHint(self.host, self.port, self.scheme)

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("mqtts", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether MQTT rides inside WebSocket frames."""
        return self.scheme in ("ws", "wss")

    @classmethod
    def of_hint(cls, hint: BrokerHint) -> Broker:
        """The broker a hint names: without credentials, and with the default path."""
        return cls(hint.host, hint.port, hint.scheme)

    def __str__(self) -> str:
        return self.url


def redact(text: str) -> str:
    """A URL for error texts: without everything before the last @, or what stands where a port belongs.

    The latter is the password when somebody forgot ``@host``.
    """
    secret, at, host = text.rpartition("@")
    if not at:
        return text if "[" in text else _NO_PORT.sub(":***", text)
    scheme, sep, _ = secret.partition("://")
    return f"{scheme + sep if sep else ''}***@{host}"


def parse_url(text: str, default_scheme: str = "mqtt") -> Broker:
    """Read one broker URL.

    Args:
        text: ``203.0.113.10``, ``broker.example:1883``, ``[2001:db8::1]:1883``,
            ``mqtts://user:password@host:8883``, ``ws://host/path``. Special characters in user and
            password are percent-encoded. ``?weight=2`` at the end sets the weight.
        default_scheme: when the text names none.

    Raises:
        ConfigError: it is not of that form. The text never shows the credentials.
    """
    shown = redact(text.strip())
    scheme, sep, rest = text.strip().partition("://")
    if not sep:
        scheme, rest = default_scheme, scheme
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise ConfigError(f"broker {shown!r}: unknown scheme {redact(scheme)!r}; {HOW}")
    user, at, rest = rest.rpartition("@")
    if any(c in user for c in "/?#@"):
        raise ConfigError(f"broker {shown!r}: percent-encode / ? # @ in user and password")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    if path and scheme not in ("ws", "wss"):
        raise ConfigError(f"broker {shown!r}: only ws and wss have a path; {HOW}")
    host, port = _split_port(authority, DEFAULT_PORTS[scheme], shown)
    name, colon, password = user.partition(":")
    if at and not name:
        raise ConfigError(f"broker {shown!r}: there is no user name before the @")
    try:
        return Broker(
            host,
            port,
            scheme,
            unquote(name) if name else None,
            unquote(password) if colon else None,
            slash + path if path else DEFAULT_PATH,
            _weight_of(query, shown),
        )
    except ConfigError as error:
        raise ConfigError(f"broker {shown!r}: {error}") from None


def _split_port(authority: str, default: int, shown: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_numeric(host):
            raise ConfigError(f"broker {shown!r}: an IPv6 address stands in brackets, [2001:db8::1]:1883")
        port = rest[1:] if rest else str(default)
    elif authority.count(":") > 1:
        host, port = authority, str(default)  # a bare IPv6 address
        if not _is_numeric(host):
            raise ConfigError(f"broker {shown!r}: more than one colon; {HOW}")
    else:
        host, colon, port = authority.partition(":")
        port = port if colon else str(default)
    if not host:
        raise ConfigError(f"broker {shown!r} names no host; {HOW}")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ConfigError(f"broker {shown!r}: the port is not a number from 1 to 65535")
    return host, int(port)


def _weight_of(query: str, shown: str) -> float:
    if not query:
        return 1.0
    key, _, value = query.partition("=")
    try:
        if key == "weight":
            return float(value)
    except ValueError:
        pass
    raise ConfigError(f"broker {shown!r}: after the ? only weight=NUMBER is understood")


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_hints(hints: Iterable[BrokerHint | Mapping[str, object]] | None) -> list[Broker]:
    """Hints as brokers: `BrokerHint`, or the earlier ``{"af": ..., "host": ..., "port": ...}``.

    Raises:
        ConfigError: something else, or a host or port that cannot be one.
    """
    found = []
    for hint in hints or ():
        if isinstance(hint, BrokerHint):
            found.append(Broker.of_hint(hint))
            continue
        if not isinstance(hint, Mapping) or "host" not in hint:
            raise ConfigError(f"a broker hint is a BrokerHint or {{'af', 'host', 'port'}}, not {hint!r}")
        port, scheme = hint.get("port", 1883), hint.get("scheme", "mqtt")
        if not isinstance(port, int) or not isinstance(scheme, str):
            raise ConfigError(f"broker hint {hint!r}: the port is a number, the scheme a word")
        family = FAMILIES.get(hint.get("af"))
        families = frozenset((family,)) if family else BOTH
        found.append(Broker(str(hint["host"]), port, scheme, families=families))
    return found


def merge(brokers: Iterable[Broker]) -> tuple[Broker, ...]:
    """One entry per broker: what is listed for IPv4 and again for IPv6 is one dual-stack broker.

    Raises:
        ConfigError: a broker is listed twice with different settings.
    """
    pool: dict[str, Broker] = {}
    for broker in brokers:
        before = pool.get(broker.broker_id)
        if before is not None:
            families = before.families | broker.families
            addresses = tuple(dict.fromkeys(before.addresses + broker.addresses))
            broker = replace(broker, families=families, addresses=addresses)
            if replace(before, families=families, addresses=addresses) != broker:
                raise ConfigError(f"broker {broker.broker_id} is listed twice with different settings")
        pool[broker.broker_id] = broker
    return tuple(pool.values())


def from_environment(environ: Mapping[str, str] | None = None) -> list[str]:
    """The entries of ``WARPGATE_BROKERS`` (comma-separated URLs)."""
    value = (os.environ if environ is None else environ).get(ENVIRONMENT, "")
    return [entry.strip() for entry in value.split(",") if entry.strip()]
