"""PCP and NAT-PMP clients against servers that grant, refuse, restart and babble."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from upnp_servers import EXTERNAL, HERE, PortControl, asker, datagrams

from warpgate_core import Endpoint, NetworkError, ProtocolError
from warpgate_upnp.client import Client
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.mapping import Lease, Wish
from warpgate_upnp.port_control import NatPmpClient, PcpClient

UDP, TCP = (Wish(Endpoint(HERE, 4000), transport) for transport in ("udp", "tcp"))
KINDS = [PcpClient, NatPmpClient]


class Signs:
    """Counts how often the router seemed to have forgotten."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def router() -> PortControl:
    return PortControl()


@pytest.mark.parametrize("kind", KINDS)
async def test_map_renew_and_give_back(kind: type[PcpClient | NatPmpClient], router: PortControl) -> None:
    signs = Signs()
    async with datagrams(router.answer) as server:
        client: Client = await kind.find(asker(), signs, server.endpoint.port)
        assert router.table == {}, "finding changes nothing"
        udp, tcp = await asyncio.gather(client.lease(UDP, None), client.lease(TCP, None))
        assert set(router.table) == {("udp", 4000), ("tcp", 4000)}
        assert udp == Lease(kind.protocol, Endpoint(EXTERNAL, 4000), 600.0)
        router.shift = 7  # the router gives another port on renewal
        again = await client.lease(UDP, udp)
        assert again.external == Endpoint(EXTERNAL, 4007)
        await asyncio.gather(client.release(UDP, again), client.release(TCP, tcp))
        assert router.table == {}
        assert signs.count == 0
        await client.close()
    assert {bool(data[0]) for data in server.received} == {kind is PcpClient}


@pytest.mark.parametrize("kind", KINDS)
async def test_loss_and_rubbish(kind: type[PcpClient | NatPmpClient], router: PortControl) -> None:
    router.garbage = [b"", b"\2", b"\0\x80", b"\2\x81" + bytes(70), b"x" * 1_200, bytes(60)]
    router.drop = 2
    async with datagrams(router.answer) as server:
        client = await kind.find(asker(), Signs(), server.endpoint.port)
        router.drop = 2
        assert (await client.lease(UDP, None)).external == Endpoint(EXTERNAL, 4000)
        await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_shows_in_any_answer(
    kind: type[PcpClient | NatPmpClient], router: PortControl
) -> None:
    signs = Signs()
    router.epoch = 5_000
    async with datagrams(router.answer) as server:
        client = await kind.find(asker(), signs, server.endpoint.port)
        lease = await client.lease(UDP, None)
        assert signs.count == 0
        router.epoch = 3
        await client.lease(UDP, lease)
        assert signs.count == 1
        await client.lease(UDP, lease)
        assert signs.count == 1
        await client.close()


@pytest.mark.parametrize(
    ("kind", "number"), [(PcpClient, 2), (PcpClient, 8), (PcpClient, 200), (NatPmpClient, 2)]
)
async def test_a_refusal_is_said_with_its_reason(
    kind: type[PcpClient | NatPmpClient], number: int, router: PortControl
) -> None:
    async with datagrams(router.answer) as server:
        client = await kind.find(asker(), Signs(), server.endpoint.port)
        router.result = number
        with pytest.raises(RefusalError, match=f"by {kind.protocol}") as caught:
            await client.lease(UDP, None)
        assert caught.value.code == number
        if kind is PcpClient:
            assert caught.value.retry_after == 600.0
        with pytest.raises(NetworkError):
            await kind.find(asker(), Signs(), server.endpoint.port)
        await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_of_the_other_kind(kind: type[PcpClient | NatPmpClient], router: PortControl) -> None:
    router.speaks = {0} if kind is PcpClient else {2}
    async with datagrams(router.answer) as server:
        began = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError):
            await kind.find(asker(), Signs(), server.endpoint.port)
        if kind is PcpClient:  # a PCP server answers NAT-PMP in its own version, which means nothing to it
            assert asyncio.get_running_loop().time() - began < 0.05


@pytest.mark.parametrize("kind", KINDS)
async def test_no_server(kind: type[PcpClient | NatPmpClient]) -> None:
    async with datagrams(lambda data: []) as server:
        with pytest.raises(NetworkError, match="does not answer"):
            await kind.find(asker(), Signs(), server.endpoint.port)
    with pytest.raises(NetworkError, match="cannot be asked"):
        await kind.find(asker(), Signs(), server.endpoint.port)


async def test_another_nonce_is_another_mapping(router: PortControl) -> None:
    async with datagrams(
        lambda data: [router.answer(data)[0][:24] + bytes(12) + router.answer(data)[0][36:]]
    ) as s:
        client = await PcpClient.find(asker(), Signs(), s.endpoint.port)
        with pytest.raises(NetworkError, match="does not answer"):
            await client.lease(UDP, None)
        await client.close()


@pytest.mark.parametrize("external", ["2001:db8::1", "224.0.0.1"])
async def test_an_external_address_that_cannot_be(external: str, router: PortControl) -> None:
    router.external = external
    async with datagrams(router.answer) as server:
        client = await PcpClient.find(asker(), Signs(), server.endpoint.port)
        with pytest.raises(ProtocolError):
            await client.lease(UDP, None)
        await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_no_port_is_no_mapping(kind: type[PcpClient | NatPmpClient], router: PortControl) -> None:
    router.shift = -4000
    async with datagrams(router.answer) as server:
        client = await kind.find(asker(), Signs(), server.endpoint.port)
        with pytest.raises(ProtocolError, match="without lifetime or port"):
            await client.lease(UDP, None)
        await client.close()


async def test_a_life_of_years_is_a_day(router: PortControl) -> None:
    async with datagrams(router.answer) as server:
        made = dataclasses.replace(asker(), lease=10**8)
        client = await PcpClient.find(made, Signs(), server.endpoint.port)
        assert (await client.lease(UDP, None)).life == 86_400.0
        await client.close()


async def test_pcp_opens_ipv6_firewalls(router: PortControl) -> None:
    router.external = "::1"
    async with datagrams(router.answer, "::1") as server:
        six = asker("::1", Endpoint("::1", 4000))
        client = await PcpClient.find(six, Signs(), server.endpoint.port)
        lease = await client.lease(Wish(Endpoint("::1", 4000), "tcp"), None)
        assert lease.external == Endpoint("::1", 4000)
        await client.close()
        with pytest.raises(NetworkError, match="IPv4 only"):
            await NatPmpClient.find(six, Signs(), server.endpoint.port)


async def test_a_new_external_address_of_nat_pmp_is_a_sign(router: PortControl) -> None:
    signs = Signs()
    async with datagrams(router.answer) as server:
        client = await NatPmpClient.find(asker(), signs, server.endpoint.port)
        lease = await client.lease(UDP, None)
        router.external = "25.9.9.9"
        assert (await client.lease(UDP, lease)).external == Endpoint("25.9.9.9", 4000)
        assert signs.count == 1
        await client.close()
