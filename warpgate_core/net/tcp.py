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
import os
import socket
import struct
from collections.abc import Callable

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net.keepalive import keep_alive
from warpgate_core.net.ports import leave_by, share_port, sockaddr
from warpgate_core.net.stream import StreamLink

__all__ = ["Listener", "dial", "reset"]

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


async def dial(remote: Endpoint, *, local: Endpoint | None = None, leave_by_card: int = 0) -> StreamLink:
    """Open one TCP connection. Cancelling leaves no socket behind.

    Args:
        remote: where to.
        local: bind there first, sharing the port with whoever shares it too (port 0: any); None: as the
            system likes.
        leave_by_card: number of the card to send by, see `ports.leave_by`; 0: as the system likes.

    Raises:
        NetworkError: with a sentence that says what happened; the system's error is chained.
    """
    if local is not None and local.family is not remote.family:
        raise NetworkError(f"{remote} cannot be dialled from {local}: different address families")
    loop = asyncio.get_running_loop()
    sock = socket.socket(remote.family.socket_family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # frames are small and awaited
        if leave_by_card:
            leave_by(sock, remote.family, leave_by_card)
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
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.abort()


def _dial_error(error: Exception, remote: Endpoint, local: Endpoint | None) -> NetworkError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL and local is not None:
        return NetworkError(
            f"{remote} was not dialled: {local} is not ours (any more), or has a connection there just closed"
        )
    if number == errno.EADDRINUSE and local is not None:
        return NetworkError(f"{remote} was not dialled: port {local} is taken by another program")
    text = _REASONS.get(number or 0, "{remote} was not reached: {error}")
    return NetworkError(text.format(remote=remote, error=error))


class Listener:
    """A TCP listener on a socket from `ports.bind_pair`.

    Args:
        on_link: called with each accepted link, connected and reading.
    """

    def __init__(self, on_link: Callable[[StreamLink], None]) -> None:
        self._on_link = on_link
        self._server: asyncio.Server | None = None

    async def open(self, sock: socket.socket) -> None:
        """Listen on a bound, non-blocking socket; it is closed with this one, or here on failure."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: StreamLink(self._accepted), sock=sock, backlog=BACKLOG
            )
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Stop listening. Accepted connections live on; they belong to whoever got them."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _accepted(self, link: StreamLink) -> None:
        if self._server is None:  # it came while we closed
            link.abort()
            return
        keep_alive(link.transport)
        self._on_link(link)
