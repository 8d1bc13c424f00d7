"""UPnP against routers on loopback: found, asked, refused; and devices that set traps."""

from __future__ import annotations

import asyncio
import math
import os
import socket

import pytest
from upnp_servers import (
    EXTERNAL,
    HERE,
    Igd,
    asker,
    datagrams,
    description,
    http_answer,
    streams,
    write_and_end,
)

from warpgate_core import Endpoint, NetworkError
from warpgate_upnp import igd
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.igd_client import IgdClient, PinholeClient, find_igd
from warpgate_upnp.mapping import Lease, Wish

UDP, TCP = (Wish(Endpoint(HERE, 4000), transport) for transport in ("udp", "tcp"))
SIX = Wish(Endpoint("::1", 4000), "udp")


async def find(router: Igd, **more: object) -> object:
    return await find_igd(asker(**more), router.port, multicast=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2])
async def test_map_renew_and_give_back(version: int) -> None:
    async with Igd(version=version).running() as router:
        client = await find(router)
        assert isinstance(client, IgdClient)
        assert router.calls == ["GetExternalIPAddress"], "finding changes nothing"
        udp, tcp = await asyncio.gather(client.lease(UDP, None), client.lease(TCP, None))
        assert udp == Lease("UPnP", Endpoint(EXTERNAL, 4000), 600.0)
        assert router.table["UDP", 4000] == (HERE, 4000, "warpgate test", 600)
        assert ("AddAnyPortMapping" in router.calls) is (version == 2)
        router.external = "25.9.9.9"
        assert (await client.lease(UDP, udp)).external == Endpoint("25.9.9.9", 4000)
        await asyncio.gather(client.release(UDP, udp), client.release(TCP, tcp))
        assert router.table == {}
        with pytest.raises(RefusalError, match="714"):
            await client.release(UDP, udp)
        await client.close()


async def test_ipv6_pinholes() -> None:
    async with Igd("::1").running() as router:
        client = await find_igd(asker("::1", SIX.internal), router.port, multicast=False)
        assert isinstance(client, PinholeClient)
        lease = await client.lease(SIX, None)
        assert lease == Lease("UPnP", SIX.internal, 600.0, 5)
        assert router.pinholes == {5: ("::1", 4000, "17")}
        assert await client.lease(SIX, lease) == lease
        assert router.calls == ["AddPinhole", "UpdatePinhole"]
        router.pinholes.clear()
        router.pinholes[9] = ("another", 1, "6")
        again = await client.lease(SIX, lease)
        assert again.number == 6, "the router had forgotten it"
        other = await client.lease(SIX, Lease("PCP", SIX.internal, 600.0))
        assert other.number == 7, "what PCP made has no number here"
        await client.release(SIX, again)
        assert 6 not in router.pinholes
        await client.close()


async def test_a_router_without_pinholes() -> None:
    async with Igd("::1").running() as router:
        router.document = description((igd.CONNECTIONS[0], "/ctl/wan"))
        with pytest.raises(NetworkError, match="no IPv6 pinholes"):
            await find_igd(asker("::1", SIX.internal), router.port, multicast=False)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_port_that_somebody_has(version: int) -> None:
    async with Igd(version=version).running() as router:
        router.table["UDP", 4000] = ("192.168.1.77", 4000, "other", 0)
        client = await find(router)
        lease = await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert lease.external.port != 4000
        assert router.table["UDP", 4000][0] == "192.168.1.77", "theirs is left alone"
        assert router.table["UDP", lease.external.port][:2] == (HERE, 4000)


async def test_only_leases_without_end() -> None:
    async with Igd(version=1).running() as router:
        router.faults["AddPortMapping"] = [725]
        client = await find(router)
        lease = await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert lease.life == math.inf
        assert router.table["UDP", 4000][3] == 0


async def test_the_same_port_only() -> None:
    async with Igd(version=1).running() as router:
        router.faults["AddPortMapping"] = [724]
        client = await find(router)
        lease = await client.lease(UDP, Lease("UPnP", Endpoint(EXTERNAL, 5555), 600.0))  # type: ignore[attr-defined]
        assert lease.external.port == 4000


async def test_a_router_that_always_refuses_is_asked_a_few_times() -> None:
    async with Igd(version=1).running() as router:
        router.faults["AddPortMapping"] = [718] * 100
        client = await find(router)
        with pytest.raises(RefusalError, match="the port is taken"):
            await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert router.calls.count("AddPortMapping") == 8


async def test_a_renewal_that_is_refused_finds_another_port() -> None:
    async with Igd(version=2).running() as router:
        client = await find(router)
        lease = await client.lease(UDP, None)  # type: ignore[attr-defined]
        router.table["UDP", 4000] = ("192.168.1.77", 4000, "took it after the router's restart", 0)
        again = await client.lease(UDP, lease)  # type: ignore[attr-defined]
        assert again.external.port not in (0, 4000)


async def test_leftovers_of_a_killed_node_are_removed_where_nothing_ends() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind((HERE, 0))
        used = busy.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HERE, 0))
            free = probe.getsockname()[1]
        ours, theirs = "warpgate test", "warpgate another"
        async with Igd(version=1).running() as router:
            router.faults["AddPortMapping"] = [725]
            router.table = {
                ("UDP", free): (HERE, free, ours, 0),
                ("TCP", free): (HERE, free, ours, 0),
                ("UDP", used): (HERE, used, ours, 0),
                ("UDP", 1001): (HERE, free, theirs, 0),
                ("UDP", 1002): (HERE, free, ours, 3_600),
                ("UDP", 1003): ("192.168.1.9", free, ours, 0),
            }
            client = await find(router)
            await client.lease(UDP, None)  # type: ignore[attr-defined]
            assert set(router.table) == {
                ("UDP", used),
                ("UDP", 1001),
                ("UDP", 1002),
                ("UDP", 1003),
                ("UDP", 4000),
            }
            before = router.calls.count("GetGenericPortMappingEntry")
            await client.lease(TCP, Lease("UPnP", Endpoint(EXTERNAL, 4000), math.inf))  # type: ignore[attr-defined]
            assert router.calls.count("GetGenericPortMappingEntry") == before, "once"


async def test_an_endless_table_is_read_in_part() -> None:
    async with Igd(version=1).running() as router:
        router.table = {("UDP", port): ("192.168.1.9", port, "x", 0) for port in range(10_000, 10_200)}
        router.faults["AddPortMapping"] = [725]
        client = await find(router)
        await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert router.calls.count("GetGenericPortMappingEntry") == 64


async def test_the_connection_that_is_up_is_used() -> None:
    async with Igd(version=1).running() as router:
        router.document = description(
            ("urn:schemas-upnp-org:service:WANPPPConnection:1", "/ctl/ppp"),
            ("urn:schemas-upnp-org:service:WANIPConnection:1", "/ctl/ip"),
        )
        router.faults["GetExternalIPAddress"] = [501]
        client = await find(router)
        await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert router.http.requests[-1].startswith(b"POST /ctl/ppp "), "the IP one was down"


@pytest.mark.parametrize("external", ["", "0.0.0.0"])
async def test_a_router_that_is_not_connected(external: str) -> None:
    async with Igd().running() as router:
        router.external = external
        with pytest.raises(NetworkError, match="not connected to the internet"):
            await find(router)


# -- traps -------------------------------------------------------------------------------------------


async def test_a_control_url_on_another_host_is_refused() -> None:
    async with streams(lambda data, writer: write_and_end(writer, http_answer(b"")), "127.0.0.2") as trap:
        for url in (f"http://{trap.endpoint}/ctl", f"//{trap.endpoint}/ctl"):
            async with Igd().running() as router:
                router.document = description((igd.CONNECTIONS[0], url))
                with pytest.raises(NetworkError, match=r"points to another host"):
                    await find(router)
        assert trap.requests == []


async def test_a_location_on_another_host_is_not_even_fetched() -> None:
    async with streams(lambda data, writer: write_and_end(writer, http_answer(b"")), "127.0.0.2") as trap:
        async with Igd().running() as router:
            router.location = f"http://{trap.endpoint}/root.xml"
            with pytest.raises(NetworkError, match="no router answers"):
                await find(router)
        assert trap.requests == []


async def test_a_redirect_is_refused() -> None:
    async with streams(lambda data, writer: write_and_end(writer, http_answer(b""))) as trap:

        async def redirect(data: bytes, writer: asyncio.StreamWriter) -> None:
            await write_and_end(writer, http_answer(b"", "302 Found", Location=f"http://{trap.endpoint}/"))

        async with streams(redirect) as elsewhere, Igd().running() as router:
            router.location = f"http://{elsewhere.endpoint}/root.xml"
            with pytest.raises(NetworkError, match="redirects are not followed"):
                await find(router)
        assert trap.requests == []


BOMB = b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><root>&b;</root>'


@pytest.mark.parametrize(
    "document",
    [BOMB, b"<root>" * 10_000, b"<root>" + b"<x/>" * 20_000 + b"</root>", b"x" * 300_000, b"", b"\0" * 100],
)
async def test_a_hostile_description(document: bytes) -> None:
    async with Igd().running() as router:
        router.document = document
        began = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError):
            await find(router)
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_a_stranger_that_answers_first_does_not_keep_the_router_away() -> None:
    async with Igd("127.0.0.9").running() as stranger, Igd().running() as router:
        router.external = "25.2.2.2"
        assert router.ssdp is not None
        honest = router.ssdp.datagram_received

        def after_the_stranger(data: bytes, addr: tuple[object, ...]) -> None:
            stranger.reply(data, addr)
            honest(data, addr)

        router.ssdp.datagram_received = after_the_stranger  # type: ignore[method-assign]
        client = await find(router)
        lease = await client.lease(UDP, None)  # type: ignore[attr-defined]
        assert lease.external.host == "25.2.2.2"
        assert stranger.http.requests == []


@pytest.mark.parametrize("seen", ["", "25.9.9.9", EXTERNAL])
async def test_who_is_not_the_gateway_is_believed_only_with_proof(seen: str) -> None:
    """The gateway says nothing of itself; another machine on the link says that it is a router."""
    async with Igd("127.0.0.9").running() as other, datagrams(lambda data: []) as gateway:
        gateway.datagram_received = other.reply  # type: ignore[method-assign]
        asked = find_igd(asker(seen=seen), gateway.endpoint.port, multicast=False)
        if seen == EXTERNAL:
            client = await asked
            assert (await client.lease(UDP, None)).external.host == EXTERNAL
        else:
            with pytest.raises(NetworkError, match="not the default gateway"):
                await asked
            assert other.calls == ["GetExternalIPAddress"]


async def test_an_answer_that_leads_nowhere() -> None:
    async with Igd().running() as router:
        router.location = f"http://{HERE}:9/root.xml"
        with pytest.raises(NetworkError, match="cannot be asked over HTTP"):
            await find(router)


async def test_nobody_answers_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with Igd().running() as router:
        assert router.ssdp is not None
        router.ssdp.answer = lambda data: [b"rubbish", b"", b"HTTP/1.1 200 OK\r\n\r\n"]
        with pytest.raises(NetworkError, match="no router answers a UPnP search"):
            await find(router)
        assert len(router.ssdp.received) >= 4, "it was asked more than once"
        task = asyncio.create_task(find(router))
        router.ssdp.got.clear()
        await router.ssdp.got.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_control_server_that_says_nothing() -> None:
    async def silent(data: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with streams(silent) as mute, Igd().running() as router:
        client = await find(router)
        router.document = description((igd.CONNECTIONS[0], f"http://{mute.endpoint}/ctl"))
        with pytest.raises(NetworkError, match="did not answer over HTTP"):
            await find(router)
        assert client is not None
