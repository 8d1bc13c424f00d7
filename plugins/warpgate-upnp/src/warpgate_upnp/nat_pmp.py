"""NAT-PMP (RFC 6886): eight to sixteen bytes per packet, IPv4 only. Sans-I/O: bytes to values and back."""

from __future__ import annotations

import enum
import socket
import struct
from dataclasses import dataclass

from warpgate_core import ProtocolError

__all__ = ["PORT", "PublicAddress", "Result", "TransportMapping", "ask_address", "ask_mapping", "parse"]

PORT = 5351  # section 3.1
VERSION = 0
_RESPONSE = 0x80
_OPCODES = {"udp": 1, "tcp": 2}  # section 3.3
_NAMES = {number: name for name, number in _OPCODES.items()}
_HEADER = struct.Struct("!BBHI")
_MAPPING = struct.Struct("!BBHIHHI")
_REQUEST = struct.Struct("!BBxxHHI")


class Result(enum.IntEnum):
    """Section 3.5."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5

    @property
    def saying(self) -> str:
        """For people."""
        return {
            Result.NOT_AUTHORIZED: "its owner does not allow it",
            Result.NETWORK_FAILURE: "it is not connected to the internet itself",
            Result.OUT_OF_RESOURCES: "it has no room for further mappings",
        }.get(self, "it does not understand")


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """Answer to `ask_address`, or an announcement (section 3.2).

    Args:
        result: as a number, since a server may have its own.
        epoch: seconds since its table was empty.
        host: external address, "" with an error.
    """

    result: int
    epoch: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class TransportMapping:
    """Answer to `ask_mapping` (section 3.3).

    Args:
        result: see `Result`.
        epoch: seconds since its table was empty.
        transport: "udp" or "tcp".
        internal_port, external_port: of the mapping; 0 with an error.
        lifetime: seconds that it lives.
    """

    result: int
    epoch: int
    transport: str
    internal_port: int = 0
    external_port: int = 0
    lifetime: int = 0


def ask_address() -> bytes:
    """What is your external address? (section 3.2)"""
    return bytes((VERSION, 0))


def ask_mapping(transport: str, internal_port: int, external_port: int, lifetime: int) -> bytes:
    """Map a port; `lifetime` 0 (with `external_port` 0) takes it back (sections 3.3 and 3.4)."""
    return _REQUEST.pack(VERSION, _OPCODES[transport], internal_port, external_port, lifetime)


def parse(data: bytes) -> PublicAddress | TransportMapping:
    """Read an answer.

    Raises:
        ProtocolError: it is none.
    """
    if len(data) < _HEADER.size or data[0] != VERSION or not data[1] & _RESPONSE:
        raise ProtocolError(f"no NAT-PMP answer: {data[:16].hex()}")
    _, code, result, epoch = _HEADER.unpack_from(data)
    code &= ~_RESPONSE
    if code == 0:
        if result != Result.SUCCESS:
            return PublicAddress(result, epoch)
        if len(data) != _HEADER.size + 4:
            raise ProtocolError(f"a NAT-PMP answer of {len(data)} bytes")
        return PublicAddress(result, epoch, socket.inet_ntoa(data[_HEADER.size :]))
    if code not in _NAMES:
        raise ProtocolError(f"NAT-PMP opcode {code} does not exist")
    if result != Result.SUCCESS:
        return TransportMapping(result, epoch, _NAMES[code])
    if len(data) != _MAPPING.size:
        raise ProtocolError(f"a NAT-PMP answer of {len(data)} bytes")
    _, _, _, _, internal, external, lifetime = _MAPPING.unpack(data)
    return TransportMapping(result, epoch, _NAMES[code], internal, external, lifetime)
