"""Questions and answers with one server over UDP, repeated until answered: beneath PCP and NAT-PMP.

The socket is connected, so the kernel drops what comes from elsewhere and tells at once when nobody listens
there. Several questions may be under way; each looks at every datagram and takes the one that is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, TypeVar

from warpgate_core import Endpoint, NetworkError, ProtocolError
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.sockets import open_udp
from warpgate_upnp.timing import Timing

__all__ = ["Conversation"]

T = TypeVar("T")


class Conversation(asyncio.DatagramProtocol):
    """With one server, until `close`. Made by `open`."""

    def __init__(self, server: Endpoint) -> None:
        self.server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._questions: dict[asyncio.Future[Any], Callable[[bytes], Any]] = {}
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, local_host: str, server: Endpoint) -> Self:
        """Open the socket.

        Args:
            local_host: own address to ask from.
            server: whom.

        Raises:
            NetworkError: there is no way from here to there.
        """
        self = cls(server)
        sock = open_udp(Endpoint(local_host, 0), remote=server)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            if self._transport is None:
                sock.close()
            else:
                self._transport.abort()
            raise
        return self

    async def close(self) -> None:
        """Close the socket; questions under way fail."""
        if self._transport is not None:
            self._transport.abort()
            await self._closed.wait()

    async def ask(self, question: bytes, understand: Callable[[bytes], T | None], timing: Timing) -> T:
        """Send until there is an answer.

        Args:
            question: what is sent.
            understand: given each datagram, returns the answer; None, or `ProtocolError`, if it is none to
                this question; `RefusalError` if it is the answer "no".
            timing: how often, how long.

        Raises:
            RefusalError: see above.
            NetworkError: nobody answers, or nobody is there.
        """
        if self._transport is None or self._transport.is_closing():
            raise NetworkError(f"the conversation with {self.server} is over")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._questions[future] = understand
        try:
            for number in range(timing.tries):
                self._transport.sendto(question)
                try:
                    async with asyncio.timeout(timing.resend * 2**number):
                        return await asyncio.shield(future)
                except TimeoutError:
                    continue
        finally:
            del self._questions[future]
            future.cancel()
        raise NetworkError(f"{self.server} does not answer")

    # -- asyncio.DatagramProtocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.DatagramProtocol`."""
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        """See `asyncio.DatagramProtocol`."""
        for future, understand in tuple(self._questions.items()):
            if future.done():
                continue
            try:
                answer = understand(data)
            except RefusalError as error:
                future.set_exception(error)
            except ProtocolError:
                continue  # rubbish, or the answer to another question
            else:
                if answer is not None:
                    future.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        """The kernel reports an ICMP error: nobody is there."""
        self._fail(NetworkError(f"{self.server} cannot be asked: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.DatagramProtocol`."""
        self._fail(NetworkError(f"the conversation with {self.server} is over"))
        self._closed.set()

    def _fail(self, error: NetworkError) -> None:
        for future in self._questions:
            if not future.done():
                future.set_exception(error)
