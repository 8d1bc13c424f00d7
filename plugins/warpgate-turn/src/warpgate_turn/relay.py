"""One allocation, in the shape of a UDP socket: `local` is the relayed transport address.

It belongs to the strategy until `let_go`, and from then on to the pipes attached to it; when the last of
them detaches, or at once if there is none, the allocation is deleted (Refresh with a lifetime of 0) and the
transport closed. A pipe is over only when that is done, within a bound, so that closing a node leaves
nothing at the server.

Before a pipe stands, packets go as Send indications, to any port of a permitted address, which is what a
peer behind a symmetric NAT needs. For a pipe a channel is bound: 4 bytes in place of 36 in each packet,
and the binding renews the permission.

If the server goes away the relay is lost for good: another allocation would have another address, which
the peer would have to be told. Over TCP that shows at once; over UDP when the server's machine says that
nobody listens there, or at the next refresh, and meanwhile the pipe's own consent ends it within 30 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from warpgate_core import DatagramSocket, Endpoint, NetworkError
from warpgate_turn.dialogue import Dialogue, Granted
from warpgate_turn.doors import Door

__all__ = ["RELEASE_BOUND", "Relay", "delete"]

_LOG = logging.getLogger("warpgate.turn")

FIRST_CHANNEL = 0x4000  # RFC 8656 section 12: 0x4000 to 0x4FFF
CHANNELS = 0x1000
MAX_WAITING = 16  # datagrams kept for a permission that is about to be asked for, within this loop turn
MAX_HOSTS = 32  # permitted at once; a card and an address name at most 24
REQUEST_BOUND = 4.0  # s for a permission or a channel: 0, 150, 500, 650, 1,500, 1,650, 3,500 ms
RELEASE_BOUND = 0.35  # s to delete an allocation that no pipe used; a strategy that was cancelled has 0.5
FAREWELL_BOUND = 1.0  # s to delete one that a pipe used, perhaps for hours: its nonce may be stale by now
REFRESH_SHARE = 0.5  # of what the server granted, so that half of it is left when a refresh gets lost
LEAST_PAUSE = 1.0  # s between refreshes, whatever a server grants and ICMP says

Receive = Callable[[bytes, Endpoint, DatagramSocket], None]


class Relay(DatagramSocket):
    """A relayed transport address, as a socket.

    Args:
        dialogue: with the server, allocation made; owned by the relay from now on.
        granted: what the server said.
        door: by which way it was reached.
        receive: called with what comes from an endpoint that nobody is attached to.
        refresh: seconds between refreshes of permissions and channels.
        lifetime: seconds to ask for when refreshing the allocation.

    Attributes:
        mapped: our own address as the server sees it.
        on_refusal: called when the server does not permit an address: that, and why.
        unsent: datagrams that could not be sent.
    """

    is_relay = True

    def __init__(
        self,
        dialogue: Dialogue,
        granted: Granted,
        door: Door,
        receive: Receive,
        *,
        refresh: float,
        lifetime: int,
    ) -> None:
        self.local = granted.relayed
        self.mapped = granted.mapped
        self.name = str(door)
        self.on_refusal: Callable[[str, NetworkError], None] | None = None
        self.unsent = 0
        self._dialogue = dialogue
        self._receive = receive
        self._refresh = refresh
        self._lifetime = lifetime
        self._granted = granted.lifetime
        self._receivers: dict[Endpoint, Callable[[bytes], None]] = {}
        self._numbers: dict[Endpoint, int] = {}
        self._by_number: dict[int, Endpoint] = {}
        self._bound: dict[Endpoint, int] = {}
        self._hosts: set[str] = set()
        self._asked: set[str] = set()
        self._waiting: list[tuple[bytes, Endpoint]] = []
        self._held = True
        self._served = False
        self._error: NetworkError | None = None
        self._on_lost: list[Callable[[NetworkError], None]] = []
        self._on_released: list[Callable[[], None]] = []
        self._suspect = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._released = False
        dialogue.on_data = self._data
        dialogue.on_channel = self._channel_data
        dialogue.on_error = lambda error: self._suspect.set()
        dialogue.on_gone = self._gone
        dialogue.on_permitting = self._permitting
        self._start(self._maintain(), "refresh")

    def __repr__(self) -> str:
        state = "released" if self._released else "lost" if self._error is not None else "open"
        return f"<Relay {self.local} at {self.name}, {state}>"

    # -- DatagramSocket --------------------------------------------------------------------------

    def send(self, data: bytes, remote: Endpoint) -> None:
        """Send one datagram by way of the relay. An address without a permission gets one first.

        It follows the request without waiting for the answer: the server sees them in this order.
        """
        if self._ending is not None or self._error is not None or self._dialogue.full:
            self.unsent += 1
            return
        number = self._bound.get(remote)
        if number is not None:
            self._dialogue.channel(number, data)
            return
        if remote.family is not self.local.family:
            self.unsent += 1
            return
        self.permit((remote.host,))
        if remote.host in self._asked:
            self._dialogue.indicate(data, remote)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append((data, remote))
        else:
            self.unsent += 1

    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        """See `DatagramSocket`; binds a channel."""
        if remote in self._receivers:
            raise ValueError(f"{remote} is attached to {self!r} already")
        self._receivers[remote] = receiver
        self._served = True
        self._start(self._bind(remote), f"channel to {remote}")

    def detach(self, remote: Endpoint) -> None:
        """See `DatagramSocket`; the last one ends the allocation, if the strategy has let go of it."""
        if self._receivers.pop(remote, None) is not None:
            self._end_if_unused()

    def on_released(self, callback: Callable[[], None]) -> None:
        """See `DatagramSocket`."""
        if self._released or self._ending is None:
            callback()
        else:
            self._on_released.append(callback)

    def on_lost(self, callback: Callable[[NetworkError], None]) -> None:
        """See `DatagramSocket`."""
        if self._error is not None:
            asyncio.get_running_loop().call_soon(callback, self._error)
        else:
            self._on_lost.append(callback)

    # -- for the strategy ------------------------------------------------------------------------

    @property
    def error(self) -> NetworkError | None:
        """Why the relay is lost; None while it is not."""
        return self._error

    @property
    def attached(self) -> int:
        """How many endpoints have a receiver."""
        return len(self._receivers)

    @property
    def permitted(self) -> frozenset[str]:
        """Addresses that may send to the relay."""
        return frozenset(self._hosts)

    def permit(self, hosts: Iterable[str]) -> None:
        """Ask for permissions; the requests are on their way when this returns, the answers are not."""
        for host in hosts:
            if host not in self._hosts and len(self._hosts) < MAX_HOSTS and self._usable:
                self._hosts.add(host)
                self._start(self._permit(host), f"permission for {host}")

    async def let_go(self) -> None:
        """The strategy has no more use for it: pipes may go on; without any, it is released now."""
        self._held = False
        self._end_if_unused()
        if self._ending is not None:
            await asyncio.shield(self._ending)

    # -- what comes in ---------------------------------------------------------------------------

    def _data(self, data: bytes, remote: Endpoint) -> None:
        if remote.host not in self._hosts:
            return  # RFC 8656 section 11.4
        receiver = self._receivers.get(remote)
        if receiver is not None:
            receiver(data)
        elif self._usable:
            self._receive(data, remote, self)

    def _channel_data(self, number: int, data: bytes) -> None:
        remote = self._by_number.get(number)
        if remote is not None:
            self._data(data, remote)

    # -- requests --------------------------------------------------------------------------------

    @property
    def _usable(self) -> bool:
        return self._ending is None and self._error is None

    def _start(self, coro: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coro, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s failed", task.get_name(), exc_info=task.exception())

    def _permitting(self, host: str) -> None:
        """A request is out (called by the dialogue): what waits for it may follow."""
        self._asked.add(host)
        waiting, self._waiting = self._waiting, []
        for data, remote in waiting:
            if remote.host == host:
                self._dialogue.indicate(data, remote)
            else:
                self._waiting.append((data, remote))

    async def _permit(self, host: str) -> None:
        try:
            await self._dialogue.permit(host, REQUEST_BOUND)
        except NetworkError as error:
            _LOG.debug("%s permits nothing from %s: %s", self.name, host, error)
            if self.on_refusal is not None and self._usable:
                self.on_refusal(host, error)

    async def _bind(self, remote: Endpoint) -> None:
        """Bind a channel; without one, indications and permissions do the same at a higher price."""
        number = self._numbers.get(remote)
        if number is None:
            if len(self._numbers) == CHANNELS:
                return
            number = self._numbers[remote] = FIRST_CHANNEL + len(self._numbers)
            self._by_number[number] = remote  # before the answer: the server may use it at once
        self._hosts.add(remote.host)
        try:
            await self._dialogue.bind(number, remote, REQUEST_BOUND)
        except NetworkError as error:
            _LOG.debug("%s binds no channel to %s: %s", self.name, remote, error)
            self._bound.pop(remote, None)
            await self._permit(remote.host)
        else:
            self._bound[remote] = number

    # -- staying alive ---------------------------------------------------------------------------

    async def _maintain(self) -> None:
        while True:
            pause = max(LEAST_PAUSE, min(self._refresh, self._granted * REFRESH_SHARE))
            suspicious = await self._pause(pause)
            try:
                await self._refresh_all(suspicious)
            except NetworkError as error:
                self._lose(NetworkError(f"the relay at {self.name} is gone: {error}"))
                return
            if suspicious:
                await asyncio.sleep(LEAST_PAUSE)  # whatever ICMP says in between, once a second is enough

    async def _pause(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._suspect.wait()
        except TimeoutError:
            return False
        self._suspect.clear()
        return True

    async def _refresh_all(self, suspicious: bool) -> None:
        """The allocation first, because nothing else matters without it; then what pipes use."""
        self._dialogue.forgive()
        left = max(LEAST_PAUSE, self._granted * (1 - REFRESH_SHARE))
        bound = min(REQUEST_BOUND, left) if suspicious else left
        self._granted = await self._dialogue.renew(self._lifetime, bound)
        users = tuple(self._receivers)
        await asyncio.gather(*(self._bind(remote) for remote in users))
        others = self._hosts - {remote.host for remote in users}
        if self._held:
            await asyncio.gather(*(self._permit(host) for host in others))
        else:
            self._hosts -= others
            self._asked -= others

    def _gone(self) -> None:
        if self._ending is None:
            self._lose(NetworkError(f"the relay at {self.name} is gone: the connection ended"))

    def _lose(self, error: NetworkError) -> None:
        if self._error is not None or self._ending is not None:
            return
        self._error = error
        _LOG.info("%s", error)
        callbacks, self._on_lost = self._on_lost, []
        for callback in callbacks:
            callback(error)
        self._end_if_unused()

    # -- the end ---------------------------------------------------------------------------------

    def _end_if_unused(self) -> None:
        if not self._held and not self._receivers and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(), name=f"{self.name}: release")

    async def _end(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await delete(self._dialogue, FAREWELL_BOUND if self._served else RELEASE_BOUND)
            if tasks:
                await asyncio.wait(tasks)
        finally:
            self._released = True
            self._on_lost.clear()
            callbacks, self._on_released = self._on_released, []
            for callback in callbacks:
                callback()


async def delete(dialogue: Dialogue, bound: float = RELEASE_BOUND) -> None:
    """Delete the allocation, if there may be one, and close the transport.

    An Allocate that was not answered yet is not overtaken: the server sees both in the order they were
    sent. If no answer comes in time, two copies are on their way all the same.

    Args:
        dialogue: over after this.
        bound: seconds to wait for the server's answer.
    """
    try:
        if dialogue.may_hold and not dialogue.gone.done():
            dialogue.forgive()
            await dialogue.renew(0, bound)
    except NetworkError as error:
        _LOG.debug("an allocation was not seen to end: %s", error)
    finally:
        await dialogue.close()
