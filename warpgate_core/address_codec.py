"""The bytes of a node address, version 1. Drawn out byte by byte in docs/protocol.md.

Everything is in network byte order. What equals something else is left out by flags: one card with
IPv4 and IPv6 and three brokers takes some 100 bytes. The form is self-delimiting, so no beginning of
an address is an address, and ends in a CRC-32, which finds every error of up to three bits and every
burst of up to 32 in 1,024 bytes for certain (a hash cut to four bytes: only very probably).
Rejected: CBOR and protobuf (larger, and several encodings of one value), JSON (five times as large).

That each value has one encoding only is enforced by `NodeAddress`, which encodes what was decoded
and compares.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib

from warpgate_core.address_parts import DEFAULT_PORTS, BrokerHint, InterfaceAddress, packed_host
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import AddressError
from warpgate_core.keys.curve import PUBLIC_KEY_SIZE
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile

__all__ = [
    "MAX_EXTENSIONS",
    "MAX_HINTS",
    "MAX_INTERFACES",
    "MAX_SIZE",
    "MIN_SIZE",
    "Parts",
    "decode",
    "encode",
]

VERSION = 1
MAX_SIZE = 1024  # bytes; below every IPv6 minimum MTU (RFC 8200 section 5), and one screen of text
MAX_INTERFACES = 16  # cards times families; more would only cost a peer connection attempts
MAX_HINTS = 8  # a node subscribes at three brokers; room for both families and growth
MAX_EXTENSIONS = 16

_HEAD = struct.Struct("!BH")  # version; interfaces, hints and extensions counted in 5 + 4 + 5 bits, 2 zero
_CRC = struct.Struct("!I")
MIN_SIZE = _HEAD.size + PUBLIC_KEY_SIZE + _CRC.size

Parts = tuple[bytes, tuple[InterfaceAddress, ...], tuple[BrokerHint, ...], tuple[tuple[int, bytes], ...]]
"""Public key, interfaces, hints, extensions."""

# How an external endpoint is written. The lowest that applies is taken.
_NONE, _AS_INTERNAL, _PORT_KEPT, _FULL = 0, 1, 2, 3
_TCP_NONE, _TCP_AS_INTERNAL, _TCP_AS_EXTERNAL, _TCP_HOST_KEPT, _TCP_FULL = 0, 1, 2, 3, 4

_SCHEMES = tuple(DEFAULT_PORTS)
_HOST_IP4, _HOST_IP6, _HOST_NAME = 0, 1, 2


def encode(parts: Parts) -> bytes:
    """The one encoding of these parts.

    Raises:
        AddressError: too many of something, extensions out of order, or more than 1,024 bytes in all.
    """
    public_key, interfaces, hints, extensions = parts
    for what, count, limit in (
        ("interfaces", len(interfaces), MAX_INTERFACES),
        ("broker hints", len(hints), MAX_HINTS),
        ("extensions", len(extensions), MAX_EXTENSIONS),
    ):
        if count > limit:
            raise AddressError(f"an address holds up to {limit} {what}, not {count}")
    counts = len(interfaces) << 11 | len(hints) << 7 | len(extensions) << 2
    pieces = [_HEAD.pack(VERSION, counts), public_key]
    pieces += map(_encode_interface, interfaces)
    pieces += map(_encode_hint, hints)
    pieces += _encode_extensions(extensions)
    body = b"".join(pieces)
    if len(body) + _CRC.size > MAX_SIZE:
        raise AddressError(
            f"this address would take {len(body) + _CRC.size} bytes, of {MAX_SIZE}; publish less in it"
        )
    return body + _CRC.pack(zlib.crc32(body))


def _port(endpoint: Endpoint) -> bytes:
    return endpoint.port.to_bytes(2, "big")


def _full(endpoint: Endpoint) -> bytes:
    return packed_host(endpoint.host) + _port(endpoint)


def _encode_interface(entry: InterfaceAddress) -> bytes:
    """Two bytes of flags, one for the NAT, then what the flags announce."""
    internal, external, tcp, nat = entry.internal, entry.external, entry.tcp_external, entry.nat
    code, mapped = _FULL, b""
    if external is None:
        code = _NONE
    elif external == internal:
        code = _AS_INTERNAL
    elif external.port == internal.port:
        code, mapped = _PORT_KEPT, packed_host(external.host)
    else:
        mapped = _full(external)
    tcp_code, tcp_mapped = _TCP_FULL, b""
    if tcp is None:
        tcp_code = _TCP_NONE
    elif tcp == internal:
        tcp_code = _TCP_AS_INTERNAL
    elif tcp == external:
        tcp_code = _TCP_AS_EXTERNAL
    elif external is not None and tcp.host == external.host:
        tcp_code, tcp_mapped = _TCP_HOST_KEPT, _port(tcp)
    else:
        tcp_mapped = _full(tcp)
    flags = (
        (entry.family is Family.IP6) << 15
        | entry.nic << 11
        | code << 9
        | tcp_code << 6
        | (nat.step != 0) << 5
        | (nat.chunk is not None) << 4
    )
    behaviour = nat.mapping << 5 | nat.filtering << 3 | nat.allocation
    step = struct.pack("!b", nat.step) if nat.step else b""
    chunk = struct.pack("!HH", *nat.chunk) if nat.chunk is not None else b""
    return struct.pack("!HB", flags, behaviour) + step + chunk + _full(internal) + mapped + tcp_mapped


def _encode_hint(hint: BrokerHint) -> bytes:
    """One byte of flags, the host, and the port unless it is the scheme's own."""
    if hint.is_numeric:
        host = packed_host(hint.host)
        kind = _HOST_IP4 if len(host) == 4 else _HOST_IP6
    else:
        kind, host = _HOST_NAME, bytes((len(hint.host),)) + hint.host.encode("ascii")
    usual = hint.port == DEFAULT_PORTS[hint.scheme]
    flags = _SCHEMES.index(hint.scheme) << 6 | kind << 4 | usual << 3
    return bytes((flags,)) + host + (b"" if usual else hint.port.to_bytes(2, "big"))


def _encode_extensions(extensions: tuple[tuple[int, bytes], ...]) -> list[bytes]:
    """Type, length, value; types ascend, so that there is one order only."""
    last = -1
    pieces = []
    for kind, value in extensions:
        if not last < kind <= 0xFF:
            raise AddressError(f"extension type {kind!r} after {last}: types are 0 to 255 and ascend")
        if len(value) > MAX_SIZE:
            raise AddressError(f"extension {kind} has {len(value)} bytes; the whole address has {MAX_SIZE}")
        pieces.append(struct.pack("!BH", kind, len(value)) + value)
        last = kind
    return pieces


class _CutOffError(AddressError):
    """The bytes end before the address does."""


class _Reader:
    """Takes bytes from the front, and knows when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _CutOffError(
                f"the address is too short: it ends after {len(self._data)} bytes, in the middle"
            )
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def endpoint(self, family: Family) -> Endpoint:
        return Endpoint(self.host(family), self.number(2))

    def host(self, family: Family) -> str:
        if family is Family.IP4:
            return str(ipaddress.IPv4Address(self.take(4)))
        return str(ipaddress.IPv6Address(self.take(16)))

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def decode(data: bytes) -> Parts:
    """Read what `encode` wrote. Whether it is the canonical encoding is left to the caller.

    Raises:
        AddressError: too short, too long, of another version, damaged, or not well-formed.
    """
    if not data:
        raise AddressError("the address is empty")
    if data[0] != VERSION:
        raise AddressError(
            f"the address is of version {data[0]}, and this program reads version {VERSION}; "
            "upgrade it, or copy the address again"
        )
    if not MIN_SIZE <= len(data) <= MAX_SIZE:
        raise AddressError(f"the address has {len(data)} bytes; it takes {MIN_SIZE} to {MAX_SIZE}")
    if zlib.crc32(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise AddressError(f"{_damage(data)}; copy the address again")
    reader = _Reader(data)
    parts = _decode_all(reader)
    if reader.left:
        raise AddressError(f"{reader.left} bytes too many after the end of the address")
    return parts


_CHANGED = "the checksum does not match: something in the address was changed or lost"


def _damage(data: bytes) -> str:
    """What the checksum found: the end missing, or something changed."""
    try:
        _decode_all(_Reader(data))
    except _CutOffError as error:
        return str(error)
    except AddressError:
        return _CHANGED
    return _CHANGED


def _decode_all(reader: _Reader) -> Parts:
    _version, counts = _HEAD.unpack(reader.take(_HEAD.size))
    interfaces, hints, extensions = counts >> 11, counts >> 7 & 0xF, counts >> 2 & 0x1F
    if interfaces > MAX_INTERFACES or hints > MAX_HINTS or extensions > MAX_EXTENSIONS:
        raise AddressError("the address announces more interfaces, hints or extensions than there may be")
    parts = (
        reader.take(PUBLIC_KEY_SIZE),
        tuple(_decode_interface(reader) for _ in range(interfaces)),
        tuple(_decode_hint(reader) for _ in range(hints)),
        tuple(_decode_extension(reader) for _ in range(extensions)),
    )
    reader.take(_CRC.size)
    return parts


def _decode_interface(reader: _Reader) -> InterfaceAddress:
    flags, behaviour = struct.unpack("!HB", reader.take(3))
    family = Family.IP6 if flags >> 15 else Family.IP4
    try:
        mapping, filtering, allocation = (
            Mapping(behaviour >> 5),
            Filtering(behaviour >> 3 & 3),
            Allocation(behaviour & 7),
        )
    except ValueError as error:
        raise AddressError(f"the address names a NAT behaviour that is unknown: {error}") from error
    step = struct.unpack("!b", reader.take(1))[0] if flags >> 5 & 1 else 0
    chunk = (reader.number(2), reader.number(2)) if flags >> 4 & 1 else None
    internal = reader.endpoint(family)
    external = _decode_external(reader, flags >> 9 & 3, internal)
    tcp_external = _decode_tcp(reader, flags >> 6 & 7, internal, external)
    nat = NatProfile(mapping, filtering, allocation, step, chunk)
    return InterfaceAddress(flags >> 11 & 0xF, internal, external, nat, tcp_external)


def _decode_external(reader: _Reader, code: int, internal: Endpoint) -> Endpoint | None:
    if code == _NONE:
        return None
    if code == _AS_INTERNAL:
        return internal
    if code == _PORT_KEPT:
        return Endpoint(reader.host(internal.family), internal.port)
    return reader.endpoint(internal.family)


def _decode_tcp(reader: _Reader, code: int, internal: Endpoint, external: Endpoint | None) -> Endpoint | None:
    if code == _TCP_NONE:
        return None
    if code == _TCP_AS_INTERNAL:
        return internal
    if code == _TCP_AS_EXTERNAL and external is not None:
        return external
    if code == _TCP_HOST_KEPT and external is not None:
        return Endpoint(external.host, reader.number(2))
    if code == _TCP_FULL:
        return reader.endpoint(internal.family)
    raise AddressError(f"the address writes a TCP endpoint in a way that is not defined ({code})")


def _decode_hint(reader: _Reader) -> BrokerHint:
    flags = reader.number(1)
    scheme, kind = _SCHEMES[flags >> 6], flags >> 4 & 3
    if kind == _HOST_IP4:
        host = reader.host(Family.IP4)
    elif kind == _HOST_IP6:
        host = reader.host(Family.IP6)
    elif kind == _HOST_NAME:
        host = reader.take(reader.number(1)).decode("latin-1")  # BrokerHint refuses what is not ASCII
    else:
        raise AddressError("the address names a broker by an unknown kind of host")
    port = DEFAULT_PORTS[scheme] if flags >> 3 & 1 else reader.number(2)
    return BrokerHint(host, port, scheme)


def _decode_extension(reader: _Reader) -> tuple[int, bytes]:
    kind, size = struct.unpack("!BH", reader.take(3))
    return kind, reader.take(size)
