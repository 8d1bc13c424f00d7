"""Plugins that live as long as the node: entered at its start, left at its close, each in a task of its own.

A task of its own, because a context manager must be left in the task that entered it, and because one
plugin that hangs or raises must not hold up the node or the other plugins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from warpgate_core.address_parts import InterfaceAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import ConfigError
from warpgate_core.identity import Identity
from warpgate_core.net.edge import Edge, LocalInterface
from warpgate_core.net.gateway import Gateway, default_gateways
from warpgate_core.net.system import SystemEdge
from warpgate_core.registry import Registry
from warpgate_core.tasks import TaskSet, cancel_within

__all__ = ["ENTER_WAIT", "STOP_GRACE", "NodeServices"]

_LOG = logging.getLogger("warpgate.service")

# s that the start waits for services to be entered, so that a port mapping which comes at once is in the
# first address that anybody sees: PCP and NAT-PMP take 10 to 70 ms in the lab, UPnP often longer
ENTER_WAIT = 0.1
STOP_GRACE = 3.0  # s for a service to leave in order: deleting a port mapping is a round trip to the gateway
MAX_MAPPINGS = 64  # published endpoints; 16 interfaces, two transports, and room


class NodeServices:
    """The running services of one node, and the endpoints that they published. Is the `NodeContext`.

    Args:
        identity: the node's identity.
        edge: the node's network edge.
        changed: called when what is published has changed.
    """

    def __init__(self, identity: Identity, edge: Edge, changed: Callable[[], None]) -> None:
        self._identity = identity
        self._edge = edge
        self._changed = changed
        self._mappings: dict[tuple[Endpoint, str], Endpoint] = {}
        self._watchers: list[Callable[[], None]] = []
        self._tasks = TaskSet("services")
        self._running: dict[asyncio.Task[None], asyncio.Future[None]] = {}  # task, and when it was entered
        self._stop = asyncio.Event()

    # -- NodeContext -----------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """See `NodeContext`."""
        return self._identity

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """See `NodeContext`."""
        return self._edge.interfaces

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        """See `NodeContext`. A virtual network has none: this machine's router is not on it."""
        return default_gateways() if isinstance(self._edge, SystemEdge) else ()

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """See `NodeContext`."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def publish(self, internal: Endpoint, external: Endpoint, transport: str) -> None:
        """See `NodeContext`."""
        if transport not in ("tcp", "udp"):
            raise ConfigError(f"a mapping's transport is 'tcp' or 'udp', not {transport!r}")
        InterfaceAddress(0, internal, external)  # AddressError now, in the plugin, not later in the node
        if len(self._mappings) >= MAX_MAPPINGS:
            raise ConfigError(f"more than {MAX_MAPPINGS} port mappings were published")
        if self._mappings.get((internal, transport)) != external:
            self._mappings[internal, transport] = external
            self._changed()

    def withdraw(self, internal: Endpoint, transport: str) -> None:
        """See `NodeContext`."""
        if self._mappings.pop((internal, transport), None) is not None:
            self._changed()

    # -- for the node ----------------------------------------------------------------------------

    def mapped(self, internal: Endpoint, transport: str) -> Endpoint | None:
        """The endpoint that leads to `internal` from outside, if a service has made one."""
        return self._mappings.get((internal, transport))

    def network_changed(self) -> None:
        """Tell every watcher that the node's interfaces or mapped endpoints have changed."""
        for watcher in tuple(self._watchers):
            try:
                watcher()
            except Exception:  # noqa: BLE001 - foreign code; the others must still be told
                _LOG.exception("a plugin's watcher of network changes raised")

    async def start(self, registry: Registry) -> None:
        """Start every service that the plugins offer, and wait a moment until they are entered."""
        for name, service in registry.call("warpgate_node_service", context=self):
            entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._running[self._tasks.start(self._live(name, service, entered), name)] = entered
        if self._running:
            await asyncio.wait(self._running.values(), timeout=ENTER_WAIT)

    async def _live(
        self, name: str, service: AbstractAsyncContextManager[None], entered: asyncio.Future[None]
    ) -> None:
        try:
            async with service:
                entered.set_result(None)
                await self._stop.wait()
        except Exception:  # noqa: BLE001 - foreign code; logged, and the node goes on
            _LOG.exception("the service of plugin %s ended with an error; the node goes on without it", name)
        finally:
            entered.cancel()  # no effect once it is set

    async def close(self) -> None:
        """Let every service leave in order, then cancel what has not; who has not even entered, at once."""
        self._stop.set()
        for task, entered in self._running.items():
            if not entered.done():
                task.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_GRACE)
            for task in await cancel_within(late, STOP_GRACE):
                _LOG.error("%s does not end and is left behind", task.get_name())
                self._tasks.disown(task)
        await self._tasks.close()
