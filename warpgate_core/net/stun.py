"""STUN binding messages (RFC 8489, RFC 5780): bytes to values and back, nothing else.

aioice's codec does the parsing; this file stands guard around it: whatever comes in, the outcome is a
`BindingReply` or a `ProtocolError`. Rejected: aioice's `Transaction` (it takes an answer from any
source, and waits 500 ms before it tries again), and a codec of our own (theirs is tested and complete).
The codec is imported when the first message is made: importing aioice brings a DNS library along (75 ms).
"""

from __future__ import annotations

import functools
import importlib
import struct
from dataclasses import dataclass
from typing import Any

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import ProtocolError

__all__ = [
    "COOKIE",
    "DEFAULT_PORT",
    "HEADER_LENGTH",
    "MAX_MESSAGE",
    "BindingReply",
    "encode_request",
    "is_stun",
    "load_codec",
    "parse_reply",
    "reply_length",
    "transaction_of",
]

COOKIE = b"\x21\x12\xa4\x42"  # RFC 8489 section 5
HEADER_LENGTH = 20  # RFC 8489 section 5
DEFAULT_PORT = 3478  # RFC 8489 section 18.6
MAX_MESSAGE = 1_500  # bytes; RFC 8489 section 6.1: within the path MTU, so a longer one is no answer
_CHANGE_IP, _CHANGE_PORT = 0x4, 0x2  # RFC 5780 section 7.2


@dataclass(frozen=True, slots=True)
class BindingReply:
    """A success response to a binding request.

    Args:
        mapped: our endpoint as the server saw it.
        other: OTHER-ADDRESS: the server's second address and port; None if it does not do RFC 5780.
        software: what the server calls itself, at most 128 characters, or "".
    """

    mapped: Endpoint
    other: Endpoint | None = None
    software: str = ""


@functools.cache
def load_codec() -> Any:
    """The module `aioice.stun`. Blocks the first time; a node calls it in a thread before it starts."""
    return importlib.import_module("aioice.stun")


def encode_request(transaction: bytes, *, change_ip: bool = False, change_port: bool = False) -> bytes:
    """A binding request.

    Args:
        transaction: 12 random bytes.
        change_ip: ask the server to answer from its other address (CHANGE-REQUEST).
        change_port: ask it to answer from its other port.
    """
    flags = (_CHANGE_IP if change_ip else 0) | (_CHANGE_PORT if change_port else 0)
    stun = load_codec()
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        transaction_id=transaction,
        attributes={"CHANGE-REQUEST": flags} if flags else {},
    )
    return bytes(message)


def is_stun(data: bytes) -> bool:
    """Whether this looks like STUN: first two bits zero and the magic cookie (RFC 7983 section 7)."""
    return len(data) >= HEADER_LENGTH and data[0] < 4 and data[4:8] == COOKIE


def transaction_of(data: bytes) -> bytes:
    """The 12 bytes that tie an answer to its request; of a message for which `is_stun` holds."""
    return data[8:HEADER_LENGTH]


def reply_length(header: bytes) -> int:
    """How many bytes follow this header on a stream (RFC 8489 section 6.2.2: no other framing).

    Args:
        header: the first 20 bytes.

    Raises:
        ProtocolError: not STUN, or longer than any answer to a binding request.
    """
    if not is_stun(header):
        raise ProtocolError("what came back is not STUN: wrong first bits or magic cookie")
    length: int = struct.unpack_from("!H", header, 2)[0]
    if length % 4 or HEADER_LENGTH + length > MAX_MESSAGE:
        raise ProtocolError(f"a STUN answer cannot be {length} bytes long")
    return length


def parse_reply(data: bytes) -> BindingReply:
    """Read the answer to a binding request.

    Args:
        data: one whole message.

    Raises:
        ProtocolError: anything but a success response with a mapped address.
    """
    if len(data) > MAX_MESSAGE or not is_stun(data):
        raise ProtocolError("a datagram that is not a STUN message")
    try:
        stun = load_codec()
        message = stun.parse_message(data)
    except (ValueError, struct.error, IndexError, KeyError) as error:
        raise ProtocolError(f"a damaged STUN message: {error}") from error
    if message.message_method is not stun.Method.BINDING:
        raise ProtocolError(f"a STUN message of method {message.message_method.name}, not BINDING")
    if message.message_class is stun.Class.ERROR:
        code, reason = message.attributes.get("ERROR-CODE", (0, "no reason given"))
        raise ProtocolError(f"the STUN server refused with error {code}: {reason[:128]}")
    if message.message_class is not stun.Class.RESPONSE:
        raise ProtocolError(f"a STUN message of class {message.message_class.name}, not RESPONSE")
    # MAPPED-ADDRESS is what servers older than RFC 5389 send; some NATs rewrite it, so it comes second.
    mapped = message.attributes.get("XOR-MAPPED-ADDRESS") or message.attributes.get("MAPPED-ADDRESS")
    if mapped is None:
        raise ProtocolError("a STUN answer without a mapped address")
    other = message.attributes.get("OTHER-ADDRESS") or message.attributes.get("CHANGED-ADDRESS")
    return BindingReply(
        _usable(mapped, "mapped address"),
        Endpoint(*other) if other and other[1] else None,
        str(message.attributes.get("SOFTWARE", ""))[:128],
    )


def _usable(address: tuple[str, int], what: str) -> Endpoint:
    endpoint = Endpoint(*address)
    ip = endpoint.ip
    if not endpoint.port or ip.is_unspecified or ip.is_multicast:
        raise ProtocolError(f"a STUN answer whose {what} is {endpoint}, which no host can have")
    return endpoint
