"""Services of plugins: what they publish enters the node's address, and what cannot is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.core.worlds import ALICE, World
from warpgate_core import AddressError, ConfigError, Endpoint, Filtering, Mapping, NodeContext, hookimpl
from warpgate_core.service import ENTER_WAIT, STOP_GRACE
from warpgate_core.testing.loop import run_virtual

OUTSIDE = Endpoint("203.0.113.9", 4000)


class Mapper:
    """A plugin that hands its context to the test."""

    def __init__(self) -> None:
        self.contexts: list[NodeContext] = []

    @hookimpl
    def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def service() -> AsyncIterator[None]:
            yield

        self.contexts.append(context)
        return service()


def test_a_port_mapping_makes_the_interface_reachable() -> None:
    async def scenario() -> None:
        world, mapper = World(), Mapper()
        node = world.node(ALICE, world.host("alice", "192.168.1.2/24"), 7001)
        async with node:
            node.registry.add(mapper, name="mapper")
            await node.parts.services.start(node.registry)
            (context,) = mapper.contexts
            assert context.gateways == (), "a virtual network has no router of this machine"
            before = node.address
            changes: list[int] = []
            node.on_change(lambda: changes.append(1))
            internal = context.interfaces[0].internal
            for _ in range(2):  # the second time nothing is new
                context.publish(internal, OUTSIDE, "udp")
                context.publish(internal, OUTSIDE, "tcp")
            (face,) = node.address.interfaces
            assert (face.external, face.tcp_external) == (OUTSIDE, OUTSIDE)
            assert (face.nat.mapping, face.nat.filtering) == (Mapping.EIM, Filtering.EIF)
            assert len(changes) == 2
            context.withdraw(internal, "udp")
            context.withdraw(internal, "tcp")
            context.withdraw(internal, "tcp")
            assert len(changes) == 4
            assert node.address == before

    run_virtual(scenario)


def test_a_pinhole_in_a_firewall_is_no_translation() -> None:
    async def scenario() -> None:
        world, mapper = World(), Mapper()
        node = world.node(ALICE, world.host("alice", "2001:db8:1::2/64"), 7001)
        async with node:
            node.registry.add(mapper, name="mapper")
            await node.parts.services.start(node.registry)
            (context,) = mapper.contexts
            internal = context.interfaces[0].internal
            context.publish(internal, internal, "udp")
            (face,) = node.address.interfaces
            assert face.external == internal
            assert (face.nat.mapping, face.nat.filtering) == (Mapping.NONE, Filtering.EIF)

    run_virtual(scenario)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 30.0])
def test_the_start_waits_a_moment_for_what_comes_at_once(seconds: float) -> None:
    class Slow:
        @hookimpl
        def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None]:
            @asynccontextmanager
            async def service() -> AsyncIterator[None]:
                await asyncio.sleep(seconds)
                yield

            return service()

    async def scenario() -> None:
        world = World()
        node = world.node(ALICE, world.host("alice", "192.168.1.2/24"), 7001)
        async with node:
            node.registry.add(Slow(), name="slow")
            began = asyncio.get_running_loop().time()
            await node.parts.services.start(node.registry)
            assert asyncio.get_running_loop().time() - began == pytest.approx(min(seconds, ENTER_WAIT))
            closing = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() == closing, "who has not entered need not leave in order"

    run_virtual(scenario)


def test_a_service_that_hangs_at_the_end_holds_the_node_up_for_a_bounded_time() -> None:
    class Hanging:
        @hookimpl
        def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None]:
            @asynccontextmanager
            async def service() -> AsyncIterator[None]:
                yield
                await asyncio.sleep(1_000)

            return service()

    async def scenario() -> None:
        world = World()
        node = world.node(ALICE, world.host("alice", "192.168.1.2/24"), 7001)
        async with node:
            node.registry.add(Hanging(), name="hanging")
            await node.parts.services.start(node.registry)
            closing = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - closing == pytest.approx(STOP_GRACE)

    run_virtual(scenario)


@pytest.mark.parametrize("where", ["enter", "exit"])
def test_a_service_that_raises_is_logged_and_harms_nobody(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @hookimpl
        def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None]:
            @asynccontextmanager
            async def service() -> AsyncIterator[None]:
                if where == "enter":
                    raise RuntimeError("boom")
                yield
                raise RuntimeError("boom")

            return service()

    async def scenario() -> None:
        world = World()
        node = world.node(ALICE, world.host("alice", "192.168.1.2/24"), 7001)
        async with node:
            node.registry.add(Broken(), name="broken")
            await node.parts.services.start(node.registry)
            assert node.address.interfaces

    run_virtual(scenario)
    assert "the service of plugin broken ended with an error" in caplog.text


def test_what_no_address_can_hold_is_refused_where_it_is_published() -> None:
    async def scenario() -> None:
        world, mapper = World(), Mapper()
        node = world.node(ALICE, world.host("alice", "192.168.1.2/24"), 7001)
        async with node:
            node.registry.add(mapper, name="mapper")
            await node.parts.services.start(node.registry)
            (context,) = mapper.contexts
            internal = context.interfaces[0].internal
            for wrong in (("0.0.0.0", 1), ("224.0.0.1", 1), ("203.0.113.9", 0), ("2001:db8::1", 1)):
                with pytest.raises(AddressError):
                    context.publish(internal, Endpoint(*wrong), "udp")
            with pytest.raises(ConfigError, match="transport"):
                context.publish(internal, OUTSIDE, "sctp")
            assert node.address.interfaces[0].external != OUTSIDE

    run_virtual(scenario)
