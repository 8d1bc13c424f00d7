"""TCP keepalive: the kernel finds out that a silent peer has vanished, and holds NAT mappings open.

With it a dead peer shows after 30 s on TCP as it does on UDP (consent, RFC 7675 section 5.1). Rejected:
frames of our own, because an established TCP pipe carries raw application bytes and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final

__all__ = ["keep_alive"]

IDLE: Final = 15  # s of silence until the first probe; with the two below a dead peer shows in 30 s
INTERVAL: Final = 5  # s between probes
COUNT: Final = 3  # unanswered probes until the connection is lost
USER_TIMEOUT: Final = 30_000  # ms that sent bytes may stay unacknowledged (RFC 5482), for the same 30 s
HARMLESS: Final = (errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EBADF)  # gone, or not TCP


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel watch the connection of `transport`, as far as this system can be told to."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT),
    ):
        option = getattr(socket, name, None)
        if option is None:
            continue
        try:
            sock.setsockopt(level, option, value)
        except OSError as error:
            if error.errno not in HARMLESS:
                raise
