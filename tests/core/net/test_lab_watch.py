"""Events from a real kernel, in a namespace of our own: addresses, cards and routes that change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.core.net.edges import running
from tests.core.net.netns import cable, inside, ip, namespaces
from warpgate_core.endpoint import IP4, IP6, Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net.gateway import default_gateways
from warpgate_core.net.interfaces import enumerate_addresses
from warpgate_core.net.system import SystemEdge
from warpgate_core.net.tcp import dial
from warpgate_core.net.watch import AddressWatcher

pytestmark = pytest.mark.lab


@pytest.fixture
def here() -> Iterator[str]:
    """A host with two cards, and this thread in it."""
    with namespaces("host", "far") as (host, far):
        cable(host, "eth0", far, "far0")
        cable(host, "eth1", far, "far1")
        ip(host, "addr add 198.51.100.2/24 dev eth0", "route add default via 198.51.100.1 metric 100")
        with inside(host):
            yield host


class Events:
    """Counts callbacks and lets a test wait for the next."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._event = asyncio.Event()

    def note(self) -> None:
        self.times.append(time.monotonic())
        self._event.set()

    async def next(self) -> float:
        async with asyncio.timeout(10):
            await self._event.wait()
        self._event.clear()
        return self.times[-1]


@pytest.mark.parametrize(
    "change",
    [
        "addr add 198.51.100.9/24 dev eth0",
        "addr del 198.51.100.2/24 dev eth0",
        "addr add 2001:db8::2/64 dev eth0 nodad",
        "link set eth0 down",
        "route add default via 198.51.100.3 metric 50",
        "link add br7 type bridge",
    ],
)
async def test_every_kind_of_change_is_told_soon(here: str, change: str) -> None:
    events = Events()
    watcher = AddressWatcher(events.note)
    watcher.start()
    try:
        assert watcher.uses_events
        begun = time.monotonic()
        ip(here, change)
        assert await events.next() - begun < 1.0
    finally:
        watcher.close()
        watcher.close()


async def test_a_bunch_of_changes_is_told_once_and_quiet_means_quiet(here: str) -> None:
    events = Events()
    watcher = AddressWatcher(events.note, settle=0.5)
    watcher.start()
    try:
        ip(here, *(f"addr add 198.51.100.{last}/24 dev eth0" for last in range(100, 130)))
        await events.next()
        await asyncio.sleep(0.7)  # nothing more may come; there is no event for that
        assert len(events.times) == 1
    finally:
        watcher.close()


async def test_what_is_found_follows(here: str) -> None:
    ip(here, "link add br0 type bridge", "link set br0 up", "addr add 172.17.0.1/16 dev br0")
    ip(here, "link set eth1 down")
    ip(here, "addr add 203.0.113.2/32 peer 203.0.113.1 dev eth1")
    found = {address.host: address for address in enumerate_addresses()}
    assert found["198.51.100.2"].gateway == "198.51.100.1"
    assert found["198.51.100.2"].metric == 100
    assert found["198.51.100.2"].kind == "veth"
    assert found["172.17.0.1"].kind == "bridge"
    assert not found["203.0.113.2"].is_up
    (gateway,) = default_gateways()
    assert (gateway.family, gateway.host, gateway.interface, gateway.metric) == (
        IP4,
        "198.51.100.1",
        "eth0",
        100,
    )


async def test_an_address_still_being_checked_is_used_once_it_is_ours(here: str) -> None:
    """Duplicate address detection takes a second; the end of it is an event of its own."""
    async with running(nics=None, families=[IP4, IP6]) as watched:
        assert [str(face.internal.ip) for face in watched.edge.interfaces] == ["198.51.100.2"]
        ip(here, "addr add 2001:db8::2/64 dev eth0")
        assert not {a.host: a for a in enumerate_addresses()}["2001:db8::2"].is_valid
        await watched.until(lambda: len(watched.edge.interfaces) == 2)
        second = watched.edge.interfaces[1]
        assert second.internal.host == "2001:db8::2"
        assert second.nic == watched.edge.interfaces[0].nic


async def test_the_edge_follows_addresses_cards_and_the_fall_back_to_loopback(here: str) -> None:
    def hosts() -> list[str]:
        return [face.internal.host for face in watched.edge.interfaces]

    async with running(nics=None) as watched:
        assert watched.edge.follows_events
        port = watched.face.internal.port
        ip(here, "addr add 203.0.113.2/24 dev eth1")
        await watched.until(lambda: hosts() == ["198.51.100.2", "203.0.113.2"])
        assert watched.edge.interfaces[1].internal.port == port
        ip(here, "route add default via 203.0.113.1 metric 10")
        await watched.until(lambda: hosts() == ["203.0.113.2", "198.51.100.2"])
        ip(here, "link set eth1 down")
        await watched.until(lambda: hosts() == ["198.51.100.2"])
        ip(here, "addr del 198.51.100.2/24 dev eth0", "addr add 198.51.100.7/24 dev eth0")
        await watched.until(lambda: hosts() == ["198.51.100.7"])
        ip(here, "addr flush dev eth0")
        await watched.until(lambda: hosts() == ["127.0.0.1"])
        ip(here, "addr add 198.51.100.8/24 dev eth0")
        await watched.until(lambda: hosts() == ["198.51.100.8"])
        assert watched.face.internal.port == port


async def test_a_card_asked_for_by_name_may_go_and_come_back(here: str) -> None:
    async with running(nics="eth0") as watched:
        ip(here, "link set eth0 down")
        await watched.until(lambda: not watched.edge.interfaces)
        ip(here, "link set eth0 up")
        await watched.until(lambda: watched.edge.interfaces)
        assert watched.face.internal.host == "198.51.100.2"


async def test_ipv6_link_local_addresses_work_with_their_scope(here: str) -> None:
    ip(here, "addr flush dev eth0 scope global", "link set eth1 down")
    async with running(nics=None, families=[IP6]) as watched:
        await watched.until(lambda: [f.internal.host[:5] for f in watched.edge.interfaces] == ["fe80:"])
        internal = watched.face.internal
        assert "%" in internal.host
        link = await watched.edge.dial(internal, local=internal._replace(port=0))
        assert link.remote == internal
        link.abort()
        await link.wait_closed()


async def test_without_even_a_loopback_there_is_a_clear_error() -> None:
    with namespaces("bare") as (bare,), inside(bare):
        ip(bare, "link set lo down")
        with pytest.raises(NetworkError, match="no usable network address"):
            await SystemEdge().start()


async def test_dialling_without_a_route_says_so(here: str) -> None:
    ip(here, "route del default", "route add blackhole 203.0.113.0/24", "route add prohibit 192.0.2.0/24")
    for host, words in (
        ("8.8.8.8", "no route there"),
        ("203.0.113.1", "no route there"),
        ("192.0.2.1", "forbids it"),
        ("198.51.100.77", "no such host"),
        ("2001:db8::1", "no route there"),
    ):
        with pytest.raises(NetworkError, match=f"^{host}.*{words}|^.{host}.*{words}"):
            await dial(Endpoint(host, 9))
