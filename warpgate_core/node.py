"""`Node`: your end of every connection. Composes identity, network edge, signalling, plugins and engine.

Nothing happens at construction; `start` (or ``async with``) opens everything and `close` ends it, whatever
state it was in. Edge and signalling may be given from outside, which is how the tests put a whole node on a
virtual network.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.backlog import Backlog
from warpgate_core.compose import Parts, compose
from warpgate_core.config import NodeConfig
from warpgate_core.errors import AddressError, NodeClosedError
from warpgate_core.identity import Identity
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.net.edge import Edge, LocalInterface
from warpgate_core.pipe import Pipe
from warpgate_core.registry import Registry
from warpgate_core.signal.router import Router
from warpgate_core.signal.signaller import Signaller
from warpgate_core.strategy import StrategySpec
from warpgate_core.tasks import TaskSet
from warpgate_core.trace import Trace

__all__ = ["Node"]

Handler = Callable[[Pipe], Awaitable[None] | None]

_LOG = logging.getLogger("warpgate.node")

MAPPED = NatProfile(Mapping.EIM, Filtering.EIF, Allocation.PRESERVED)  # what a port mapping makes of a NAT
PINHOLE = NatProfile(
    Mapping.NONE, Filtering.EIF, Allocation.PRESERVED
)  # and of a firewall that translates nothing


class Node:
    """One node.

    Use it as ``async with Node(config) as node``, or `start` and `close`.

    Args:
        config: see `NodeConfig`; None: everything from the environment.
        edge: the network; None: the operating system's.
        signaller: signalling; None: the configured MQTT brokers.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        edge: Edge | None = None,
        signaller: Signaller | None = None,
    ) -> None:
        self.config = config if config is not None else NodeConfig()
        self._given_edge = edge
        self._given_signaller = signaller
        self._parts: Parts | None = None
        self._tasks = TaskSet("node")
        self._backlog = Backlog(self.config.limits.max_backlog)
        self._pipes: set[Pipe] = set()
        self._handler: Handler | None = None
        self._watchers: list[Callable[[], None]] = []
        self._closing = False

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Open everything: identity, plugins, sockets, signalling.

        Dead brokers and STUN servers do not fail the start, and cost a bounded time; direct connections
        work without any. Cancelling leaves nothing behind.

        Raises:
            ConfigError: a setting is wrong.
            IdentityError: the stored identity is damaged.
            NetworkError: there is no usable network interface, or the port is taken.
            NodeClosedError: the node was started before.
        """
        if self._parts is not None or self._closing:
            raise NodeClosedError("a node is started once; make a new one")
        try:
            self._parts = parts = await compose(
                self.config,
                edge=self._given_edge,
                signaller=self._given_signaller,
                address=lambda: self.address,
                on_pipe=self._incoming,
                on_change=self._changed,
            )
            await parts.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """End sessions, close pipes, sockets and signalling, and wait until all of it is closed."""
        if self._closing:
            await self._backlog.wait_closed()
            return
        self._closing = True
        parts = self._parts
        try:
            if parts is not None:
                await parts.engine.close()
            self._backlog.refuse()
            if self._pipes:
                await asyncio.gather(*(pipe.close() for pipe in tuple(self._pipes)))
            await self._tasks.close()
        finally:
            if parts is not None:
                await parts.close()
            self._backlog.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        if self._parts is None:
            return "<Node, not started>"
        return f"<Node {self._parts.identity.node_id}{', closed' if self._closing else ''}>"

    # -- what it is ------------------------------------------------------------------------------

    @property
    def parts(self) -> Parts:
        """What the node is composed of, for tools that look inside.

        Raises:
            NodeClosedError: not started.
        """
        if self._parts is None:
            raise NodeClosedError("the node is not started; use `async with Node(...)` or `await start()`")
        return self._parts

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        return self.parts.identity

    @property
    def registry(self) -> Registry:
        """The node's plugins."""
        return self.parts.registry

    @property
    def router(self) -> Router | None:
        """Signalling over brokers; None if there is none, or it was given from outside."""
        return self.parts.router

    @property
    def edge(self) -> Edge:
        """The node's sockets and interfaces."""
        return self.parts.edge

    @property
    def address(self) -> NodeAddress:
        """What peers need to reach this node, as of now."""
        parts = self.parts
        faces = tuple(self._publish(face) for face in parts.edge.interfaces)
        hints = parts.router.hints if parts.router is not None else ()
        return NodeAddress(parts.identity.public_key, faces, tuple(hints))

    @property
    def addr_bytes(self) -> bytes:
        """The address in its compact binary form."""
        return self.address.encode()

    def _publish(self, face: LocalInterface) -> InterfaceAddress:
        services = self.parts.services
        udp = services.mapped(face.internal, "udp")
        tcp = services.mapped(face.internal, "tcp")
        opened = PINHOLE if udp == face.internal else MAPPED
        return InterfaceAddress(
            face.nic,
            face.internal,
            udp or face.external,
            opened if udp else face.nat,
            tcp or face.tcp_external,
        )

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` whenever the address may have changed; returns what ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _changed(self) -> None:
        if self._parts is None or self._closing:
            return
        for watcher in tuple(self._watchers):
            try:
                watcher()
            except Exception:  # noqa: BLE001 - the application's own code; the others must still be told
                _LOG.exception("a watcher of the node's address raised")

    # -- connecting ------------------------------------------------------------------------------

    async def connect(
        self,
        dest: NodeAddress | bytes | str,
        *,
        plugins: Iterable[str] | None = None,
        timeout: float | None = None,
        transport: str | None = None,
        watch: Callable[[Trace], None] | None = None,
    ) -> tuple[Pipe, StrategySpec]:
        """See `warpgate_core.auto_connect`, which is the same."""
        parts = self.parts
        if self._closing:
            raise NodeClosedError("the node is closed")
        peer = await self._resolve(dest)
        pipe = await parts.engine.connect(
            peer,
            parts.registry.select(plugins),
            timeout=timeout if timeout is not None else self.config.timeout,
            patience=self.config.patience,
            transports=frozenset((transport,)) if transport else frozenset(("tcp", "udp")),
            watch=None if watch is None else lambda session: watch(session.trace),
        )
        self._opened(pipe)
        return pipe, parts.registry.strategies[pipe.strategy].spec

    async def _resolve(self, dest: NodeAddress | bytes | str) -> NodeAddress:
        try:
            return NodeAddress.parse(dest)
        except AddressError as error:
            if not isinstance(dest, str):
                raise
            found = await self.parts.registry.call_first("warpgate_resolve", name=dest)
            if found is None:
                raise error from None
            return NodeAddress.parse(found[1])

    def _opened(self, pipe: Pipe) -> None:
        registry = self.parts.registry
        self._pipes.add(pipe)
        pipe.add_close_callback(self._ended)
        registry.call("warpgate_pipe_opened", pipe=pipe)

    def _ended(self, pipe: Pipe) -> None:
        self._pipes.discard(pipe)
        self.parts.registry.call("warpgate_pipe_closed", pipe=pipe, error=pipe.error)

    # -- being connected to ----------------------------------------------------------------------

    def _incoming(self, pipe: Pipe) -> None:
        """A peer opened a pipe to us."""
        self._opened(pipe)
        if self._handler is not None and not self._closing:
            self._tasks.start(self._serve(self._handler, pipe), f"handler of {pipe!r}")
        elif not self._backlog.put(pipe):
            _LOG.warning("nobody accepts: %r was closed, %d others wait", pipe, len(self._backlog))
            if not self._closing:
                self._tasks.start(pipe.close(), "close of an unaccepted pipe")

    async def _serve(self, handler: Handler, pipe: Pipe) -> None:
        async with pipe:
            outcome = handler(pipe)
            if inspect.isawaitable(outcome):
                await outcome

    def on_pipe(
        self, handler: Callable[[Pipe], Awaitable[None] | None]
    ) -> Callable[[Pipe], Awaitable[None] | None]:
        """Serve every pipe that a peer opens; usable as a decorator.

        The pipe is closed when the handler (or what it returned) has ended. Pipes that wait in `accept`
        already are handed over first.

        Args:
            handler: called with the pipe; a coroutine function runs as a task of the node.
        """
        self._handler = handler
        for pipe in self._backlog.drain():
            self._tasks.start(self._serve(handler, pipe), f"handler of {pipe!r}")
        return handler

    async def accept(self) -> Pipe:
        """Wait for the next pipe that a peer opens.

        Raises:
            NodeClosedError: the node is closed, or closes meanwhile.
        """
        self.parts  # noqa: B018 - raises if the node was never started
        return await self._backlog.get()

    def __aiter__(self) -> AsyncIterator[Pipe]:
        return self

    async def __anext__(self) -> Pipe:
        try:
            return await self.accept()
        except NodeClosedError:
            raise StopAsyncIteration from None
