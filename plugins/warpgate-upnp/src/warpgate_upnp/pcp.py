"""The Port Control Protocol (RFC 6887), both families: MAP and ANNOUNCE. Sans-I/O: bytes to values and back.

No options are sent: without PREFER_FAILURE the server gives another port when ours is taken, which is just
what we want, and THIRD_PARTY and FILTER are of no use to us. Options in answers are stepped over.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass

from warpgate_core import Family, ProtocolError

__all__ = [
    "ANNOUNCEMENTS",
    "MAX_LIFETIME",
    "NONCE_BYTES",
    "PORT",
    "Answer",
    "Result",
    "ask_announce",
    "ask_map",
    "parse",
]

PORT = 5351  # section 19.1
ANNOUNCEMENTS = {Family.IP4: ("224.0.0.1", 5350), Family.IP6: ("ff02::1", 5350)}  # section 14.1.2
NONCE_BYTES = 12  # section 11.1
MAX_LIFETIME = 86_400  # s; a longer one is to be treated as this (section 15)
VERSION = 2
MAX_BYTES = 1_100  # section 7
_RESPONSE = 0x80
_ANNOUNCE, _MAP = 0, 1
_PROTOCOLS = {"tcp": 6, "udp": 17}  # IANA
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_REQUEST = struct.Struct("!BBHI16s")
_RESPONSE_HEADER = struct.Struct("!BBxBII12x")
_MAP_DATA = struct.Struct("!12sB3xHH16s")
_NONE = {Family.IP4: "0.0.0.0", Family.IP6: "::"}  # noqa: S104 - "any address" in a request, not a socket


class Result(enum.IntEnum):
    """Section 7.4."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13

    @property
    def saying(self) -> str:
        """For people."""
        return {
            Result.NOT_AUTHORIZED: "its owner does not allow it",
            Result.NETWORK_FAILURE: "it is not connected to the internet itself",
            Result.NO_RESOURCES: "it has no room for further mappings",
            Result.USER_EX_QUOTA: "this machine has as many mappings as it may have",
            Result.CANNOT_PROVIDE_EXTERNAL: "it has no such external address or port",
            Result.ADDRESS_MISMATCH: "there is another NAT between this machine and it",
        }.get(self, "it does not understand")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says.

    Args:
        version: 2; 0 and 1 only with `Result.UNSUPP_VERSION`.
        is_map: it is about a mapping; else an announcement.
        result: as a number, since a server may have its own.
        lifetime: seconds: of the mapping, or for which an error is likely to stay.
        epoch: seconds since its table was empty.
        nonce: ties it to its request.
        transport: "udp" or "tcp"; "" if it is not a mapping.
        internal_port, external_port: of the mapping.
        external_host: of the mapping.
    """

    version: int
    is_map: bool
    result: int
    lifetime: int
    epoch: int
    nonce: bytes = b""
    transport: str = ""
    internal_port: int = 0
    external_port: int = 0
    external_host: str = ""


def ask_announce(client: str) -> bytes:
    """Are you there, and what time is it? (section 14.1)

    Args:
        client: own address, the one that it is sent from.
    """
    return _REQUEST.pack(VERSION, _ANNOUNCE, 0, 0, _pack(client))


def ask_map(
    client: str,
    nonce: bytes,
    transport: str,
    internal_port: int,
    lifetime: int,
    external: tuple[str, int] | None = None,
) -> bytes:
    """Map a port, or open it in a firewall (section 11.1); `lifetime` 0 takes it back (section 15.1).

    Args:
        client: own address, the one that it is sent from.
        nonce: 12 bytes, the same as long as the mapping is to be the same.
        transport: "udp" or "tcp".
        internal_port: own.
        lifetime: seconds.
        external: what is wished for; None: any address, and the same port.
    """
    family = Family.IP6 if ":" in client else Family.IP4
    host, port = external if external is not None else (_NONE[family], internal_port)
    header = _REQUEST.pack(VERSION, _MAP, 0, lifetime, _pack(client))
    return header + _MAP_DATA.pack(nonce, _PROTOCOLS[transport], internal_port, port, _pack(host))


def parse(data: bytes) -> Answer:
    """Read an answer or an announcement.

    Raises:
        ProtocolError: it is none.
    """
    if len(data) >= 4 and data[0] < VERSION and data[1] & _RESPONSE:
        # Section 9: an older server, or one of NAT-PMP, whose result is two bytes in the same place.
        if data[3] != Result.UNSUPP_VERSION:
            raise ProtocolError(f"a PCP answer of version {data[0]} with result {data[3]}")
        return Answer(data[0], is_map=False, result=Result.UNSUPP_VERSION, lifetime=0, epoch=0)
    size = _RESPONSE_HEADER.size
    if not size <= len(data) <= MAX_BYTES or len(data) % 4 or data[0] != VERSION or not data[1] & _RESPONSE:
        raise ProtocolError(f"no PCP answer: {data[:24].hex()}")
    _, code, result, lifetime, epoch = _RESPONSE_HEADER.unpack_from(data)
    code &= ~_RESPONSE
    if code == _ANNOUNCE:
        return Answer(VERSION, is_map=False, result=result, lifetime=lifetime, epoch=epoch)
    if code != _MAP or len(data) < size + _MAP_DATA.size:
        raise ProtocolError(f"a PCP answer of {len(data)} bytes with opcode {code}")
    nonce, protocol, internal, external, host = _MAP_DATA.unpack_from(data, size)
    if protocol not in _NAMES:
        raise ProtocolError(f"a PCP mapping of protocol {protocol}")
    return Answer(
        VERSION,
        is_map=True,
        result=result,
        lifetime=lifetime,
        epoch=epoch,
        nonce=nonce,
        transport=_NAMES[protocol],
        internal_port=internal,
        external_port=external,
        external_host=_unpack(host),
    )


def _pack(host: str) -> bytes:
    """Section 5: an IPv4 address goes as an IPv4-mapped IPv6 one."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


def _unpack(packed: bytes) -> str:
    ip = ipaddress.IPv6Address(packed)
    return str(ip.ipv4_mapped or ip)
