"""STUN messages: published vectors, and that nothing but `ProtocolError` comes of garbage."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import ProtocolError
from warpgate_core.net.stun import (
    COOKIE,
    HEADER_LENGTH,
    BindingReply,
    encode_request,
    is_stun,
    parse_reply,
    reply_length,
    transaction_of,
)

# RFC 5769 section 2.2: a response over IPv4, with SOFTWARE, integrity and fingerprint.
RFC_5769_IPV4 = bytes.fromhex(
    "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220"
    "00200008 0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7"
    "80280004 c07d4c96"
)
# RFC 5769 section 2.3: over IPv6.
RFC_5769_IPV6 = bytes.fromhex(
    "01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220"
    "00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c"
    "8292c275 bfe3ed41 80280004 c8fb0b4c"
)
TRANSACTION = bytes(range(12))


def reply(**attributes: object) -> bytes:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, TRANSACTION, named))


# What coturn 4.6 answers with two addresses: XOR-MAPPED, MAPPED, RESPONSE-ORIGIN, OTHER-ADDRESS, SOFTWARE.
FULL = reply(
    XOR_MAPPED_ADDRESS=("203.0.113.9", 40_000),
    MAPPED_ADDRESS=("203.0.113.9", 40_000),
    RESPONSE_ORIGIN=("198.51.100.1", 3478),
    OTHER_ADDRESS=("198.51.100.2", 3479),
    SOFTWARE="Coturn-4.6.1",
)


def test_published_vectors() -> None:
    first = parse_reply(RFC_5769_IPV4)
    assert first == BindingReply(Endpoint("192.0.2.1", 32_853), None, "test vector")
    assert parse_reply(RFC_5769_IPV6).mapped == Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32_853)
    assert transaction_of(RFC_5769_IPV4).hex() == "b7e7a701bc34d686fa87dfae"


def test_a_full_answer() -> None:
    assert parse_reply(FULL) == BindingReply(
        Endpoint("203.0.113.9", 40_000), Endpoint("198.51.100.2", 3479), "Coturn-4.6.1"
    )


def test_the_plain_mapped_address_is_second_choice() -> None:
    """Some NATs rewrite addresses that they find in packets; the XORed one escapes them."""
    both = reply(MAPPED_ADDRESS=("10.0.0.1", 1), XOR_MAPPED_ADDRESS=("203.0.113.9", 2))
    assert parse_reply(both).mapped == Endpoint("203.0.113.9", 2)
    assert parse_reply(reply(MAPPED_ADDRESS=("203.0.113.9", 3))).mapped == Endpoint("203.0.113.9", 3)


def test_requests_are_as_the_standard_has_them() -> None:
    assert encode_request(TRANSACTION) == bytes.fromhex("000100002112a442") + TRANSACTION
    changed = encode_request(TRANSACTION, change_ip=True, change_port=True)
    assert changed == bytes.fromhex("000100082112a442") + TRANSACTION + bytes.fromhex("0003000400000006")
    assert encode_request(TRANSACTION, change_port=True)[-4:] == b"\0\0\0\2"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a STUN message"),
        (b"\xe0" + FULL[1:], "not a STUN message"),
        (FULL[:4] + b"\0\0\0\0" + FULL[8:], "not a STUN message"),
        (FULL + bytes(1_500), "not a STUN message"),
        (FULL + b"\0", "damaged"),
        (reply(), "without a mapped address"),
        (reply(XOR_MAPPED_ADDRESS=("203.0.113.9", 0)), "no host can have"),
        (reply(XOR_MAPPED_ADDRESS=("0.0.0.0", 5)), "no host can have"),
        (reply(XOR_MAPPED_ADDRESS=("224.0.0.1", 5)), "no host can have"),
        (encode_request(TRANSACTION), "class REQUEST"),
        (bytes(stun.Message(stun.Method.ALLOCATE, stun.Class.RESPONSE, TRANSACTION)), "ALLOCATE"),
        (
            bytes(
                stun.Message(
                    stun.Method.BINDING, stun.Class.ERROR, TRANSACTION, {"ERROR-CODE": (420, "Unknown")}
                )
            ),
            "error 420: Unknown",
        ),
        (struct.pack("!HHI12s", 0x010F, 0, 0x2112A442, TRANSACTION), "damaged"),
    ],
)
def test_what_is_no_answer(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        parse_reply(data)


@pytest.mark.parametrize("whole", [FULL, RFC_5769_IPV4, RFC_5769_IPV6])
def test_every_truncation_is_refused(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(ProtocolError):
            parse_reply(whole[:length])


def test_a_flip_anywhere_gives_an_answer_or_a_typed_error() -> None:
    chance = random.Random(8489)
    refused = 0
    for _ in range(5_000):
        data = bytearray(chance.choice([FULL, RFC_5769_IPV4, RFC_5769_IPV6]))
        for _ in range(chance.choice([1, 1, 2, 5])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert isinstance(parse_reply(bytes(data)), BindingReply)
        except ProtocolError:
            refused += 1
    assert 2_000 < refused < 5_000


@given(st.binary(max_size=200))
def test_random_attributes_give_an_answer_or_a_typed_error(body: bytes) -> None:
    data = struct.pack("!HH", 0x0101, len(body)) + COOKIE + TRANSACTION + body
    with suppress(ProtocolError):
        assert isinstance(parse_reply(data), BindingReply)


def test_stun_is_told_from_everything_else() -> None:
    assert is_stun(FULL)
    assert is_stun(encode_request(TRANSACTION))
    assert not is_stun(FULL[:19])
    for first in (0x04, 0x16, 0x40, 0x80, 0xE0):
        assert not is_stun(bytes([first]) + FULL[1:])


def test_the_length_on_a_stream() -> None:
    assert reply_length(FULL[:HEADER_LENGTH]) == len(FULL) - HEADER_LENGTH
    with pytest.raises(ProtocolError, match="not STUN"):
        reply_length(b"HTTP/1.1 400 Bad Req")
    for length in (3, 1_484, 65_532):
        with pytest.raises(ProtocolError, match="bytes long"):
            reply_length(struct.pack("!HH", 0x0101, length) + COOKIE + TRANSACTION)
