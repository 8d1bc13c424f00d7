"""Mappings that an earlier run of this node has left at a router which knows mappings without end only.

Everywhere else a mapping of a killed node runs out by itself. Here it would stay for ever, so that after a
hundred crashes the router is full. An entry is removed if it is ours beyond doubt: our description (with the
node's id), our address, no end, and nobody on this machine uses its port, as another process of ours might.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from warpgate_core import Endpoint, NetworkError, ProtocolError
from warpgate_upnp import igd
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.markup import Element
from warpgate_upnp.sockets import sockaddr

__all__ = ["remove_leftovers"]

MAX_ENTRIES = 64  # lines of the table that are read; old routers have room for 32


async def remove_leftovers(
    ask: Callable[[igd.Call], Awaitable[Element]], service: igd.Service, own: Endpoint, description: str
) -> int:
    """Remove what is left of earlier runs.

    Args:
        ask: makes a call.
        service: one of `igd.CONNECTIONS`.
        own: internal endpoint now; its port is in use.
        description: what ours are called.

    Returns:
        How many were removed. A router that does not show its table has shown none.
    """
    stale = []
    try:
        for index in range(MAX_ENTRIES):
            entry = igd.parse_entry(await ask(igd.generic_entry(service, index)))
            if _is_stale(entry, own, description):
                stale.append(entry)
    except RefusalError:
        pass  # the end of the table (713), or it does not show it
    except (NetworkError, ProtocolError):
        return 0
    removed = 0
    for entry in stale:
        try:
            await ask(igd.delete_mapping(service, entry.protocol, entry.external_port))
            removed += 1
        except (NetworkError, ProtocolError):
            break
    return removed


def _is_stale(entry: igd.Entry, own: Endpoint, description: str) -> bool:
    is_ours = entry.description == description and entry.internal_client == own.host and not entry.lease
    if not is_ours or entry.internal_port in (0, own.port) or entry.protocol not in ("tcp", "udp"):
        return False
    kind = socket.SOCK_STREAM if entry.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(own.family.socket_family, kind) as probe:
        try:
            probe.bind(sockaddr(Endpoint(own.host, entry.internal_port)))
        except OSError:
            return False  # somebody uses it
    return True
