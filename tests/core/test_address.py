"""The bytes of an address: one encoding for each value, and a typed error for everything else."""

from __future__ import annotations

import dataclasses
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.address_strategies import addresses, public_key
from warpgate_core.address import (
    MAX_EXTENSIONS,
    MAX_HINTS,
    MAX_INTERFACES,
    MAX_SIZE,
    BrokerHint,
    InterfaceAddress,
    NodeAddress,
)
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import AddressError, InputError
from warpgate_core.identity import Identity
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile

KEY = public_key(7)
CONE = NatProfile(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED)
SEQUENTIAL = NatProfile(Mapping.APDM, Filtering.APDF, Allocation.SEQUENTIAL, step=1)
IP4 = InterfaceAddress(
    0, Endpoint("192.168.1.5", 40001), Endpoint("203.0.113.7", 40001), CONE, Endpoint("203.0.113.7", 40001)
)
IP6 = InterfaceAddress(
    0,
    Endpoint("2001:db8:aaaa:bbbb:cccc:dddd:eeee:5", 40001),
    Endpoint("2001:db8:aaaa:bbbb:cccc:dddd:eeee:5", 40001),
    NatProfile(Mapping.NONE, Filtering.APDF),
    Endpoint("2001:db8:aaaa:bbbb:cccc:dddd:eeee:5", 40001),
)
HINTS = tuple(BrokerHint(f"198.51.100.{number}", 1883) for number in (1, 2, 3))
USUAL = NodeAddress(KEY, (IP4, IP6), HINTS)


def _seal(body: bytes) -> bytes:
    """A body with the checksum that belongs to it, so that only its structure can be at fault."""
    return body + zlib.crc32(body).to_bytes(4, "big")


def _refused(data: bytes, says: str | None = None) -> None:
    with pytest.raises(AddressError, match=says):
        NodeAddress.decode(data)


# Round trips


@settings(max_examples=150, deadline=None)
@given(addresses)
def test_every_value_comes_back(address: NodeAddress) -> None:
    data = address.encode()
    again = NodeAddress.decode(data)
    assert again == address
    assert hash(again) == hash(address)
    assert again.encode() == data
    assert len(data) <= MAX_SIZE
    assert NodeAddress.parse(data) == NodeAddress.parse(str(address)) == NodeAddress.parse(address) == address


@settings(max_examples=50, deadline=None)
@given(addresses, addresses)
def test_different_values_have_different_bytes(one: NodeAddress, other: NodeAddress) -> None:
    assert (one == other) is (one.encode() == other.encode()) is (str(one) == str(other))


@settings(max_examples=500, deadline=None)
@given(addresses, st.data())
def test_whatever_is_accepted_is_canonical(address: NodeAddress, data: st.DataObject) -> None:
    """Any bytes changed, checksum made good: refused, or the one encoding of what they say."""
    body = bytearray(address.encode()[:-4])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    sealed = _seal(bytes(body))
    try:
        accepted = NodeAddress.decode(sealed)
    except AddressError:
        return
    assert accepted.encode() == sealed
    assert NodeAddress.decode(accepted.encode()) == accepted


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_a_valid_head_with_any_rest(rest: bytes) -> None:
    sealed = _seal(b"\1" + rest[:2] + KEY + rest[2:])
    try:
        accepted = NodeAddress.decode(sealed)
    except AddressError:
        return
    assert accepted.encode() == sealed


# Damage


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=1100))
def test_random_bytes_only_ever_give_the_typed_error(data: bytes) -> None:
    for bad in (data, b"\1" + data, _seal(b"\1" + data)):
        with pytest.raises(AddressError) as caught:
            NodeAddress.decode(bad)
        assert isinstance(caught.value, InputError)


@settings(max_examples=60, deadline=None)
@given(addresses, st.data())
def test_truncation_flips_and_additions(address: NodeAddress, data: st.DataObject) -> None:
    good = address.encode()
    _refused(good[: data.draw(st.integers(0, len(good) - 1))])
    _refused(good + data.draw(st.binary(min_size=1, max_size=8)))
    at = data.draw(st.integers(0, len(good) - 1))
    _refused(good[:at] + bytes((good[at] ^ 1 << data.draw(st.integers(0, 7)),)) + good[at + 1 :])


def test_every_truncation_every_flip_and_every_added_byte() -> None:
    good = USUAL.encode()
    for count in range(len(good)):
        _refused(good[:count], "empty|too short|bytes; it takes")
        if count < len(good) - 4:
            _refused(_seal(good[:count]))  # even with a checksum that is right
    for at in range(len(good)):
        for bit in range(8):
            _refused(good[:at] + bytes((good[at] ^ 1 << bit,)) + good[at + 1 :])
    for byte in range(256):
        _refused(good + bytes((byte,)))
        _refused(_seal(good[:-4] + bytes((byte,))), "too many")


def test_every_other_version_is_refused_by_name() -> None:
    good = USUAL.encode()
    for version in set(range(256)) - {1}:
        _refused(bytes((version,)) + good[1:], f"version {version}, .*upgrade")
        _refused(_seal(bytes((version,)) + good[1:-4]), f"version {version}, .*upgrade")


def test_the_error_tells_a_missing_end_from_a_change() -> None:
    good = USUAL.encode()
    _refused(good[:-1], "too short.*copy the address again")
    _refused(good[:60], "too short")
    _refused(good[:45] + bytes((good[45] ^ 1,)) + good[46:], "changed or lost.*copy the address again")


# What is refused although its checksum is right


def _interface(flags: int, behaviour: int, rest: str) -> bytes:
    return _seal(b"\1" + (1 << 11).to_bytes(2, "big") + KEY + flags.to_bytes(2, "big") + bytes((behaviour,))
                 + bytes.fromhex(rest))  # fmt: skip


INTERNAL = "c0a80105 9c41"


def test_the_hand_made_interface_is_read() -> None:
    address = NodeAddress.decode(_interface(0b0_0001_10_011_00_0000, 0x59, INTERNAL + "cb007107 c350"))
    assert address.interfaces == (
        InterfaceAddress(
            1,
            Endpoint("192.168.1.5", 40001),
            Endpoint("203.0.113.7", 40001),
            CONE,
            Endpoint("203.0.113.7", 50000),
        ),
    )


@pytest.mark.parametrize(
    ("flags", "behaviour", "rest", "says"),
    [
        (0b0_0000_11_000_00_0000, 0, INTERNAL * 2, "canonical"),  # external written out, though equal
        (0b0_0000_11_000_00_0000, 0, INTERNAL + "cb007107 9c41", "canonical"),  # port kept, though written
        (0b0_0000_10_000_00_0000, 0, INTERNAL + "c0a80105", "canonical"),  # host written, though equal
        (0b0_0000_01_010_00_0000, 0, INTERNAL, "canonical"),  # TCP as external, which is internal
        (0b0_0000_01_011_00_0000, 0, INTERNAL + "9c41", "canonical"),  # TCP port written, though equal
        (
            0b0_0000_01_100_00_0000,
            0,
            INTERNAL + "c0a80105 1234",
            "canonical",
        ),  # TCP host written, though equal
        (0b0_0000_00_100_00_0000, 0, INTERNAL * 2, "canonical"),  # TCP written out, though internal
        (0b0_0000_00_000_00_0001, 0, INTERNAL, "canonical"),  # reserved bits
        (0b0_0000_00_000_00_1000, 0, INTERNAL, "canonical"),
        (0b0_0000_00_000_10_0000, 0, "00" + INTERNAL, "canonical"),  # a step of zero, written
        (0b0_0000_00_010_00_0000, 0, INTERNAL, "not defined"),  # as external, which is unknown
        (0b0_0000_00_011_00_0000, 0, INTERNAL + "1234", "not defined"),
        (0b0_0000_00_101_00_0000, 0, INTERNAL, "not defined"),
        (0b0_0000_00_111_00_0000, 0, INTERNAL, "not defined"),
        (0b0_0000_00_000_01_0000, 0, "ffff 0002" + INTERNAL, "port block"),
        (0b0_0000_00_000_01_0000, 0, "0400 0000" + INTERNAL, "port block"),
        (0, 0b101_00_000, INTERNAL, "unknown"),
        (0, 0b111_00_000, INTERNAL, "unknown"),
        (0, 0b000_00_101, INTERNAL, "unknown"),
        (0, 0, "c0a80105 0000", "port 0"),
        (0, 0, "00000000 0001", "one machine"),
        (0, 0, "e0000001 0001", "one machine"),
        (1 << 15, 0, "00" * 16 + "0001", "one machine"),
        (1 << 15, 0, "00" * 10 + "ffff c0a80105 0001", "IPv4 address in IPv6 form"),
        (1 << 15, 0, "ff02" + "00" * 13 + "01 0001", "one machine"),
        (0, 0, INTERNAL + "00", "too many"),
    ],
)
def test_interfaces_that_are_refused(flags: int, behaviour: int, rest: str, says: str) -> None:
    _refused(_interface(flags, behaviour, rest), says)


def _hint(content: bytes) -> bytes:
    return _seal(b"\1" + (1 << 7).to_bytes(2, "big") + KEY + content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x00\xc6\x33\x64\x01\x07\x5b", "canonical"),  # port 1883 written out
        (b"\x09\xc6\x33\x64\x01", "canonical"),  # reserved bits
        (b"\x0c\xc6\x33\x64\x01", "canonical"),
        (b"\x30\xc6\x33\x64\x01\x00\x01", "kind of host"),
        (b"\x00\xc6\x33\x64\x01\x00\x00", "port 0"),
        (b"\x08\x00\x00\x00\x00", "one machine"),
        (b"\x28\x00", "no host name"),
        (b"\x28\x0b198.51.100.", "no host name"),
        (b"\x28\x0c198.51.100.1", "canonical"),  # an address as a name
        (b"\x28\x03A.b", "no host name"),
        (b"\x28\x02\xc3\xa4", "no host name"),
        (b"\x28\x04a..b", "no host name"),
        (b"\x28\x02a.", "no host name"),
        (b"\x28\x02-a", "no host name"),
        (b"\x28\x40" + b"a" * 64, "no host name"),
        (b"\x28\xfe" + b"a.b." * 63 + b"ab", "no host name"),
        (b"\x28\x05127.1", "numeric"),
        (b"\x28\x0a0x7f000001", "numeric"),
    ],
)
def test_hints_that_are_refused(content: bytes, says: str) -> None:
    _refused(_hint(content), says)


def test_a_public_key_off_the_curve_is_refused() -> None:
    good = NodeAddress(KEY).encode()
    for key in (bytes(33), b"\2" + b"\xff" * 32, b"\4" + KEY[1:], b"\2" + (5).to_bytes(32, "big")):
        _refused(_seal(good[:3] + key), "public key")
        with pytest.raises(AddressError, match="public key"):
            NodeAddress(key)
    with pytest.raises(AddressError, match="33 bytes"):
        NodeAddress(KEY[:-1])


def test_counts_are_bounded() -> None:
    for counts in (17 << 11, 31 << 11, 9 << 7, 15 << 7, 17 << 2, 31 << 2):
        _refused(_seal(b"\1" + counts.to_bytes(2, "big") + KEY + bytes(200)), "than there may be")
    for reserved in (1, 2, 3):
        _refused(_seal(b"\1" + reserved.to_bytes(2, "big") + KEY), "canonical")
    full = NodeAddress(
        KEY,
        (IP4,) * MAX_INTERFACES,
        HINTS[:1] * MAX_HINTS,
        tuple((number, b"") for number in range(MAX_EXTENSIONS)),
    )
    assert NodeAddress.decode(full.encode()) == full
    for name, item in (("interfaces", IP4), ("hints", HINTS[0]), ("extensions", (255, b""))):
        more: Any = (*getattr(full, name), item)
        with pytest.raises(AddressError, match=f"up to .*not {len(more)}"):
            dataclasses.replace(full, **{name: more})


def test_the_whole_is_bounded() -> None:
    room = MAX_SIZE - len(NodeAddress(KEY, extensions=((1, b""),)).encode())
    largest = NodeAddress(KEY, extensions=((1, bytes(room)),))
    assert len(largest.encode()) == MAX_SIZE
    assert NodeAddress.parse(str(largest)) == largest
    for size in (room + 1, 70_000):
        with pytest.raises(AddressError, match="bytes"):
            NodeAddress(KEY, extensions=((1, bytes(size)),))
    body = b"\1" + (1 << 2).to_bytes(2, "big") + KEY + b"\1" + (room + 1).to_bytes(2, "big") + bytes(room + 1)
    _refused(_seal(body), "it takes 40 to 1024")


def test_extensions_are_kept_and_ordered() -> None:
    extensions = ((0, b"\0"), (7, b"later"), (255, b""))
    address = NodeAddress(KEY, (IP4,), HINTS, extensions)
    older = NodeAddress.decode(address.encode())
    assert older.extensions == extensions
    assert dataclasses.replace(older, interfaces=(IP6,)).extensions == extensions
    for bad in (((7, b""), (0, b"")), ((7, b"x"), (7, b"y")), ((256, b""),), ((-1, b""),)):
        with pytest.raises(AddressError, match="ascend"):
            NodeAddress(KEY, extensions=bad)
    counts = (2 << 2).to_bytes(2, "big")
    _refused(_seal(b"\1" + counts + KEY + b"\5\0\0" + b"\4\0\0"), "ascend")


# Size


def test_one_card_with_both_families_and_three_brokers() -> None:
    assert len(USUAL.encode()) == 89
    assert len(NodeAddress(KEY).encode()) == 40


def test_the_same_with_nothing_equal_stays_within_140_bytes() -> None:
    hard = NodeAddress(
        KEY,
        (
            InterfaceAddress(
                0,
                Endpoint("192.168.1.5", 40001),
                Endpoint("203.0.113.7", 51000),
                SEQUENTIAL,
                Endpoint("203.0.113.7", 40002),
            ),
            InterfaceAddress(
                0,
                Endpoint("fd00::5", 40001),
                Endpoint("2001:db8::5", 51000),
                SEQUENTIAL,
                Endpoint("2001:db8::5", 40002),
            ),
        ),
        tuple(BrokerHint(f"198.51.100.{number}", 1884) for number in (1, 2, 3)),
    )
    assert len(hard.encode()) == 121
    chunk = NatProfile(Mapping.APDM, Filtering.APDF, Allocation.CHUNKED, chunk=(1024, 512))
    harder = dataclasses.replace(
        hard, interfaces=tuple(dataclasses.replace(entry, nat=chunk) for entry in hard.interfaces)
    )
    assert len(harder.encode()) == 127


# Values


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("example.org", "not a numeric"),
        ("", "not a numeric"),
        ("fe80::1%eth0", "scope"),
        ("2001:DB8::1", "write '2001:db8::1'"),
        ("2001:db8:0::1", "write '2001:db8::1'"),
        ("010.0.0.1", "not a numeric"),
        ("::ffff:192.0.2.1", "write 192.0.2.1"),
        ("0.0.0.0", "one machine"),
        ("::", "one machine"),
        ("224.0.0.1", "one machine"),
        ("ff02::1", "one machine"),
    ],
)
def test_hosts_that_cannot_be_published(host: str, says: str) -> None:
    with pytest.raises(AddressError, match=says):
        InterfaceAddress(0, Endpoint(host, 1))
    for name in ("external", "tcp_external"):
        change: Any = {name: Endpoint(host, 1)}
        with pytest.raises(AddressError, match=says):
            dataclasses.replace(IP4 if ":" not in host else IP6, **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nic": -1}, "network card"),
        ({"nic": 16}, "network card"),
        ({"internal": Endpoint("10.0.0.1", 0)}, "1 to 65535"),
        ({"external": Endpoint("10.0.0.1", 65536)}, "1 to 65535"),
        ({"tcp_external": Endpoint("10.0.0.1", -1)}, "1 to 65535"),
        ({"internal": None}, "must be an Endpoint"),
        ({"internal": ("10.0.0.1", 5)}, "must be an Endpoint"),
        ({"external": Endpoint("2001:db8::1", 5)}, "another family"),
        ({"tcp_external": Endpoint("2001:db8::1", 5)}, "another family"),
        ({"nat": NatProfile(step=128)}, "step"),
        ({"nat": NatProfile(step=-129)}, "step"),
        ({"nat": NatProfile(chunk=(65535, 2))}, "block"),
        ({"nat": NatProfile(chunk=(-1, 2))}, "block"),
        ({"nat": NatProfile(chunk=(0, 0))}, "block"),
        ({"nat": NatProfile(chunk=(0, 65536))}, "block"),
    ],
)
def test_interfaces_check_themselves(change: dict[str, Any], says: str) -> None:
    with pytest.raises(AddressError, match=says):
        dataclasses.replace(IP4, **change)


def test_loopback_and_link_local_are_addresses_too() -> None:
    for host, family in (("127.0.0.1", Family.IP4), ("::1", Family.IP6), ("fe80::1", Family.IP6)):
        entry = InterfaceAddress(0, Endpoint(host, 1))
        assert entry.family is family
        assert NodeAddress.decode(NodeAddress(KEY, (entry,)).encode()).interfaces == (entry,)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("h.example", 1, "http"), "scheme 'http' is none of mqtt, mqtts, ws, wss"),
        (("h.example", 0), "1 to 65535"),
        (("h.example", 70000), "1 to 65535"),
        (("", 1), "no host name"),
        (("h.example.", 1), "no host name"),
        (("H.example", 1), "no host name"),
        (("bücher.example", 1), "xn--"),
        (("user:secret@h.example", 1), "numeric"),
        (("h/example", 1), "no host name"),
        (("[2001:db8::1]", 1), "numeric"),
        (("fe80::1%2", 1), "scope"),
        (("2130706433", 1), "numeric"),
        ((None, 1), "is text"),
    ],
)
def test_hints_check_themselves(arguments: Any, says: str) -> None:
    with pytest.raises(AddressError, match=says):
        BrokerHint(*arguments)


def test_hints_as_text() -> None:
    assert str(BrokerHint("h.example", 1883)) == "mqtt://h.example:1883"
    assert str(BrokerHint("2001:db8::1", 443, "wss")) == "wss://[2001:db8::1]:443"
    assert BrokerHint("localhost", 1).host == "localhost"
    assert not BrokerHint("a1.x0", 1).is_numeric


def test_an_address_is_a_frozen_value() -> None:
    address = NodeAddress(KEY, [IP4], [HINTS[0]])  # type: ignore[arg-type] # lists become tuples
    assert address.interfaces == (IP4,)
    assert address == NodeAddress(bytearray(KEY), (IP4,), (HINTS[0],))  # type: ignore[arg-type]
    assert {address: 1}[NodeAddress.decode(address.encode())] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.hints = ()  # type: ignore[misc]
    changed = dataclasses.replace(address, hints=())
    assert changed.encode() != address.encode()
    assert NodeAddress.decode(changed.encode()) == changed
    assert address.encode().hex() not in repr(address)


def test_parse_takes_every_form_and_nothing_else() -> None:
    data = USUAL.encode()
    for form in (USUAL, data, bytearray(data), memoryview(data), str(USUAL)):
        assert NodeAddress.parse(form) == USUAL  # type: ignore[arg-type]
    for bad in (None, 7, [data], object()):
        with pytest.raises(AddressError, match="NodeAddress, bytes or text"):
            NodeAddress.parse(bad)  # type: ignore[arg-type]


def test_the_id_is_the_identitys() -> None:
    identity = Identity.generate()
    assert NodeAddress(identity.public_key).node_id == identity.node_id


def test_hostile_input_takes_no_time() -> None:
    """Ten megabytes, and the largest that is read at all: a second is some thousand times what it takes."""
    hostile: list[bytes | str] = [
        bytes(10_000_000),
        b"\1" * 10_000_000,
        _seal(b"\1\xff\xfc" + KEY + bytes(980)),
        _seal(b"\1" + (16 << 11).to_bytes(2, "big") + KEY + b"\xff" * 980),
        "wg1" + "a" * 10_000_000,
        "wg1" + "a" * 6000,
        "\u200b" * 6500,
        "<" * 6500,
        "wg1" + "a" * 1600 + ">" * 4000,
    ]
    for one in hostile:
        started = time.perf_counter()
        with pytest.raises(AddressError):
            NodeAddress.parse(one)
        assert time.perf_counter() - started < 1.0
