"""From a broker's name to an open byte stream: names, addresses, card, TCP, TLS, WebSocket.

Nothing blocks the event loop and nothing queues behind a dead server: names are looked up in threads of
our own (the loop's executor may be full of other people's work, and five unanswered names would fill
it), sockets are connected without a thread. Of several addresses the next one starts 250 ms after the
last, or at once when that one failed (RFC 8305 section 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import BrokerError, NetworkError
from warpgate_core.net.ports import leave_by, sockaddr
from warpgate_core.net.threads import in_thread
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.nic import Binding
from warpgate_core.signal.stream import BrokerStream

__all__ = ["Dialer"]

ATTEMPT_DELAY: Final = 0.25  # s between two addresses of one broker (RFC 8305 section 8)
MAX_ADDRESSES: Final = 4  # of one broker; a name with more is a round robin, and any will do
MAX_LOOKUPS: Final = 32  # threads at once; a lookup that hangs ends by the resolver's own timeout

T = TypeVar("T")


class Dialer:
    """Opens streams for one router.

    Args:
        binding: which card or address to go out by.
        tls: context for mqtts and wss; by default the system's trust store with host names checked.

    Attributes:
        binding: as given; may be replaced when the machine's addresses change.
    """

    def __init__(self, binding: Binding, tls: ssl.SSLContext | None = None) -> None:
        self.binding = binding
        self._tls = tls
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)

    async def open(self, broker: Broker) -> BrokerStream:
        """Connect to a broker, up to the point where MQTT begins.

        Unbounded in time: put `asyncio.timeout` around it. Nothing is left behind on failure or
        cancellation.

        Raises:
            BrokerError: with the reason; one per address if there were several.
        """
        targets = self._reachable(await self._addresses(broker))
        if not targets:
            raise BrokerError(f"no address of {broker.host} can be reached from {self.binding}")
        sock = await self._race([Endpoint(host, broker.port) for host in targets])
        return await self._dress(sock, broker)

    async def _addresses(self, broker: Broker) -> Sequence[str]:
        if broker.addresses or broker.is_numeric:
            return broker.addresses or (broker.host,)
        try:
            found = await self._in_thread(
                f"look up {broker.host}",
                lambda: socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM),
            )
        except (OSError, UnicodeError) as error:
            raise BrokerError(f"no address is known for {broker.host}: {_reason(error)}") from error
        hosts = dict.fromkeys(Endpoint.of(info[4]).host for info in found)
        return [host for host in hosts if Endpoint(host, 0).family in broker.families][:MAX_ADDRESSES]

    def _reachable(self, hosts: Iterable[str]) -> list[str]:
        return [host for host in hosts if self.binding.allows(Endpoint(host, 0).family)]

    async def _race(self, targets: Sequence[Endpoint]) -> socket.socket:
        """The first address that answers; the others are given up."""
        if len(targets) == 1:
            return await self._connect(targets[0])
        errors: list[str] = []
        tasks: set[asyncio.Task[socket.socket]] = set()
        waiting = list(targets)
        try:
            while waiting or tasks:
                if waiting:
                    tasks.add(asyncio.create_task(self._connect(waiting.pop(0)), name="dial a broker"))
                done, _ = await asyncio.wait(
                    tasks, timeout=ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    tasks.discard(task)
                    error = task.exception()
                    if error is None:
                        return task.result()  # a second one of the same moment is still in `tasks`
                    errors.append(str(error))
        finally:
            _give_up(tasks)
        raise BrokerError("; ".join(errors))

    async def _connect(self, target: Endpoint) -> socket.socket:
        sock = socket.socket(target.family.socket_family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._bind(sock, target.family)
            await asyncio.get_running_loop().sock_connect(sock, sockaddr(target))
        except (OSError, NetworkError) as error:
            sock.close()
            raise BrokerError(f"{target}: {_reason(error)}") from error
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, family: Family) -> None:
        local = self.binding.local(family)
        if local is None:
            return
        sock.bind(sockaddr(Endpoint(local, 0)))
        leave_by(sock, family, self.binding.index)

    async def _dress(self, sock: socket.socket, broker: Broker) -> BrokerStream:
        """A protocol on the socket, TLS and WebSocket as the scheme wants."""
        stream = BrokerStream()
        try:
            context = await self._context() if broker.is_tls else None
            await asyncio.get_running_loop().create_connection(
                lambda: stream, sock=sock, ssl=context, server_hostname=broker.host if context else None
            )
            if broker.is_websocket:
                default = 443 if broker.is_tls else 80
                await stream.upgrade(broker.broker_id.removesuffix(f":{default}"), broker.path)
        except BaseException as error:
            stream.abort()
            sock.close()
            if isinstance(error, ssl.SSLError):
                raise BrokerError(f"TLS with {broker.host} failed: {_tls_reason(error)}") from error
            if isinstance(error, OSError):
                raise BrokerError(f"{broker.host}: {_reason(error)}") from error
            raise
        return stream

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reads the system's certificates: 20 ms of disk and parsing, once.
            self._tls = await self._in_thread("read certificates", ssl.create_default_context)
        return self._tls

    async def _in_thread(self, name: str, work: Callable[[], T]) -> T:
        """Run blocking work in a thread; a bounded number of them, until each has really ended."""
        loop = asyncio.get_running_loop()
        await self._lookups.acquire()

        def run() -> T:
            try:
                return work()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a turn
                    loop.call_soon_threadsafe(self._lookups.release)

        return await in_thread(name, run)


def _give_up(tasks: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel the losers; a socket that one of them still gets is closed."""

    def close(task: asyncio.Task[socket.socket]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().close()

    for task in tasks:
        task.cancel()
        task.add_done_callback(close)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()  # asyncio's own texts repeat the address instead
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    return (error.reason or str(error)).lower().replace("_", " ")
