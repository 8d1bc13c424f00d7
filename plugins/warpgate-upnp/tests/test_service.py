"""The service of a node: which addresses it cares for, and that it follows the network."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable

import pytest

from warpgate_core import (
    IP4,
    IP6,
    Endpoint,
    Filtering,
    Gateway,
    Identity,
    LocalInterface,
    Mapping,
    NatProfile,
    NodeContext,
    Registry,
)
from warpgate_core.testing.loop import run_virtual
from warpgate_upnp import Options, Upnp
from warpgate_upnp.mapping import Wish
from warpgate_upnp.reach import sites
from warpgate_upnp.service import _Service

ALICE = Identity.from_secret(bytes(31) + b"\1")
NOT_OURS = Endpoint("192.168.99.2", 4000)  # no address of this machine: every socket on it fails at once
FACE = LocalInterface(0, "nocard0", NOT_OURS, prefix=24)
GATEWAY = Gateway(IP4, "192.168.99.1", "nocard0")


class Context(NodeContext):
    """Of a node whose network a test makes."""

    def __init__(self, *faces: LocalInterface, gateways: tuple[Gateway, ...] = (GATEWAY,)) -> None:
        self.faces = faces
        self.routers = gateways
        self.watchers: list[Callable[[], None]] = []
        self.published: list[object] = []

    @property
    def identity(self) -> Identity:
        return ALICE

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        return self.faces

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return self.routers

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher)

    def publish(self, internal: Endpoint, external: Endpoint, transport: str) -> None:
        self.published.append((internal, external, transport))

    def withdraw(self, internal: Endpoint, transport: str) -> None:
        self.published.append((internal, None, transport))

    def change(self, *faces: LocalInterface) -> None:
        self.faces = faces
        for watcher in self.watchers:
            watcher()


async def test_an_address_that_cannot_be_used_is_told_and_harms_nobody() -> None:
    before = len(os.listdir("/proc/self/fd"))
    plugin, context = Upnp(Options()), Context(FACE)
    async with plugin.warpgate_node_service(context):
        udp, tcp = plugin.status()
        assert (udp.transport, tcp.transport) == ("udp", "tcp")
        assert "no UDP socket at 192.168.99.2" in udp.problem
        (sentence,) = plugin.warpgate_node_status()
        assert sentence.startswith(
            "no port mapping for udp and tcp 192.168.99.2:4000 at the router 192.168.99.1"
        )
        assert len(context.watchers) == 1
    assert context.watchers == []
    assert context.published == []
    assert plugin.status() == ()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "face",
    [
        LocalInterface(0, "lo", Endpoint("127.0.0.1", 4000), prefix=8),
        LocalInterface(0, "nocard1", NOT_OURS, prefix=24),
        dataclasses.replace(FACE, nat=NatProfile(Mapping.NONE, Filtering.EIF)),
        LocalInterface(0, "nocard0", Endpoint("2001:db8::2", 4000), prefix=64),
    ],
)
async def test_addresses_that_are_left_alone(face: LocalInterface) -> None:
    plugin = Upnp(Options(ipv6=False))
    routers = (GATEWAY, Gateway(IP6, "fe80::1%1", "nocard0"))
    async with plugin.warpgate_node_service(Context(face, gateways=routers)):
        assert plugin.status() == ()
        assert plugin.warpgate_node_status() == []


def test_addresses_come_and_go() -> None:
    async def scenario() -> None:
        plugin, context = Upnp(Options()), Context()
        other = LocalInterface(1, "nocard0", Endpoint("192.168.99.3", 4000), prefix=24)

        async def cared_for(*faces: LocalInterface) -> set[tuple[Endpoint, str]]:
            context.change(*faces)
            await asyncio.sleep(1)  # virtual: all that can happen now has happened
            return {(one.internal, one.gateway) for one in plugin.status()}

        async with plugin.warpgate_node_service(context):
            assert plugin.status() == ()
            first, second = (FACE.internal, GATEWAY.host), (other.internal, GATEWAY.host)
            assert await cared_for(FACE) == {first}
            assert await cared_for(FACE, other) == {first, second}
            assert await cared_for(other) == {second}
            context.routers = (Gateway(IP4, "192.168.99.254", "nocard0"),)
            assert await cared_for(other) == {(other.internal, "192.168.99.254")}
            assert await cared_for() == set()

    run_virtual(scenario)


def test_what_an_open_filter_makes_visible_later_does_not_end_a_mapping() -> None:
    """The pinhole itself makes the NAT look open."""

    async def scenario() -> None:
        plugin, context = Upnp(Options()), Context(FACE)
        async with plugin.warpgate_node_service(context):
            context.change(dataclasses.replace(FACE, nat=NatProfile(Mapping.NONE, Filtering.EIF)))
            await asyncio.sleep(1)
            assert len(plugin.status()) == 2

    run_virtual(scenario)


async def test_a_host_with_a_public_address_asks_by_pcp_only() -> None:
    context = Context(FACE)
    service = _Service(context, Options())
    (site,) = sites(context.interfaces, context.gateways)
    public = dataclasses.replace(FACE, external=NOT_OURS)
    assert len(service._entrants(site, FACE)) == 3
    assert len(service._entrants(site, public)) == 1
    assert len(_Service(context, Options(nat_pmp=False, igd=False))._entrants(site, FACE)) == 1
    assert _Service(context, Options(pcp=False))._entrants(site, public) == []


async def test_the_nonce_is_ours_again_after_a_crash_and_nobody_else_has_it() -> None:
    udp, tcp = Wish(NOT_OURS, "udp"), Wish(NOT_OURS, "tcp")
    first, second = _Service(Context(), Options()), _Service(Context(), Options())
    assert first._nonce(udp) == second._nonce(udp)
    assert len(first._nonce(udp)) == 12
    assert first._nonce(udp) != first._nonce(tcp)
    other = Identity.generate()

    class Other(Context):
        identity = other  # type: ignore[assignment]

    assert _Service(Other(), Options())._nonce(udp) != first._nonce(udp)


async def test_the_registry_makes_it_with_its_options() -> None:
    registry = Registry(discover=False, options={"upnp": {"lease": 120}})
    registry.add(Upnp, name="upnp")
    ((name, service),) = registry.call("warpgate_node_service", context=Context(FACE))
    assert name == "upnp"
    async with service:
        ((_, said),) = registry.call("warpgate_node_status")
        assert "no port mapping" in said[0]
