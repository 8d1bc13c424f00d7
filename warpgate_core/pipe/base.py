"""What every pipe can do, whatever carries it.

An abstract class and not a protocol, because closing, iterating and reporting are the same for both
kinds and belong in one place. Rejected: one class with a `transport` switch inside, since bytes and
messages differ in what `recv` means, and a reader of either should not have to read both.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Literal, Self

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import InputError, PipeClosedError, PipeError
from warpgate_core.trace import Trace

__all__ = ["SUB_ALL", "Path", "Pipe", "Sub", "check_sub"]


class Sub:
    """What a `recv` is interested in; there is one, `SUB_ALL`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SUB_ALL"


SUB_ALL: Final = Sub()


@dataclass(frozen=True, slots=True)
class Path:
    """The way a pipe's packets take.

    Args:
        transport: "tcp" or "udp".
        local: own end.
        remote: the peer's end as seen from here; the relay's endpoint for a relayed path.
        kind: where the remote end comes from, in the words of RFC 8445: the peer's own address, its
            mapped one, one learnt on the way (peer-reflexive), or a relay.
    """

    transport: Literal["tcp", "udp"]
    local: Endpoint
    remote: Endpoint
    kind: Literal["host", "srflx", "prflx", "relay"] = "host"

    def __str__(self) -> str:
        return f"{self.transport} {self.local} to {self.remote} ({self.kind})"


class Pipe(ABC):
    """A connected channel to a peer whose key was proven.

    An async context manager that closes it, and an async iterator over what `recv` returns that ends
    when the peer closes; it raises `PeerLostError` when the peer vanishes.

    Args:
        peer: the peer's public key, 33 bytes.
        path: the way that was nominated.
        strategy: name of the strategy that found it.
        trace: what happened until it stood.
    """

    def __init__(self, *, peer: bytes, path: Path, strategy: str, trace: Trace) -> None:
        self.peer = peer
        self.path = path
        self.strategy = strategy
        self.trace = trace
        self._over = asyncio.Event()
        self._close_callbacks: list[Callable[[Pipe], None]] = []

    @abstractmethod
    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes (stream) or one message (datagram).

        `data` may be changed or reused as soon as this returns. Cancelling while it waits does not
        take back what was accepted.

        Raises:
            PipeClosedError: the pipe was closed, by either end.
            PeerLostError: the peer vanished.
        """

    @abstractmethod
    async def recv(self, sub: Sub = SUB_ALL, timeout: float | None = None) -> bytes:
        """Receive what is there, or wait for it. One `recv` may wait at a time.

        Args:
            sub: `SUB_ALL`, everything.
            timeout: seconds; None waits as long as it takes.

        Raises:
            PipeClosedError: the peer closed and all it sent was received, or this side closed.
            PeerLostError: the peer vanished.
            TimeoutError: nothing came in time; the pipe stays usable.
        """

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye and release everything; bounded in time. Harmless twice."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the pipe is over: closed by this side, or nothing can be sent any more."""

    @property
    @abstractmethod
    def error(self) -> PipeError | None:
        """Why the pipe broke; None while it is open, and after an orderly end."""

    async def aclose(self) -> None:
        """The same as `close`, under the name that `contextlib.aclosing` looks for."""
        await self.close()

    async def wait_closed(self) -> None:
        """Wait until the pipe is over and its resources are released. Raises nothing."""
        await self._over.wait()

    def add_close_callback(self, callback: Callable[[Pipe], None]) -> None:
        """Call `callback` with this pipe once it is over; soon, if it is already."""
        if self._over.is_set():
            asyncio.get_running_loop().call_soon(callback, self)
        else:
            self._close_callbacks.append(callback)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except PipeClosedError:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.path} by {self.strategy}, peer {self.peer.hex()[:10]}, {state}>"

    def _finished(self) -> None:
        """The pipe is over: tell everybody, once."""
        if self._over.is_set():
            return
        self._over.set()
        callbacks, self._close_callbacks = self._close_callbacks, []
        for callback in callbacks:
            callback(self)


def check_sub(sub: object) -> None:
    """Refuse anything but `SUB_ALL`.

    Raises:
        InputError: it is something else.
    """
    if sub is not SUB_ALL:
        raise InputError(
            f"recv cannot select by {sub!r}: a pipe has one peer, so only SUB_ALL is known "
            "(a time limit goes in timeout=)"
        )
