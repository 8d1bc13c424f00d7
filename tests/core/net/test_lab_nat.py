"""NAT behaviour discovery behind real NATs (nftables), with a real coturn on two addresses outside."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.core.net.coturn import HAVE_COTURN, coturn
from tests.core.net.edges import running
from tests.core.net.netns import cable, inside, ip, namespaces, nft
from warpgate_core.endpoint import IP4, IP6, Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not HAVE_COTURN, reason="coturn is not installed: apt-get install coturn"),
]

OUTSIDE = "203.0.113.9"
SERVERS = ("203.0.113.20", "203.0.113.21")
HOST = "192.168.7.2"


@pytest.fixture
def world() -> Iterator[tuple[str, str, str]]:
    """host (this thread lives there) -- router -- servers."""
    with namespaces("host", "router", "net") as (host, router, net):
        cable(host, "eth0", router, "lan")
        cable(router, "wan", net, "eth0")
        ip(host, f"addr add {HOST}/24 dev eth0", "route add default via 192.168.7.1")
        ip(router, "addr add 192.168.7.1/24 dev lan", f"addr add {OUTSIDE}/24 dev wan")
        ip(net, *(f"addr add {server}/24 dev eth0" for server in SERVERS))
        ip(router, "addr add 2001:db8:7::1/64 dev lan nodad", "addr add 2001:db8:9::9/64 dev wan nodad")
        ip(host, "addr add 2001:db8:7::2/64 dev eth0 nodad", "route add default via 2001:db8:7::1")
        ip(
            net,
            "addr add 2001:db8:9::20/64 dev eth0 nodad",
            "addr add 2001:db8:9::21/64 dev eth0 nodad",
            "route add default via 2001:db8:9::9",
        )
        forward(router)
        with inside(host):
            yield host, router, net


def nat(postrouting: str, prerouting: str = "", *, extra: str = "") -> str:
    """A router that translates what leaves by `wan`; unwanted packets from outside vanish."""
    return f"""
        table ip nat {{
            {extra}
            chain post {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname "wan" meta l4proto tcp masquerade
                oifname "wan" meta l4proto udp {postrouting}
            }}
            chain pre {{
                type nat hook prerouting priority dstnat; policy accept;
                {prerouting}
            }}
        }}
        table ip filter {{
            chain forward {{
                type filter hook forward priority filter; policy accept;
                iifname "wan" ct state new ct status & dnat != dnat drop
            }}
            chain input {{
                type filter hook input priority filter; policy accept;
                iifname "wan" ct state new drop
            }}
        }}
    """


# Ports in sequence: the counter picks from a map, because as a port it would be read byte-swapped.
COUNTER = ", ".join(f"{number} : {40_000 + 2 * number}" for number in range(200))
SEQUENTIAL = f"snat ip to {OUTSIDE} : numgen inc mod 200 map {{ {COUNTER} }}"
SEEN = "set seen { type ipv4_addr; flags dynamic; timeout 1m; }"
TO_HOST = f'iifname "wan" udp dport 1024-65535 dnat to {HOST}'

CASES = {
    "port-restricted cone": (
        nat("masquerade"),
        NatProfile(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED),
    ),
    "full cone": (
        nat("masquerade", TO_HOST),
        NatProfile(Mapping.EIM, Filtering.EIF, Allocation.PRESERVED),
    ),
    "address-restricted cone": (
        nat(
            "update @seen { ip daddr } masquerade",
            f'iifname "wan" ip saddr @seen udp dport 1024-65535 dnat to {HOST}',
            extra=SEEN,
        ),
        NatProfile(Mapping.EIM, Filtering.ADF, Allocation.PRESERVED),
    ),
    "symmetric (random ports)": (
        nat("masquerade fully-random"),
        NatProfile(Mapping.APDM, Filtering.APDF, Allocation.RANDOM),
    ),
    "symmetric (sequential ports, step 2)": (
        nat(SEQUENTIAL),
        NatProfile(Mapping.APDM, Filtering.APDF, Allocation.SEQUENTIAL, 2),
    ),
    "symmetric (random ports in a block)": (
        nat(f"snat ip to {OUTSIDE}:20480-21503 fully-random"),
        NatProfile(Mapping.APDM, Filtering.APDF, Allocation.CHUNKED),
    ),
}


@asynccontextmanager
async def servers(net: str, folder: Path, hosts: tuple[str, ...] = SERVERS) -> AsyncIterator[str]:
    """coturn outside; yields how it is configured."""
    prefix = ("ip", "netns", "exec", net)
    async with coturn(folder, hosts, ports=(3478, 3479), prefix=prefix) as server:
        yield str(server)


@pytest.mark.parametrize("name", CASES)
async def test_the_nat_is_recognised(world: tuple[str, str, str], tmp_path: Path, name: str) -> None:
    rules, expected = CASES[name]
    nft(world[1], rules)
    async with servers(world[2], tmp_path) as server, running(nics=None, stun=[server]) as watched:
        face = await watched.profiled()
        notes = watched.edge.diagnosis(face.internal).notes
        assert face.external is not None, notes
        assert face.external.host == OUTSIDE
        found = face.nat
        if expected.allocation is Allocation.CHUNKED:
            assert found.chunk is not None, notes
            first, size = found.chunk
            assert first < 21_504
            assert first + size > 20_480
            assert size <= 2_048
            found = NatProfile(found.mapping, found.filtering, found.allocation)
        assert found == expected, notes
        assert face.nat.label == name
        if face.nat.is_predictable:
            assert face.external.port == face.internal.port


async def test_address_dependent_mapping(world: tuple[str, str, str], tmp_path: Path) -> None:
    """A range of ports per destination address: conntrack keeps the port while the range allows it."""
    per_address = (
        f"ip daddr {SERVERS[0]} snat ip to {OUTSIDE}:30000-34999\n"
        f'oifname "wan" meta l4proto udp ip daddr {SERVERS[1]} snat ip to {OUTSIDE}:50000-54999'
    )
    nft(world[1], nat(per_address))
    async with servers(world[2], tmp_path) as server, running(nics=None, stun=[server]) as watched:
        face = await watched.profiled()
        assert (face.nat.mapping, face.nat.filtering) == (Mapping.ADM, Filtering.APDF)
        assert face.external is not None
        assert face.external.port in range(30_000, 35_000)


async def test_no_nat_is_told_from_one(world: tuple[str, str, str], tmp_path: Path) -> None:
    ip(world[2], "route add default via 203.0.113.9")
    async with servers(world[2], tmp_path) as server, running(nics=None, stun=[server]) as watched:
        face = await watched.profiled()
        assert face.nat == NatProfile(Mapping.NONE, Filtering.EIF, Allocation.PRESERVED)
        assert face.nat.label == "open"
        assert face.tcp_external == face.internal == face.external


async def test_a_firewall_without_nat_over_ipv6(world: tuple[str, str, str], tmp_path: Path) -> None:
    nft(
        world[1],
        """table ip6 filter { chain forward { type filter hook forward priority filter; policy accept;
           iifname "wan" ct state new drop
        }
        }""",
    )
    hosts = ("2001:db8:9::20", "2001:db8:9::21")
    async with (
        servers(world[2], tmp_path, hosts) as server,
        running(nics=None, families=[IP6], stun=[server]) as watched,
    ):
        face = await watched.profiled()
        assert face.nat == NatProfile(Mapping.NONE, Filtering.APDF, Allocation.PRESERVED)
        assert face.nat.label == "firewall, no NAT"


async def test_tcp_is_mapped_from_the_listeners_port(world: tuple[str, str, str], tmp_path: Path) -> None:
    nft(world[1], nat("masquerade fully-random"))
    async with servers(world[2], tmp_path) as server, running(nics=None, stun=[server]) as watched:
        internal = watched.face.internal
        for _ in range(2):
            async with asyncio.timeout(10), watched.edge.tcp_mapping(internal) as mapping:
                assert mapping.external == Endpoint(OUTSIDE, internal.port), (
                    "TCP keeps its port on this router"
                )


async def test_a_router_that_restarts_is_noticed(world: tuple[str, str, str], tmp_path: Path) -> None:
    """New rules and an empty connection table: the mapping is another, and so is the NAT."""
    nft(world[1], nat("masquerade"))
    async with (
        servers(world[2], tmp_path) as server,
        running(nics=None, stun=[server], keepalive=1) as watched,
    ):
        face = await watched.profiled()
        assert face.nat.mapping is Mapping.EIM
        nft(world[1], "flush ruleset\n" + nat(f"snat ip to {OUTSIDE}:61000-61999 fully-random"))
        with inside(world[1]):
            flush_conntrack()
        await watched.until(lambda: watched.face.nat.mapping is Mapping.APDM)
        assert watched.face.external is not None
        assert watched.face.external.port in range(61_000, 62_000)


async def test_two_ways_out_are_two_nats(tmp_path: Path) -> None:
    """The routing table prefers the first card, yet the second one's socket leaves by the second."""
    async with AsyncExitStack() as stack:
        host, one, two, net = stack.enter_context(namespaces("host", "one", "two", "net"))
        for number, router in ((1, one), (2, two)):
            cable(host, f"eth{number}", router, "lan")
            cable(router, "wan", net, f"wan{number}")
            ip(router, f"addr add 192.168.{number}.1/24 dev lan", f"addr add 10.0.{number}.9/24 dev wan")
            ip(router, f"route add 203.0.113.0/24 via 10.0.{number}.1")
            ip(net, f"addr add 10.0.{number}.1/24 dev wan{number}")
            ip(host, f"addr add 192.168.{number}.2/24 dev eth{number}")
            ip(host, f"route add default via 192.168.{number}.1 dev eth{number} metric {number}00")
            nft(router, nat("masquerade"))
            forward(router)
        ip(net, *(f"addr add {server}/32 dev lo" for server in SERVERS))
        stack.enter_context(inside(host))
        server = await stack.enter_async_context(servers(net, tmp_path))
        watched = await stack.enter_async_context(running(nics=None, families=[IP4], stun=[server]))
        async with asyncio.timeout(20):
            await watched.edge.ready_nat.wait()
        first, second = watched.edge.interfaces
        assert (first.name, second.name) == ("eth1", "eth2")
        assert (first.nic, second.nic) == (0, 1)
        assert first.external == Endpoint("10.0.1.9", first.internal.port)
        assert second.external == Endpoint("10.0.2.9", second.internal.port)
        assert first.nat == second.nat == NatProfile(Mapping.EIM, Filtering.APDF, Allocation.PRESERVED)
        async with watched.edge.tcp_mapping(second.internal) as mapping:
            assert mapping.external.host == "10.0.2.9"


def forward(router: str) -> None:
    """Make a namespace a router."""
    with inside(router):
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path(f"/proc/sys/net/{path}").write_text("1")


def flush_conntrack() -> None:
    """Forget all connections of the namespace we are in: what a router does when it restarts."""
    netfilter, delete = 12, 1 << 8 | 2  # NETLINK_NETFILTER; NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHIIBBH", 20, delete, 5, 1, 0, socket.AF_UNSPEC, 0, 0))
        (number,) = struct.unpack_from("=i", sock.recv(4096), 16)
        assert number == 0, f"the connections were not forgotten: {-number}"
