"""The SSDP search for the router in front of one address: the asyncio side of `ssdp`.

Asked are the group, by the one card, and the router itself, since some Wi-Fi networks lose multicast. Who
is believed: with IPv4 the default gateway; another machine on the link only at the end, when the gateway
has said nothing (two routers that share a virtual gateway address do that), and then only if what it says
of the outside is what STUN saw. With IPv6 whoever answers from a link-local address, because a router has
several, and calls itself by yet another one in its location; but there the connection always goes to the
gateway itself, so that the answer is no more than a hint at a port and a path.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from warpgate_core import IP4, Endpoint, NetworkError, ProtocolError
from warpgate_upnp import ssdp
from warpgate_upnp.reach import Site
from warpgate_upnp.sockets import open_udp, scope_of, sockaddr

__all__ = ["Candidate", "Finder"]

REPEAT = (0.3, 1.0)  # s after the first sending; UDA 1.1 section 1.3.2 asks for more than one, as UDP loses
MAX_CANDIDATES = 8  # that wait to be looked at; a router gives one per search target and sending


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may be our router.

    Args:
        found: what it answered.
        connect: whom to connect to for its description.
        is_gateway: it is the default gateway; else it is to be believed only with proof.
    """

    found: ssdp.Found
    connect: Endpoint
    is_gateway: bool


class Finder(asyncio.DatagramProtocol):
    """One search, as an asynchronous context manager.

    Args:
        site: own address and gateway.
        port: of SSDP.
        multicast: whether to ask the group as well.
    """

    def __init__(self, site: Site, port: int = ssdp.PORT, *, multicast: bool = True) -> None:
        self._site = site
        self._port = port
        self._multicast = multicast
        self._transport: asyncio.DatagramTransport | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._queue: asyncio.Queue[Candidate] = asyncio.Queue(MAX_CANDIDATES)
        self._seen: set[tuple[Endpoint, str]] = set()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        family = self._site.internal.family
        own = self._site.internal.host if family is IP4 else "::"  # the system picks the link-local one
        sock = open_udp(Endpoint(own, 0), card=self._site.card if self._multicast else "")
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, sock=sock)
            self._send()
        except BaseException:
            sock.close()
            raise
        self._timers = [loop.call_later(delay, self._send) for delay in REPEAT]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._transport is not None:
            self._transport.abort()
            await self._closed.wait()

    async def next(self, deadline: float) -> Candidate | None:
        """The next candidate; None if there is none until `deadline` (of the event loop's clock)."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._queue.get()
        except TimeoutError:
            return None

    def _send(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        family = self._site.internal.family
        hosts = [self._site.gateway]
        if self._multicast and family is IP4:
            hosts.append(ssdp.GROUPS[family])
        elif self._multicast:
            hosts.append(f"{ssdp.GROUPS[family]}%{scope_of(self._site.card)}")
        for target in ssdp.SEARCH_TARGETS:
            for host in hosts:
                where = Endpoint(host, self._port)
                self._transport.sendto(ssdp.search(where, target), sockaddr(where))

    # -- asyncio.DatagramProtocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.DatagramProtocol`."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.DatagramProtocol`."""
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: the gateway itself has no SSDP, which is no news; the group may still answer."""

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        """See `asyncio.DatagramProtocol`."""
        try:
            found = ssdp.parse_found(data)
            candidate = None if found is None else self._judge(found, Endpoint.of(addr))
        except (ProtocolError, NetworkError):
            return  # rubbish from whoever; the search goes on
        if candidate is None or self._queue.full():
            return
        key = (candidate.connect, candidate.found.location.target)
        if key not in self._seen:
            self._seen.add(key)
            self._queue.put_nowait(candidate)

    def _judge(self, found: ssdp.Found, responder: Endpoint) -> Candidate | None:
        """Who may be believed, and whom to connect to; see the top of this file."""
        site, location = self._site, found.location.endpoint
        is_gateway = responder.host == site.gateway
        if not is_gateway and not site.is_on_link(responder.host):
            return None
        if location.family is not site.internal.family:
            return None
        if site.internal.family is IP4:
            if location.host != responder.host:
                raise ProtocolError(f"the device at {responder.host} points to {location.host}")
            return Candidate(found, location, is_gateway)
        if not is_gateway and not responder.ip.is_link_local:
            return None
        return Candidate(found, Endpoint(site.gateway, location.port), is_gateway=True)
