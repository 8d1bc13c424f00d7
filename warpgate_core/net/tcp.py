"""TCP at the edge: a listener per address, and dialling, also from the listener's own port.

Dialling is written out with `sock_connect`, because `loop.create_connection` cannot set SO_REUSEPORT
before it binds, resolves names that we never have, and tries addresses one by one without saying which
failed. The link that comes out is the same `StreamLink` for both directions.

Rejected: a timeout here. How long a dial may take is known to the race alone; the system gives up by
itself after a good two minutes (RFC 9293, tcp(7) tcp_syn_retries), and cancelling closes the socket at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net.keepalive import keep_alive
from warpgate_core.net.ports import leave_by_device, share_port, sockaddr
from warpgate_core.net.stream import StreamLink
from warpgate_core.tasks import TaskSet

__all__ = ["Listener", "dial", "reset"]

_LOG = logging.getLogger("warpgate")
ACCEPT_PAUSE = 1.0  # s without accepting when the system has no file left; asyncio waits as long
BACKLOG = 128  # what listen(2) allowed at most for decades; a burst of crossing dials is a tenth of that

_REASONS = {
    errno.ECONNREFUSED: "{remote} refused the connection: nothing listens there, or a firewall says so",
    errno.ETIMEDOUT: "{remote} did not answer: it is off, or a firewall drops what we send",
    errno.EHOSTUNREACH: "{remote} cannot be reached: the network says there is no such host",
    errno.ENETUNREACH: "{remote} cannot be reached: this machine has no route there",
    errno.EINVAL: "{remote} cannot be reached: this machine has no route there",
    errno.ECONNRESET: "{remote} broke the connection off while it was being opened",
    errno.ECONNABORTED: "{remote} broke the connection off while it was being opened",
    errno.EACCES: "{remote} may not be dialled: a firewall on this machine forbids it",
    errno.EPERM: "{remote} may not be dialled: a firewall on this machine forbids it",
    errno.EAFNOSUPPORT: "{remote} cannot be dialled: this machine does not speak its address family",
    errno.EMFILE: "{remote} was not dialled: this process has too many files open (see ulimit -n)",
}


async def dial(remote: Endpoint, *, local: Endpoint | None = None, card: str = "") -> StreamLink:
    """Open one TCP connection. Cancelling leaves no socket behind.

    Args:
        remote: where to.
        local: bind there first, sharing the port with whoever shares it too (port 0: any); None: as the
            system likes.
        card: to send by, see `ports.leave_by_device`; "": as the system likes.

    Raises:
        NetworkError: with a sentence that says what happened; the system's error is chained.
    """
    if local is not None and local.family is not remote.family:
        raise NetworkError(f"{remote} cannot be dialled from {local}: different address families")
    loop = asyncio.get_running_loop()
    sock = socket.socket(remote.family.socket_family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # frames are small and awaited
        if card:
            leave_by_device(sock, card)
        if local is not None:
            share_port(sock)
            sock.bind(sockaddr(local))
        await loop.sock_connect(sock, sockaddr(remote))
        if sock.getsockname() == sock.getpeername():  # a port of our own range, dialled from itself
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except (OSError, ValueError, OverflowError) as error:
        sock.close()
        raise _dial_error(error, remote, local) from error
    except BaseException:
        if local is not None:
            _forget(sock)  # half a handshake must not keep us from dialling the same way again
        sock.close()
        raise
    try:
        _, link = await loop.create_connection(StreamLink, sock=sock)
    except OSError as error:
        sock.close()
        raise _dial_error(error, remote, local) from error
    keep_alive(link.transport)
    return link


def reset(link: StreamLink) -> None:
    """Close at once with a reset, so that the pair of endpoints can be used again without waiting.

    An orderly close leaves it in TIME_WAIT (RFC 9293 section 3.6) for a minute.
    """
    sock = link.transport.get_extra_info("socket")
    if sock is not None and not link.is_lost:
        _forget(sock)
    link.abort()


def _forget(sock: socket.socket) -> None:
    """Let closing this socket leave nothing behind at either end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _dial_error(error: Exception, remote: Endpoint, local: Endpoint | None) -> NetworkError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL and local is not None:
        return NetworkError(
            f"{remote} was not dialled: {local} is not ours (any more), or is connected with it already"
        )
    if number == errno.EADDRINUSE and local is not None:
        return NetworkError(f"{remote} was not dialled: port {local} is taken by another program")
    text = _REASONS.get(number or 0, "{remote} was not reached: {error}")
    return NetworkError(text.format(remote=remote, error=error))


class Listener:
    """A TCP listener on a socket from `ports.bind_pair`.

    It accepts by itself: `loop.create_server` loses a connection that comes in while it is being closed
    (CPython 3.11: `Server._attach` asserts, and the accepted socket stays open until garbage collection).

    Args:
        on_link: called with each accepted link, connected and reading.
    """

    def __init__(self, on_link: Callable[[StreamLink], None]) -> None:
        self._on_link = on_link
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: set[socket.socket] = set()
        self._tasks = TaskSet("listener")

    async def open(self, sock: socket.socket) -> None:
        """Listen on a bound, non-blocking socket; it is closed with this one, or here on failure."""
        loop = asyncio.get_running_loop()
        self._sock = sock
        try:
            sock.listen(BACKLOG)
            try:
                loop.add_reader(sock.fileno(), self._readable)
            except NotImplementedError:  # Windows' proactor loop
                self._server = await loop.create_server(
                    lambda: StreamLink(self._connected), sock=sock, backlog=BACKLOG
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening, at once. Accepted connections live on; they belong to whoever got them."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        if self._server is not None:
            self._server.close()
        elif sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()

    async def wait_closed(self) -> None:
        """After `close`: wait until what was just being accepted is handed over or closed."""
        await self._tasks.close()
        while self._waiting:
            self._waiting.pop().close()

    def _readable(self) -> None:
        for _ in range(BACKLOG):
            if self._sock is None:
                return
            try:
                conn, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files, no memory: it will pass, or it will not
                _LOG.warning("cannot accept connections for %g s: %s", ACCEPT_PAUSE, error)
                self._stop_for_a_while()
                return
            conn.setblocking(False)
            self._waiting.add(conn)
            self._tasks.start(self._adopt(conn), "accept")

    def _stop_for_a_while(self) -> None:
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        self._pause = loop.call_later(ACCEPT_PAUSE, loop.add_reader, self._sock.fileno(), self._readable)

    async def _adopt(self, conn: socket.socket) -> None:
        self._waiting.discard(conn)  # from here on the transport closes it
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: StreamLink(self._connected), conn
            )
        except OSError:  # it broke before we looked
            conn.close()

    def _connected(self, link: StreamLink) -> None:
        if self._sock is None:  # it came while we closed
            link.abort()
            return
        keep_alive(link.transport)
        try:
            self._on_link(link)
        except BaseException:  # then nobody has it; the event loop reports the error
            link.abort()
            raise
