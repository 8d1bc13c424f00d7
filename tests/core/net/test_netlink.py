"""What the kernel says, and that damaged messages harm nobody."""

from __future__ import annotations

import random
import socket
import struct
import sys

import pytest

from warpgate_core.net import netlink

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="netlink exists on Linux only")

# RTM_NEWADDR bodies as this kernel sends them: family, prefix, flags, scope, index, attributes.
ADDRESS4 = bytes.fromhex(
    "02188000 04000000"  # AF_INET, /24, IFA_F_PERMANENT, index 4
    "08000100 c0000202"  # IFA_ADDRESS 192.0.2.2
    "08000200 c0000202"  # IFA_LOCAL
    "09000300 65746830 00000000"  # IFA_LABEL eth0
    "08000800 80000000"  # IFA_FLAGS
)
POINT_TO_POINT = bytes.fromhex("02208000 05000000 08000100 0a000001 08000200 0a000002")
LINK = struct.pack("=BxHiII", 0, 1, 7, 0x11043, 0) + bytes.fromhex(
    "0a000300 646f636b 30000000"  # IFLA_IFNAME "dock0"
    "10001280 0b000100 62726964 67650000"  # IFLA_LINKINFO {IFLA_INFO_KIND "bridge"}, nested bit set
)


def route(family: int, dst_len: int, kind: int = 1, *, flags: int = 0, attributes: bytes = b"") -> bytes:
    return struct.pack("=BBBBBBBBI", family, dst_len, 0, 0, 254, 3, 0, kind, flags) + attributes


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def test_snapshot_agrees_with_what_ip_prints() -> None:
    now = netlink.snapshot()
    names = {link.name: link.index for link in now.links}
    assert names["lo"] == socket.if_nametoindex("lo")
    assert netlink.LinkAddress(names["lo"], "127.0.0.1", 8, 0x80) in now.addresses
    assert all(route.index in names.values() for route in now.routes)


def test_an_address_is_read() -> None:
    assert netlink.parse_address(ADDRESS4) == netlink.LinkAddress(4, "192.0.2.2", 24, 0x80)


def test_on_a_point_to_point_link_our_own_end_is_taken() -> None:
    address = netlink.parse_address(POINT_TO_POINT)
    assert address is not None
    assert address.host == "10.0.0.2"


def test_a_bridge_is_recognised() -> None:
    assert netlink.parse_link(LINK) == netlink.Link(7, "dock0", 0x11043, "bridge")


def test_only_live_default_routes_count() -> None:
    out, gateway, metric = (
        attribute(4, struct.pack("=I", 3)),
        attribute(5, bytes([192, 0, 2, 1])),
        attribute(6, struct.pack("=I", 600)),
    )
    found = list(netlink.parse_default_route(route(2, 0, attributes=out + gateway + metric)))
    assert found == [netlink.DefaultRoute(3, "192.0.2.1", 600, 4)]
    assert not list(netlink.parse_default_route(route(2, 24, attributes=out)))
    assert not list(netlink.parse_default_route(route(2, 0, 6, attributes=out))), "a blackhole"
    assert not list(netlink.parse_default_route(route(2, 0, flags=0x1, attributes=out))), "a dead one"
    assert not list(netlink.parse_default_route(route(7, 0, attributes=out))), "not IP"


def test_each_live_hop_of_a_multipath_route_counts() -> None:
    def hop(flags: int, index: int, host: int) -> bytes:
        gateway = attribute(5, bytes([192, 0, 2, host]))
        return struct.pack("=HBBi", 8 + len(gateway), flags, 0, index) + gateway

    hops = attribute(9, hop(0, 3, 1) + hop(0x10, 4, 2) + hop(0, 5, 3))
    found = list(netlink.parse_default_route(route(2, 0, attributes=hops)))
    assert [(way.index, way.gateway) for way in found] == [(3, "192.0.2.1"), (5, "192.0.2.3")]


def test_an_ipv4_route_by_an_ipv6_router() -> None:
    via = attribute(18, struct.pack("=H", 10) + bytes.fromhex("fe80" + "00" * 13 + "01"))
    (way,) = netlink.parse_default_route(route(2, 0, attributes=attribute(4, struct.pack("=I", 3)) + via))
    assert way.gateway == "fe80::1"


@pytest.mark.parametrize("parse", [netlink.parse_link, netlink.parse_address, netlink.parse_default_route])
@pytest.mark.parametrize("body", [ADDRESS4, LINK, POINT_TO_POINT])
def test_truncated_and_flipped_messages_raise_nothing(parse: object, body: bytes) -> None:
    assert callable(parse)
    chance = random.Random(5)
    for length in range(len(body)):
        for data in (body[:length], bytes(body[:length]) + chance.randbytes(len(body) - length)):
            outcome = parse(data)
            if parse is netlink.parse_default_route:
                assert len(list(outcome)) <= 1
            elif outcome is not None:
                assert outcome.index >= 0


def test_splitting_stops_at_a_truncated_message() -> None:
    whole = struct.pack("=IHHII", 16 + 5, 20, 0, 0, 0) + b"abcde\0\0\0"
    two = whole + struct.pack("=IHHII", 18, 24, 0, 0, 0) + b"xy"
    assert list(netlink.split_messages(two)) == [(20, b"abcde"), (24, b"xy")]
    for length in range(len(two)):
        assert all(kind in (20, 24) for kind, _ in netlink.split_messages(two[:length]))
    assert list(netlink.split_messages(bytes(64))) == [], "a length of zero must not loop"
