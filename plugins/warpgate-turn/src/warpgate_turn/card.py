"""What the two ends tell each other: whether there is a relay, and where.

The very same bytes serve as section of the offer or answer and as message inside the session, since the
news is the same: an allocation takes two round trips to a server, and the offer does not wait for it.

::

    version 1 | state 1 | relays 1 | mapped 1 | endpoints: family 1, port 2, address 4 or 16 | reason

Each value has one encoding, and a reader insists on it. Rejected: one message kind per piece of news (the
reader then has to cope with every order of them; a card says all there is to know), and sending the
credentials for the peer to allocate with (they never leave the node).
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass

from warpgate_core import IP4, IP6, Endpoint, InputError, ProtocolError

__all__ = ["MAX_ENDPOINTS", "MAX_REASON", "Card", "State"]

VERSION = 1
MAX_REASON = 200
MAX_ENDPOINTS = 4  # of each kind: two families, and one more of each in case a relay is replaced
_HEAD = struct.Struct("!BBBB")
_ENTRY = struct.Struct("!BH")
_SIZES = {4: 4, 6: 16}


class State(enum.IntEnum):
    """How one end is placed for relays."""

    NONE = 0  # has none and will have none: no server is configured, or none works
    STANDBY = 1  # could make one, and thinks the other end's is enough
    COMING = 2  # is making one
    READY = 3  # has one: `Card.relays`


@dataclass(frozen=True, slots=True)
class Card:
    """One end's news.

    Args:
        state: see `State`.
        relays: relayed transport addresses; only, and always, if READY.
        mapped: this end's own reflexive addresses, as its TURN server saw them.
        reason: in NONE, what stood in the way, for the error at the other end: at most `MAX_REASON`
            characters of printable ASCII; empty if there was nothing to try.
    """

    state: State
    relays: tuple[Endpoint, ...] = ()
    mapped: tuple[Endpoint, ...] = ()
    reason: str = ""

    def encode(self) -> bytes:
        """The bytes of it.

        Raises:
            InputError: too many endpoints, or relays in a state that has none.
        """
        if not self._is_sound():
            raise InputError(f"{self!r} makes no sense")
        head = _HEAD.pack(VERSION, self.state, len(self.relays), len(self.mapped))
        packed = b"".join(_pack(endpoint) for endpoint in (*self.relays, *self.mapped))
        return head + packed + self.reason.encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Card:
        """Read what the peer sent: any bytes at all.

        Raises:
            ProtocolError: not a card.
        """
        if len(data) < _HEAD.size:
            raise ProtocolError(f"a TURN card of {len(data)} bytes is too short")
        version, state, relays, mapped = _HEAD.unpack_from(data)
        if version != VERSION:
            raise ProtocolError(f"a TURN card of version {version}; this side knows {VERSION}")
        if state not in tuple(State) or relays > MAX_ENDPOINTS or mapped > MAX_ENDPOINTS:
            raise ProtocolError("a TURN card with an unknown state or too many endpoints")
        at = _HEAD.size
        found: list[Endpoint] = []
        for _ in range(relays + mapped):
            endpoint, at = _unpack(data, at)
            found.append(endpoint)
        reason = data[at:].decode("ascii", "replace")
        card = cls(State(state), tuple(found[:relays]), tuple(found[relays:]), reason)
        if not card._is_sound():
            raise ProtocolError("a TURN card whose parts do not fit together")
        return card

    def _is_sound(self) -> bool:
        return (
            bool(self.relays) == (self.state is State.READY)
            and max(len(self.relays), len(self.mapped)) <= MAX_ENDPOINTS
            and len(self.reason) <= (MAX_REASON if self.state is State.NONE else 0)
            and self.reason.isascii()
            and (self.reason.isprintable() or not self.reason)
        )


def _pack(endpoint: Endpoint) -> bytes:
    return _ENTRY.pack(endpoint.family, endpoint.port) + endpoint.ip.packed


def _unpack(data: bytes, at: int) -> tuple[Endpoint, int]:
    if len(data) < at + _ENTRY.size:
        raise ProtocolError("a TURN card is cut off")
    family, port = _ENTRY.unpack_from(data, at)
    at += _ENTRY.size
    size = _SIZES.get(family)
    if size is None or len(data) < at + size or not port:
        raise ProtocolError("a TURN card with an endpoint that is none")
    ip = (ipaddress.IPv4Address if family == IP4 else ipaddress.IPv6Address)(data[at : at + size])
    if family == IP6 and getattr(ip, "ipv4_mapped", None) is not None:
        raise ProtocolError("a TURN card with an IPv4 address in IPv6 clothes")
    return Endpoint(str(ip), port), at + size
