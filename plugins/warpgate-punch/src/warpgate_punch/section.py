"""What `punch-tcp` says to its peer: the TCP endpoints from which this node dials. Pure.

::

    version 4 bits | flags 4 bits | count 1 | count x (family 1 | address 4 or 16 | port 2)

Version is 1. Flag bit 0: more may follow, because a STUN server is still being asked. The same layout
serves the section and the messages that follow; each adds to what was said before. All numbers are
big-endian. A value has one encoding and a reader insists on it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from warpgate_core import Endpoint, ProtocolError

__all__ = ["MAX_ENDPOINTS", "Section"]

MAX_ENDPOINTS = 8  # two cards with both families are four, and a further port; each is dialled from each card
VERSION = 1
MORE = 1
_WIDTH = {4: 4, 6: 16}  # family to bytes of an address


@dataclass(frozen=True, slots=True)
class Section:
    """One section or message.

    Args:
        endpoints: where this node's connections come from, as far as it knows; at most `MAX_ENDPOINTS`.
        more: others may follow.
    """

    endpoints: tuple[Endpoint, ...] = ()
    more: bool = False

    @classmethod
    def of(cls, endpoints: Iterable[Endpoint], *, more: bool = False) -> Section:
        """The endpoints that can be told: each once, with a port, without link-local ones."""
        told = dict.fromkeys(e for e in endpoints if e.port and "%" not in e.host)
        return cls(tuple(told)[:MAX_ENDPOINTS], more)

    def encode(self) -> bytes:
        """As bytes."""
        parts = [struct.pack("!BB", VERSION << 4 | (MORE if self.more else 0), len(self.endpoints))]
        for endpoint in self.endpoints:
            packed = ipaddress.ip_address(endpoint.host).packed
            parts.append(struct.pack("!B", endpoint.family) + packed + struct.pack("!H", endpoint.port))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Section:
        """Read what a peer has sent.

        Raises:
            ProtocolError: it is anything but that.
        """
        if len(data) < 2 or data[0] >> 4 != VERSION or data[0] & ~MORE & 0xF or data[1] > MAX_ENDPOINTS:
            raise ProtocolError("the peer's punch-tcp section is of another version, or damaged")
        rest = data[2:]
        endpoints: list[Endpoint] = []
        for _ in range(data[1]):
            width = _WIDTH.get(rest[0]) if rest else None
            if width is None or len(rest) < width + 3:
                raise ProtocolError("the peer's punch-tcp section ends early, or names an unknown family")
            host = str(ipaddress.ip_address(rest[1 : 1 + width]))
            (port,) = struct.unpack("!H", rest[1 + width : 3 + width])
            endpoints.append(Endpoint(host, port))
            rest = rest[3 + width :]
        if rest or not all(endpoint.port for endpoint in endpoints):
            raise ProtocolError("the peer's punch-tcp section has a port 0, or bytes behind its end")
        if len(set(endpoints)) < len(endpoints):
            raise ProtocolError("the peer's punch-tcp section names an endpoint twice")
        return cls(tuple(endpoints), bool(data[0] & MORE))
