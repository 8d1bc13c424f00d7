"""What can be set about the strategy, and what a node remembers from one attempt to the next.

A node makes one options object per plugin, so the memory hangs there and nothing is global.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from warpgate_core import ConfigError, TurnServer
from warpgate_turn.credentials import Login, hmac_login, static_login
from warpgate_turn.doors import Door, doors_of
from warpgate_turn.rest import fetch_login

__all__ = ["MAX_SERVERS", "Memory", "TurnOptions"]

MAX_SERVERS = 8  # as the core: one relay is enough, more servers are for when it is down
REFRESH = 240.0  # s; permissions last 300 (RFC 8656 section 9): a minute for what gets lost
REMEMBERED = 600.0  # s; RFC 6555 section 4.2 flushes what it remembers of networks every ten minutes
LIFETIME = 600  # s; RFC 8656 section 3.2
RENEW_AT = 0.8  # of a login's lifetime, so that nothing is begun with one about to run out


class Memory:
    """What one node knows of its servers from before: logins, round trips, which door served last."""

    def __init__(self) -> None:
        self._last: tuple[Door, float] | None = None
        self.round_trips: dict[Door, float] = {}
        self._logins: dict[TurnServer, tuple[Login, float]] = {}
        self._fetches: dict[TurnServer, asyncio.Lock] = {}
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<Memory of {len(self.round_trips)} doors>"

    @property
    def nearest(self) -> float:
        """The shortest round trip known, in seconds; infinite if none is."""
        return min(self.round_trips.values(), default=math.inf)

    def last(self, now: float) -> Door | None:
        """The door that served last, unless that is long ago: networks change, and UDP may be back."""
        return self._last[0] if self._last is not None and now - self._last[1] < REMEMBERED else None

    def served(self, door: Door, now: float) -> None:
        """This door gave a relay, at this time of the event loop."""
        self._last = door, now

    def answered(self, door: Door, round_trip: float) -> None:
        """A server's first answer took so long."""
        self.round_trips[door] = round_trip

    async def login(self, server: TurnServer, ca_file: str, now: Callable[[], float] = time.time) -> Login:
        """User name and password; asked of a web service once for as long as they last.

        Raises:
            NetworkError: the web service gave none.
        """
        if server.credential_type == "static":
            return static_login(server)
        if server.credential_type == "hmac":
            return hmac_login(server, now())
        async with self._fetches.setdefault(server, asyncio.Lock()):
            known = self._logins.get(server)
            if known is not None and now() < known[1]:
                return known[0]
            start = now()
            login = await fetch_login(server, start, lambda: self.tls(ca_file))
            expires = login.expires if login.expires is not None else start
            self._logins[server] = login, start + RENEW_AT * (expires - start)
            return login

    def refused(self, server: TurnServer) -> None:
        """The server did not take the login: ask for a new one the next time."""
        self._logins.pop(server, None)

    async def tls(self, ca_file: str) -> ssl.SSLContext:
        """The context for ``turns:`` and https; made once, in a thread, since it reads some 150 files.

        Raises:
            ConfigError: `ca_file` cannot be read.
        """
        if self._tls is None:
            try:
                self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"ca_file {ca_file!r} cannot be used: {error}") from error
        return self._tls


@dataclass(frozen=True)
class TurnOptions:
    """Options of `Turn`.

    Args:
        servers: URLs or `TurnServer`; left out: the node's own (`NodeConfig.turn`, `WARPGATE_TURN`).
        ca_file: PEM file of who signs the certificates of ``turns:`` servers and credential services;
            empty: whom the system trusts.
        refresh: seconds between refreshes of permissions and channels, which last 300 at the server.
        lifetime: seconds to ask for when allocating and refreshing; the server may give less.

    Attributes:
        doors: every way to a server.
        memory: what the node remembers.
    """

    servers: tuple[str | TurnServer, ...] = field(default=(), repr=False, metadata={"setting": "turn"})
    ca_file: str = ""
    refresh: float = REFRESH
    lifetime: int = LIFETIME
    doors: tuple[Door, ...] = field(init=False, repr=False, compare=False)
    memory: Memory = field(init=False, repr=False, compare=False, default_factory=Memory)

    def __post_init__(self) -> None:
        servers = tuple(
            dict.fromkeys(one if isinstance(one, TurnServer) else TurnServer(one) for one in self.servers)
        )
        if len(servers) > MAX_SERVERS:
            raise ConfigError(f"{len(servers)} servers are too many; {MAX_SERVERS} at most, one is enough")
        if not 0 < self.refresh < 300:
            raise ConfigError(f"refresh must be below the 300 s that a permission lasts, not {self.refresh}")
        if not 1 <= self.lifetime <= 3_600:  # what coturn gives at most
            raise ConfigError(f"lifetime must be 1 to 3600 s, not {self.lifetime}")
        object.__setattr__(self, "servers", servers)
        object.__setattr__(self, "doors", doors_of(servers))
