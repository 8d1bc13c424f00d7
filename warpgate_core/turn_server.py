"""`TurnServer`: where a TURN relay is and how to log in there, as a person writes it (RFC 7065).

Only a value: the client is in the distribution warpgate-turn. Credentials written inside the URL are
taken out of it at once, so neither `url` nor `repr` ever shows them. URLs are taken apart here and not by
`urllib`, which knows no ``turn:`` and whose error texts quote passwords.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

from warpgate_core.errors import ConfigError

__all__ = ["CREDENTIAL_TYPES", "MAX_SERVERS", "TurnServer", "read_turn_servers"]

DEFAULT_PORTS: Final = {"turn": 3478, "turns": 5349}  # RFC 8656 section 5, IANA
CREDENTIAL_TYPES: Final = ("static", "hmac", "rest")
MAX_SERVERS: Final = 8  # one relay is enough for both ends; more are for when it is down
HOW: Final = "write turn:[USER:PASSWORD@]HOST[:PORT][?transport=udp|tcp], or turns: for TLS"


@dataclass(frozen=True, slots=True)
class TurnServer:
    """One TURN server.

    Args:
        url: ``turn:host:port?transport=udp``, ``turn:host?transport=tcp`` or ``turns:host:5349``. May hold
            ``user:password@`` before the host (special characters percent-encoded) and ``auth=hmac`` or
            ``auth=rest&rest=URL`` after the ``?``; all of that is moved to the fields below.
        username: for "static", the user; for "hmac", a label that the server logs; for "rest", sent along.
        credential: for "static", the password; for "hmac", the secret shared with the server (coturn's
            ``use-auth-secret``); for "rest", the key of the web service. Never shown.
        credential_type: "static", "hmac" (a password for a limited time is made of the shared secret) or
            "rest" (a web service hands one out).
        credential_url: for "rest", the http(s) address of that service. Never shown.

    Attributes:
        host: name or numeric address.
        port: 1 to 65,535.
        transport: "udp" or "tcp", between us and the server.
        is_tls: whether it is ``turns:``.

    Raises:
        ConfigError: the URL or the combination makes no sense. The text shows no secret.
    """

    url: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)
    credential_type: Literal["static", "hmac", "rest"] = "static"
    credential_url: str | None = field(default=None, repr=False)
    host: str = field(default="", init=False, repr=False)
    port: int = field(default=0, init=False, repr=False)
    transport: str = field(default="", init=False, repr=False)
    is_tls: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            raise ConfigError(f"a TURN server's url is text, not {type(self.url).__name__}; {HOW}")
        text = self.url.strip()
        shown = _redact(text)
        scheme, colon, rest = text.partition(":")
        if not colon or scheme.lower() not in DEFAULT_PORTS:
            raise ConfigError(f"{shown!r} is no TURN server; {HOW}")
        scheme = scheme.lower()
        user, at, rest = rest.removeprefix("//").rpartition("@")
        if any(c in user for c in "/?#@"):
            raise ConfigError(f"TURN server {shown!r}: percent-encode / ? # @ in user and password")
        authority, _, query = rest.partition("?")
        host, port = _split_port(authority, DEFAULT_PORTS[scheme], shown)
        asked = _read_query(query, shown)
        transport = asked.get("transport", "tcp" if scheme == "turns" else "udp")
        if transport not in ("udp", "tcp") or (scheme, transport) == ("turns", "udp"):
            what = "turns: goes over tcp only" if scheme == "turns" else "transport is udp or tcp"
            raise ConfigError(f"TURN server {shown!r}: {what}")
        if at:
            name, _, password = user.partition(":")
            self._fill("username", unquote(name) or None, shown)
            self._fill("credential", unquote(password) or None, shown)
        if "auth" in asked:
            self._fill("credential_type", asked["auth"], shown)
        if "rest" in asked:
            self._fill("credential_url", unquote(asked["rest"]), shown)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for key, value in (
            ("url", f"{scheme}:{where}?transport={transport}"),
            ("host", host),
            ("port", port),
            ("transport", transport),
            ("is_tls", scheme == "turns"),
        ):
            object.__setattr__(self, key, value)
        self._check()

    def _fill(self, key: str, value: str | None, shown: str) -> None:
        """Take a field from the URL, unless it was given otherwise already."""
        before = getattr(self, key)
        if value is not None and before not in (None, "static", value):
            raise ConfigError(f"TURN server {shown!r}: {key} is given both in the URL and beside it")
        object.__setattr__(self, key, value if value is not None else before)

    def _check(self) -> None:
        where = f"TURN server {self.url!r}"
        for key in ("username", "credential", "credential_url"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{where}: {key} is text, not {type(value).__name__}")
        match self.credential_type:
            case "static":
                if (self.username is None) != (self.credential is None):
                    raise ConfigError(f"{where}: give both user name and password, or neither")
            case "hmac":
                if not self.credential:
                    raise ConfigError(f"{where}: hmac needs the secret shared with the server as credential")
            case "rest":
                if not (self.credential_url or "").startswith(("https://", "http://")):
                    raise ConfigError(f"{where}: rest needs credential_url, an http(s) address")
            case other:
                raise ConfigError(f"{where}: credential_type is one of {CREDENTIAL_TYPES}, not {other!r}")
        if self.credential_url is not None and self.credential_type != "rest":
            raise ConfigError(f"{where}: credential_url goes with credential_type='rest' only")

    def __str__(self) -> str:
        return self.url


def read_turn_servers(servers: object) -> tuple[TurnServer, ...]:
    """Read a list of servers (URLs or `TurnServer`), or comma-separated URLs; each once, in order.

    Raises:
        ConfigError: one of them cannot be read, or there are more than `MAX_SERVERS`.
    """
    if isinstance(servers, str):
        servers = [part for part in servers.split(",") if part.strip()]
    elif isinstance(servers, TurnServer):
        servers = [servers]
    if not isinstance(servers, Iterable):
        raise ConfigError(f"TURN servers are given as a list, not as {type(servers).__name__}; {HOW}")
    found = dict.fromkeys(
        server if isinstance(server, TurnServer) else TurnServer(server) for server in servers
    )
    if len(found) > MAX_SERVERS:
        raise ConfigError(f"{len(found)} TURN servers are too many; {MAX_SERVERS} at most, one is enough")
    return tuple(found)


def _redact(text: str) -> str:
    """The text without what may be secret: all before the last @ and all after the ?."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        scheme, rest = "", text
    user, at, host = rest.rpartition("@")
    host = host.partition("?")[0] if "?" in host else host
    return f"{scheme}{colon}***@{host}" if at or user else f"{scheme}{colon}{host}"


def _split_port(authority: str, default: int, shown: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            raise ConfigError(
                f"TURN server {shown!r}: an IPv6 address stands in brackets, [2001:db8::1]:3478"
            )
        port = rest[1:] if rest else str(default)
    else:
        host, colon, port = authority.partition(":")
        port = port if colon else str(default)
    if not host or any(c in host for c in "/ \t[]") or not host.isprintable():
        raise ConfigError(f"TURN server {shown!r} names no host; {HOW}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise ConfigError(f"TURN server {shown!r}: the port is not a number from 1 to 65535")
    return host.lower(), int(port)


def _read_query(query: str, shown: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        if key not in ("transport", "auth", "rest") or not equals or key in found:
            raise ConfigError(f"TURN server {shown!r}: after the ? come transport=, auth= and rest= only")
        found[key] = value if key == "rest" else value.lower()
    return found


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
