"""Everything that can be set about a node, checked before anything is opened.

A `NodeConfig` is complete once it is made: what was not given is taken from the environment at that
moment, and every text is read, so that a mistake shows where it was made and not in the middle of a
connection. Each error names the field or the variable, the value (without passwords), and what to write.

The syntax of brokers, STUN servers and network cards belongs to those who use it (`signal.servers`,
`net.stun_server`, `net.selection`) and is only called here. Rejected: reading a configuration file (the
application has one already), and a settings library (pydantic costs 130 ms of import).
"""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from warpgate_core.endpoint import Family
from warpgate_core.errors import ConfigError, IdentityError
from warpgate_core.identity import BACKENDS, Identity, check_public_key, default_home
from warpgate_core.net.ntp import DEFAULT_SERVERS as NTP_POOL
from warpgate_core.net.selection import read_wishes
from warpgate_core.net.stun_server import StunServer, read_servers
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.servers import parse_servers
from warpgate_core.turn_server import TurnServer, read_turn_servers

__all__ = ["ENVIRONMENT", "Limits", "NodeConfig", "TurnServer"]

_LOG = logging.getLogger("warpgate.config")

Accept = Collection[object] | Callable[[bytes], bool] | None

ENVIRONMENT: Final = {
    "brokers": "WARPGATE_BROKERS",
    "stun": "WARPGATE_STUN",
    "turn": "WARPGATE_TURN",
    "disable": "WARPGATE_DISABLE",
    "home": "WARPGATE_HOME",
}
"""Which variable stands for which field that was not given. All but the last are comma-separated."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers and peers can make a node hold and do at once.

    What one stream or one queue of datagrams may buffer is fixed: see `warpgate_core.net.stream`
    and `warpgate_core.pipe.datagram`.

    Args:
        max_sessions: sessions under way, in both roles.
        max_sessions_per_peer: of these, with one peer; several, because both may dial at once and retry.
        max_backlog: pipes that peers opened and the program has not accepted yet; 128, as listen(2) long had.
        silent_refusals: True: who is refused gets no answer at all, and learns only by a timeout.

    Raises:
        ConfigError: a limit is not a whole number above 0.
    """

    max_sessions: int = 256
    max_sessions_per_peer: int = 8
    max_backlog: int = 128
    silent_refusals: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "silent_refusals":
                if not isinstance(value, bool):
                    raise ConfigError(f"Limits.silent_refusals is True or False, not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"Limits.{item.name} is a whole number from 1, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Settings of a node. A field left out (None) is taken from the environment, else has its default.

    Args:
        identity: who the node is: an `Identity`, or a key object that `Identity.of` understands. None:
            the one stored in `home`, made at the first start.
        home: directory of identity and caches; `WARPGATE_HOME`, else the user's data directory.
        brokers: MQTT brokers for signalling: URLs, the dictionary of `Router`'s ``servers=``, or "public";
            `WARPGATE_BROKERS`, else none (direct connections work without).
        stun: STUN servers, "host", "host:port" or "stun:host:port"; `WARPGATE_STUN`, else none.
        turn: TURN servers as URL or `TurnServer`; `WARPGATE_TURN`, else none. Used by warpgate-turn.
        nics: network cards by name or address, or aionetiface objects. None: those with a way out.
        port: UDP and TCP port, 0 to 65,535; 0: any that is free.
        families: address families to use. None: both.
        disable: plugins that are not used nor imported; `WARPGATE_DISABLE`, else none.
        options: per plugin name, a dict of its options.
        accept: who may open a pipe to this node. None: everybody who proves a key; a collection of public
            keys (33 bytes, or 66 hex characters); or a function of the key that says True.
        patience: seconds that a relay waits for a direct path that may still come; 0: not at all.
        timeout: seconds until a connection attempt is given up.
        limits: see `Limits`.
        ntp: servers to take the time from, for a clock that is off; "pool" stands for the public pool. Empty:
            the system's clock.
        backend: library that signs: "cryptography", "ecdsa" or "coincurve".

    Raises:
        ConfigError: a field, or the variable it was taken from, cannot be used.
    """

    identity: Identity | object | None = None
    home: str | os.PathLike[str] | None = None
    brokers: Sequence[str | Broker] | Mapping[Any, Any] | str | None = None
    stun: Sequence[str | StunServer] | str | None = None
    turn: Sequence[str | TurnServer] | str | None = None
    nics: object = None
    port: int = 0
    families: Collection[Family | int] | None = None
    disable: Collection[str] | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    accept: Accept = None
    patience: float = 2.5  # a symmetric-NAT probe is through in 1.5 s in the median (DESIGN section 4)
    timeout: float = 20.0  # p99 of that probe is 6 s, three tries; what people wait for a web page at most
    limits: Limits = Limits()
    ntp: Sequence[str] | str = ()
    backend: str = "cryptography"

    def __post_init__(self) -> None:
        self._complete(os.environ)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """A configuration from environment variables, as the command line has it.

        Args:
            environ: the variables; None: the process's own.
            overrides: fields that were given otherwise; None counts as not given.
        """
        made = object.__new__(cls)
        known = {item.name: item for item in fields(cls)}
        for name in overrides:
            if name not in known:
                raise ConfigError(f"NodeConfig has no field {name!r}; it has {', '.join(known)}")
        for name, item in known.items():
            default = item.default_factory() if callable(item.default_factory) else item.default
            given = overrides.get(name)
            object.__setattr__(made, name, default if given is None else given)
        made._complete(os.environ if environ is None else environ)
        return made

    def _complete(self, environ: Mapping[str, str]) -> None:
        """Take what is missing from the environment, and put every field into its final form."""
        readers: dict[str, Callable[[Any], Any]] = {
            "home": _read_home,
            "brokers": parse_servers,
            "stun": read_servers,
            "turn": read_turn_servers,
            "disable": _read_words,
            "nics": read_wishes,
            "families": _read_families,
            "port": _read_port,
            "options": _read_options,
            "accept": _read_accept,
            "patience": _read_patience,
            "timeout": _read_seconds,
            "limits": _read_limits,
            "ntp": _read_ntp,
            "backend": _read_backend,
        }
        for name, read in readers.items():
            value, where = getattr(self, name), f"NodeConfig.{name}"
            if value is None and name in ENVIRONMENT:
                value, where = environ.get(ENVIRONMENT[name], ""), ENVIRONMENT[name]
            try:
                object.__setattr__(self, name, read(value))
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
        if self.identity is not None:
            object.__setattr__(self, "identity", Identity.of(self.identity, self.backend))

    def accepts(self, public_key: bytes) -> bool:
        """Whether this peer may open a pipe to us.

        Args:
            public_key: 33 bytes, proven.
        """
        if self.accept is None:
            return True
        if not callable(self.accept):
            return public_key in self.accept
        try:
            verdict: object = self.accept(public_key)
        except Exception:  # noqa: BLE001 - the application's own function; refusing is the safe side
            _LOG.exception("NodeConfig.accept raised; the peer %s is refused", public_key.hex())
            return False
        if not isinstance(verdict, bool):
            _LOG.error("NodeConfig.accept gave %r, not True or False; the peer is refused", verdict)
            return False
        return verdict


def _read_home(value: object) -> Path:
    if value in (None, ""):
        return default_home()
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"a directory is wanted, not {type(value).__name__}")
    return Path(os.fspath(value)).expanduser().absolute()


def _read_words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Iterable):
        raise ConfigError(f"a list of names is wanted, not {type(value).__name__}")
    words = []
    for word in value:
        if not isinstance(word, str):
            raise ConfigError(f"names are text; {word!r} is not")
        if word.strip():
            words.append(word.strip())
    return tuple(dict.fromkeys(words))


def _read_families(value: object) -> tuple[Family, ...]:
    if value is None:
        return (Family.IP4, Family.IP6)
    try:
        found = tuple(dict.fromkeys(Family(one) for one in value))  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"write (4,), (6,) or (4, 6), not {value!r}") from error
    if not found:
        raise ConfigError("at least one address family is needed; write (4,), (6,) or (4, 6)")
    return found


def _read_port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65_535:
        raise ConfigError(f"a number from 0 (any) to 65535 is wanted, not {value!r}")
    return value


def _read_options(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError("write {'plugin': {'option': value}}")
    for name in value:
        if not isinstance(name, str):
            raise ConfigError(f"keys are names of plugins; {name!r} is not")
    return dict(value)


def _read_seconds(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type,operator]
        raise ConfigError(f"a number of seconds above 0 is wanted, not {value!r}")
    return float(value)  # type: ignore[arg-type]


def _read_patience(value: object) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _read_seconds(value)


def _read_limits(value: object) -> Limits:
    if not isinstance(value, Limits):
        raise ConfigError(f"write Limits(max_sessions=...), not {value!r}")
    return value


def _read_ntp(value: object) -> tuple[str, ...]:
    words = _read_words(value)
    return tuple(dict.fromkeys(s for word in words for s in (NTP_POOL if word == "pool" else (word,))))


def _read_backend(value: object) -> str:
    if value not in BACKENDS:
        raise ConfigError(f"one of {', '.join(BACKENDS)} is wanted, not {value!r}")
    return str(value)


def _read_accept(value: object) -> Accept:
    if value is None:
        return None
    if inspect.iscoroutinefunction(value):
        raise ConfigError("a plain function is wanted: a coroutine is always true and would admit everybody")
    if callable(value):
        return value
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError("write a collection of public keys, a function of the key, or None for everybody")
    return frozenset(_read_key(key) for key in value)


def _read_key(value: object) -> bytes:
    key = getattr(value, "public_key", value)
    if not isinstance(key, str | bytes | bytearray):
        raise ConfigError(f"{type(value).__name__} is no public key; write 33 bytes or 66 hex digits")
    try:
        raw = bytes.fromhex(key) if isinstance(key, str) else bytes(key)
        check_public_key(raw)
    except (IdentityError, ValueError) as error:
        raise ConfigError(f"{key!r} is no public key: {error}") from error
    return raw
