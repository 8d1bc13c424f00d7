"""How the NAT maps TCP from our own ports: learnt once for all who ask at the same time.

Several sessions may want the mapping of the listener's port at once, and one pair of endpoints can hold
one connection only; so they share it, and it ends with the last of them. A question is put again after a
short while, because a lost SYN alone costs a second (RFC 6298 section 2) and there may be only one server.
Rejected: keeping a connection to a STUN server open for the node's whole life (public servers close idle
ones, and a mapping is of use for a second or two).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, WarpgateError
from warpgate_core.net.edge import TcpMapping
from warpgate_core.net.ports import bind_tcp
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.stun_tcp import tcp_binding
from warpgate_core.tasks import finish

__all__ = ["TcpMapper"]

# s until all servers are asked anew: two round trips of 200 ms, then more, in case they are longer
PATIENCE = (0.4, 0.8, 1.6, 3.2)

Dial = Callable[[Endpoint, Endpoint], Awaitable[StreamLink]]
Servers = Sequence[Callable[[], Awaitable[Endpoint]]]


class TcpMapper:
    """The mapped TCP endpoints of one edge.

    Args:
        dial: opens a connection: to where, from which own endpoint.
        on_seen: told of each mapping: our own endpoint, and the mapped one.
    """

    def __init__(self, dial: Dial, on_seen: Callable[[Endpoint, Endpoint], None]) -> None:
        self._dial = dial
        self._on_seen = on_seen
        self._held: dict[Endpoint, _Held] = {}

    @asynccontextmanager
    async def hold(self, local: Endpoint, servers: Servers) -> AsyncIterator[TcpMapping]:
        """Learn the mapping of `local` and hold it meanwhile.

        Args:
            local: own address and port; port 0 takes a fresh one.
            servers: each looks up the address of one STUN server; all are asked at once.

        Raises:
            NetworkError: no server answered, or the port cannot be had.
        """
        if not local.port:
            with _fresh_port(local) as placeholder:
                fresh = Endpoint(local.host, placeholder.getsockname()[1])
                async with self.hold(fresh, servers) as mapping:
                    yield mapping
            return
        held = await self._entry(local, servers)
        held.users += 1
        try:
            yield TcpMapping(local, await asyncio.shield(held.external))
        finally:
            held.users -= 1
            if not held.users:
                await finish(self._release(held))

    async def _entry(self, local: Endpoint, servers: Servers) -> _Held:
        while (held := self._held.get(local)) is not None and held.is_ending:
            await held.gone.wait()
        if held is None:
            held = self._held[local] = _Held(local)
            held.task = asyncio.create_task(self._keep(held, servers), name=f"TCP mapping of {local}")
        return held

    async def _release(self, held: _Held) -> None:
        held.is_ending = True
        assert held.task is not None
        held.task.cancel()
        await asyncio.wait([held.task])

    async def _keep(self, held: _Held, servers: Servers) -> None:
        try:
            async with AsyncExitStack() as connection:
                mapped = await self._learn(held.local, servers, connection)
                self._on_seen(held.local, mapped)
                held.external.set_result(mapped)
                await asyncio.get_running_loop().create_future()
        except WarpgateError as error:
            held.external.set_exception(error)
        finally:
            held.is_ending = True
            del self._held[held.local]
            held.gone.set()

    async def _learn(self, local: Endpoint, servers: Servers, connection: AsyncExitStack) -> Endpoint:
        for patience in PATIENCE:
            binding = tcp_binding(lambda remote: self._dial(remote, local), servers)
            try:
                async with asyncio.timeout(patience):
                    return await connection.enter_async_context(binding)
            except TimeoutError:
                continue
        raise NetworkError(f"no STUN server answered over TCP within {sum(PATIENCE):g} s")


class _Held:
    """A mapping that somebody needs now."""

    def __init__(self, local: Endpoint) -> None:
        self.local = local
        self.users = 0
        self.is_ending = False
        self.gone = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.external: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self.external.add_done_callback(lambda future: future.cancelled() or future.exception())


def _fresh_port(local: Endpoint) -> socket.socket:
    """Bound and not listening, so that nobody else gets the number meanwhile."""
    try:
        return bind_tcp(local.host, 0)
    except OSError as error:
        raise NetworkError(f"no free TCP port on {local.host}: {error}") from error
