"""Puts a node's parts together from its configuration, and starts and stops them in order.

Apart from `Node` so that the order of things (what needs what, what is closed when) stands in one place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from warpgate_core.address import NodeAddress
from warpgate_core.config import NodeConfig
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.engine.engine import Engine
from warpgate_core.identity import Identity, default_home
from warpgate_core.net.edge import Edge
from warpgate_core.net.ntp import NtpClock
from warpgate_core.net.stun import load_codec
from warpgate_core.net.stun_server import read_servers
from warpgate_core.net.system import SystemEdge
from warpgate_core.pipe import Pipe
from warpgate_core.registry import Registry
from warpgate_core.service import NodeServices
from warpgate_core.signal.envelope import EnvelopeCodec
from warpgate_core.signal.replay import ReplayGuard
from warpgate_core.signal.router import Router
from warpgate_core.signal.servers import parse_servers
from warpgate_core.signal.signaller import Signaller
from warpgate_core.strategies import BUILT_IN
from warpgate_core.turn_server import read_turn_servers

__all__ = ["Parts", "compose"]

SIGNAL_READY = (
    2.0  # s that `start` waits for brokers: six round trips to a far one (300 ms), DESIGN section 4
)
CLOCK_READY = 1.0  # s that `start` waits for NTP servers; without them the system's clock will do


@dataclass(slots=True)
class Parts:
    """What a node is composed of. See `compose`."""

    identity: Identity
    registry: Registry
    edge: Edge
    router: Router | None
    services: NodeServices
    engine: Engine
    clock: NtpClock | None
    _stack: AsyncExitStack

    async def start(self) -> None:
        """Open sockets and signalling side by side, and let plugins in as soon as there are sockets.

        Raises:
            WarpgateError: what failed first, as itself and not in a group; the rest was cancelled then.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_edge())
                if self.clock is not None:
                    group.create_task(self.clock.sync(CLOCK_READY))
                if self.router is not None:
                    group.create_task(self._start_router(self.router))
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            raise first from first.__cause__

    async def _start_edge(self) -> None:
        self._stack.push_async_callback(self.edge.close)
        await self.edge.start()
        self._stack.push_async_callback(self.services.close)
        await self.services.start(self.registry)

    async def _start_router(self, router: Router) -> None:
        self._stack.push_async_callback(router.close)
        await router.start()
        await router.ready(SIGNAL_READY)

    async def close(self) -> None:
        """Close all of it, whatever was opened, last opened first."""
        await self._stack.aclose()


async def compose(
    config: NodeConfig,
    *,
    edge: Edge | None,
    signaller: Signaller | None,
    address: Callable[[], NodeAddress],
    on_pipe: Callable[[Pipe], None],
    on_change: Callable[[], None],
) -> Parts:
    """Build the parts; nothing is opened yet.

    Args:
        config: see `NodeConfig`.
        edge, signaller: given from outside, or None for the real ones.
        address: gives the node's address now.
        on_pipe: called with each pipe that a peer opens.
        on_change: called when the address may have changed.
    """
    if config.identity is not None:
        identity = Identity.of(config.identity, config.backend)
    else:
        file = Path(config.home or default_home()) / "identity"
        identity = await asyncio.to_thread(Identity.load_or_create, file, config.backend)
    registry = Registry(
        disable=config.disable or (),
        options=config.options,
        settings={"turn": read_turn_servers(config.turn)},
    )
    for strategy in BUILT_IN:
        registry.add(strategy, distribution="warpgate-core")
    await asyncio.gather(asyncio.to_thread(registry.load), asyncio.to_thread(load_codec))
    clock = NtpClock(config.ntp) if config.ntp else None
    get_time = clock.time if clock is not None else time.time
    real_edge = edge if edge is not None else _system_edge(config)
    services = NodeServices(identity, real_edge, on_change)
    router = None
    if signaller is None and config.brokers:
        router = Router(identity, get_time=get_time, servers=config.brokers)
        router.on_change = on_change
        signaller = router

    def changed() -> None:
        if router is not None:
            router.network_changed()
        services.network_changed()
        on_change()

    real_edge.on_change = changed
    engine = Engine(
        identity=identity,
        codec=router.codec if router is not None else EnvelopeCodec(identity, get_time),
        guard=router.guard if router is not None else ReplayGuard(),
        edge=real_edge,
        signaller=signaller,
        registry=registry,
        limits=config.limits,
        accepts=config.accepts,
        address=address,
        on_pipe=on_pipe,
        infrastructure=_infrastructure(config),
        get_time=get_time,
    )
    return Parts(identity, registry, real_edge, router, services, engine, clock, AsyncExitStack())


def _system_edge(config: NodeConfig) -> Edge:
    families = [Family(family) for family in config.families or Family]
    return SystemEdge(nics=config.nics, port=config.port, families=families, stun=config.stun)


def _infrastructure(config: NodeConfig) -> frozenset[Endpoint]:
    """The node's own servers, as far as they are given by number."""
    named = [(broker.host, broker.port) for broker in parse_servers(config.brokers)]
    named += [(server.host, server.port) for server in read_servers(config.stun)]
    named += [(server.host, server.port) for server in read_turn_servers(config.turn)]
    return frozenset(Endpoint(host, port) for host, port in named)
