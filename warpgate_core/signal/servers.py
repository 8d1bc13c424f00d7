"""What `servers=` may be: URLs, the documented dictionary, or the server list of the aionetiface package.

Three shapes of the same thing. The list that aionetiface ships is read from its file without importing
the package: importing it changes the event loop, and it is an extra.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from warpgate_core.address_parts import DEFAULT_PORTS
from warpgate_core.endpoint import Family
from warpgate_core.errors import ConfigError
from warpgate_core.signal.brokers import (
    DEFAULT_PATH,
    ENVIRONMENT,
    FAMILIES,
    Broker,
    from_environment,
    merge,
    parse_url,
)

__all__ = ["PUBLIC", "parse_servers"]

PUBLIC: Final = "public"  # an entry that stands for aionetiface's list of public brokers
MIN_SCORE: Final = 0.8  # of that list, as aionetiface itself filters it

_ENTRY_KEYS: Final = frozenset(("port", "weight", "scheme", "user", "username", "password", "path"))


def parse_servers(servers: object = None, environ: Mapping[str, str] | None = None) -> tuple[Broker, ...]:
    """The broker pool.

    Args:
        servers: one of

            - None: what ``WARPGATE_BROKERS`` says;
            - a list of URLs (or `Broker` values), one URL, or the word ``public``;
            - ``{AF: {host: {"port": 1883, "weight": 1.0}}}`` with AF `socket.AF_INET`, `socket.AF_INET6`
              or `Family`; also ``scheme``, ``user``, ``password``, ``path``;
            - ``{"IPv4": {"UDP": [[{"ip", "port", "user", "password", ...}]]}}`` as aionetiface has it.
        environ: instead of the process's environment.

    Returns:
        Each broker once; empty if none is configured.

    Raises:
        ConfigError: it is none of these. Never shows a password.
    """
    if servers is None:
        servers = from_environment(environ)
    if isinstance(servers, str):
        servers = [entry.strip() for entry in servers.split(",") if entry.strip()]
    if isinstance(servers, Mapping):
        return merge(_from_mapping(servers))
    if not isinstance(servers, Iterable):
        raise ConfigError(
            f"servers= is a list of URLs or a dictionary {{AF: {{host: {{'port', 'weight'}}}}}}, "
            f"not {type(servers).__name__}; or set {ENVIRONMENT}"
        )
    return merge(_from_list(servers))


def _from_list(entries: Iterable[object]) -> Iterator[Broker]:
    for entry in entries:
        if isinstance(entry, Broker):
            yield entry
        elif entry == PUBLIC:
            yield from _from_mapping(_public_list())
        elif isinstance(entry, str):
            yield parse_url(entry)
        else:
            raise ConfigError(f"a broker in a list is a URL, not {type(entry).__name__}")


def _from_mapping(servers: Mapping[object, object]) -> Iterator[Broker]:
    found: list[tuple[Family, object]] = []
    for key, value in servers.items():
        if key not in FAMILIES or not isinstance(value, Mapping):
            raise ConfigError(
                f"servers= has {key!r} where an address family belongs; write socket.AF_INET or "
                "socket.AF_INET6, and below it {host: {'port': 1883, 'weight': 1.0}}"
            )
        found.append((FAMILIES[key], value))
    for family, value in found:
        assert isinstance(value, Mapping)
        for host, entry in value.items():
            if isinstance(entry, Mapping):
                yield _documented(family, str(host), entry)
            elif isinstance(entry, list | tuple):
                yield from _groups(entry)
            else:
                raise ConfigError(f"broker {host!r}: {{'port', 'weight'}} belong here")


def _documented(family: Family, host: str, entry: Mapping[str, object]) -> Broker:
    unknown = set(entry) - _ENTRY_KEYS
    if unknown:
        raise ConfigError(
            f"broker {host!r}: unknown {sorted(map(str, unknown))}; known: {sorted(_ENTRY_KEYS)}"
        )
    scheme = str(entry.get("scheme", "mqtt"))
    port = entry.get("port", DEFAULT_PORTS.get(scheme))
    weight = entry.get("weight", 1.0)
    if not isinstance(port, int) or not isinstance(weight, int | float):
        raise ConfigError(f"broker {host!r}: port and weight are numbers")
    broker = Broker(
        host,
        port,
        scheme,
        _text(entry.get("user", entry.get("username"))),
        _text(entry.get("password")),
        _text(entry.get("path")) or DEFAULT_PATH,
        float(weight),
        frozenset((family,)),
    )
    if broker.families != {family}:
        raise ConfigError(f"broker {host!r} stands under IPv{family:d} but is an address of the other family")
    return broker


def _groups(groups: Iterable[object]) -> Iterator[Broker]:
    """aionetiface's nested lists; entries that share a DNS name over both families become one broker."""
    for group in groups:
        for entry in group if isinstance(group, list | tuple) else (group,):
            if not isinstance(entry, Mapping) or "ip" not in entry:
                raise ConfigError("servers=: an entry of aionetiface's list has at least 'ip' and 'port'")
            score, port = entry.get("score", 1.0), entry.get("port", 1883)
            if not isinstance(score, int | float) or not isinstance(port, int):
                raise ConfigError(f"broker {entry['ip']!r}: port and score are numbers")
            if score < MIN_SCORE:
                continue
            ip = Broker(str(entry["ip"]), port)  # canonical, and its family
            names = entry.get("fqns") or ()
            host = min(map(str, names)) if isinstance(names, list | tuple) and names else ip.host
            yield Broker(
                host,
                port,
                username=_text(entry.get("user")),
                password=_text(entry.get("password")),
                families=ip.families,
                addresses=(ip.host,),
            )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _public_list() -> Mapping[object, object]:
    try:
        distribution = importlib.metadata.distribution("aionetiface")
        text = Path(str(distribution.locate_file("aionetiface/servers.json"))).read_text("utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise ConfigError(
            "the list of public brokers is the one of aionetiface, which is not installed: "
            "pip install 'warpgate-core[aionetiface]', or name your brokers"
        ) from error
    brokers = json.loads(text).get("MQTT")
    if not isinstance(brokers, dict):
        raise ConfigError("aionetiface's server list has no part MQTT; name your brokers instead")
    return brokers
