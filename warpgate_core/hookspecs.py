"""The hooks a plugin may implement besides (or instead of) being a strategy.

A hook specification that is ``async def`` wants implementations that are, and the other way round; the
registry refuses a mix-up with a sentence instead of a coroutine that nobody awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from warpgate_core.address import NodeAddress
    from warpgate_core.endpoint import Endpoint
    from warpgate_core.identity import Identity
    from warpgate_core.net.edge import LocalInterface
    from warpgate_core.net.gateway import Gateway
    from warpgate_core.pipe import Pipe

__all__ = ["PROJECT", "NodeContext", "NodeHooks", "hookimpl", "hookspec"]

PROJECT = "warpgate"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class NodeContext(Protocol):
    """What a plugin that lives as long as the node may see and do."""

    @property
    def identity(self) -> Identity:
        """The node's identity."""

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """The node's interfaces now; each change calls who watches by `on_change`."""

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        """The default routes now, the preferred one of each family first; empty if none is known."""

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` on each change of `interfaces`; returns what ends it."""

    def publish(self, internal: Endpoint, external: Endpoint, transport: str) -> None:
        """A port mapping exists: `external` leads to `internal`. It enters the node's address."""

    def withdraw(self, internal: Endpoint, transport: str) -> None:
        """The mapping is gone."""


class NodeHooks:
    """The hook specifications. Every one is optional."""

    @hookspec
    def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None] | None:
        """Entered when the node starts and left when it closes: gather candidates, hold port mappings."""

    @hookspec
    def warpgate_node_status(self) -> Sequence[str] | None:
        """Sentences for a person: what this plugin does for the node now, and what it cannot do and why."""

    @hookspec
    async def warpgate_resolve(self, name: str) -> NodeAddress | bytes | str | None:
        """Turn a name that is not an address into an address; None if it is not yours."""

    @hookspec
    def warpgate_pipe_opened(self, pipe: Pipe) -> None:
        """A pipe was handed to the application, at either end."""

    @hookspec
    def warpgate_pipe_closed(self, pipe: Pipe, error: BaseException | None) -> None:
        """That pipe has ended: `error` is None for an orderly end."""
