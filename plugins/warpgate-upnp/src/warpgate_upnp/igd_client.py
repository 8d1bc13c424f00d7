"""UPnP with the router: the asyncio side of `ssdp`, `http` and `igd`, for IPv4 mappings and IPv6 pinholes.

Requests go one after the other, since many routers' HTTP servers serve one client at a time or mix up what
they are asked at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import ClassVar

from warpgate_core import IP4, Endpoint, NetworkError, ProtocolError
from warpgate_upnp import igd, ssdp
from warpgate_upnp.bargain import Bargain
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.fetch import fetch
from warpgate_upnp.finder import Candidate, Finder
from warpgate_upnp.http import request
from warpgate_upnp.leftovers import remove_leftovers
from warpgate_upnp.mapping import Lease, Wish
from warpgate_upnp.markup import Element

__all__ = ["IgdClient", "Line", "PinholeClient", "find_igd"]


class Line:
    """The way to one service: whom to connect to, and one request at a time."""

    def __init__(self, asker: Asker, service: igd.Service, host: str) -> None:
        self.asker = asker
        self.service = service
        self._remote = Endpoint(host, service.control.endpoint.port)
        self._turn = asyncio.Lock()

    async def ask(self, call: igd.Call) -> Element:
        """Make one call.

        Raises:
            RefusalError: the router said no; `code` is UPnP's.
            NetworkError: it said nothing.
            ProtocolError: it said rubbish.
        """
        async with self._turn:
            asker = self.asker
            own = asker.site.internal.host
            return igd.read_answer(call, await fetch(own, self._remote, call.data, asker.timing.http))


class IgdClient(Client):
    """A router with a WANIPConnection or WANPPPConnection service.

    Args:
        line: to that service.
        host: the router's external address.
    """

    protocol: ClassVar[str] = "UPnP"

    def __init__(self, line: Line, host: str) -> None:
        self._line = line
        self._host = host
        self._has_swept = False

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        """See `Client`. Tries other ports and leases if the router wants it so; see `bargain`."""
        asker, service = self._line.asker, self._line.service
        if held is not None:
            self._host = await external_address(self._line)
        own = wish.internal.port
        has_any = held is None and service.type.endswith(":2")
        wished = own if held is None else held.external.port
        bargain = Bargain(own, wished, asker.lease, has_any, asker.pick)
        while True:
            try:
                return await self._take(wish, bargain)
            except RefusalError as error:
                if not bargain.refused(error.code):
                    raise

    async def _take(self, wish: Wish, bargain: Bargain) -> Lease:
        offer, line = bargain.offer, self._line
        make = igd.add_any_mapping if offer.any_port else igd.add_mapping
        client = (wish.internal.host, wish.internal.port)
        call = make(line.service, wish.transport, offer.port, client, offer.lease, line.asker.description)
        answer = await line.ask(call)
        port = igd.parse_port(answer) if offer.any_port else offer.port
        if not offer.lease:
            await self._sweep(wish.internal)
        return Lease(self.protocol, Endpoint(self._host, port), float(offer.lease or math.inf))

    async def _sweep(self, own: Endpoint) -> None:
        """Mappings without end stay when we are killed; remove those of before, once."""
        if not self._has_swept:
            self._has_swept = True
            await remove_leftovers(self._line.ask, self._line.service, own, self._line.asker.description)

    async def release(self, wish: Wish, held: Lease) -> None:
        """See `Client`."""
        await self._line.ask(igd.delete_mapping(self._line.service, wish.transport, held.external.port))

    async def close(self) -> None:
        """See `Client`: connections live as long as a request."""


class PinholeClient(Client):
    """A router with a WANIPv6FirewallControl service."""

    protocol: ClassVar[str] = "UPnP"

    def __init__(self, line: Line) -> None:
        self._line = line

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        """See `Client`. A pinhole that the router does not know any more is made anew."""
        line, life = self._line, self._line.asker.lease
        if held is not None and held.protocol == self.protocol:
            with contextlib.suppress(RefusalError):  # 704 NoSuchEntry, most likely
                await line.ask(igd.update_pinhole(line.service, held.number, life))
                return Lease(self.protocol, wish.internal, float(life), held.number)
        client = (wish.internal.host, wish.internal.port)
        answer = await line.ask(igd.add_pinhole(line.service, wish.transport, client, life))
        return Lease(self.protocol, wish.internal, float(life), igd.parse_pinhole(answer))

    async def release(self, wish: Wish, held: Lease) -> None:
        """See `Client`."""
        await self._line.ask(igd.delete_pinhole(self._line.service, held.number))

    async def close(self) -> None:
        """See `Client`: connections live as long as a request."""


async def external_address(line: Line) -> str:
    """Ask for the external address; "" if the router has none at present."""
    return igd.parse_external_address(await line.ask(igd.external_address(line.service)))


async def find_igd(asker: Asker, port: int = ssdp.PORT, *, multicast: bool = True) -> Client:
    """Search for the router, read its description, and ask for its external address.

    Args:
        asker: who asks.
        port: of SSDP.
        multicast: whether to ask the group, beside the gateway itself.

    Raises:
        NetworkError: there is no such router; says what was found instead.
    """
    problems: list[str] = []
    others: list[Candidate] = []
    async with Finder(asker.site, port, multicast=multicast) as finder:
        deadline = asyncio.get_running_loop().time() + asker.timing.search
        while (candidate := await finder.next(deadline)) is not None:
            if not candidate.is_gateway:
                others.append(candidate)
                continue
            try:
                return await _try(asker, candidate)
            except (NetworkError, ProtocolError) as error:
                problems.append(str(error))
    for candidate in others[:1]:
        try:
            return await _try(asker, candidate)
        except (NetworkError, ProtocolError) as error:
            problems.append(str(error))
    raise NetworkError("; ".join(dict.fromkeys(problems)) or "no router answers a UPnP search")


async def _try(asker: Asker, candidate: Candidate) -> Client:
    """What this device offers.

    Raises:
        NetworkError, ProtocolError: nothing that can be used.
    """
    location, own = candidate.found.location, asker.site.internal.host
    response = await fetch(own, candidate.connect, request("GET", location), asker.timing.http)
    if response.status != 200:
        raise ProtocolError(f"{location} answered HTTP status {response.status}; redirects are not followed")
    services = igd.parse_services(response.body, location)
    asker.clock.sightings.learn(candidate.found)
    if asker.site.internal.family is IP4:
        return await _try_connections(asker, candidate, services)
    for service in services:
        if service.type == igd.FIREWALL:
            return PinholeClient(Line(asker, service, candidate.connect.host))
    raise NetworkError(f"the router at {location} offers no IPv6 pinholes")


async def _try_connections(asker: Asker, candidate: Candidate, services: list[igd.Service]) -> Client:
    """The first connection of the router that is up: some describe a PPP and an IP one, and use one."""
    problem = f"the router at {candidate.found.location} offers no port mappings"
    for service in services:
        if service.type not in igd.CONNECTIONS:
            continue
        line = Line(asker, service, candidate.connect.host)
        try:
            host = await external_address(line)
        except RefusalError as error:
            problem = str(error)
            continue
        if not host:
            problem = "the router is not connected to the internet itself"
        elif not candidate.is_gateway and host != asker.seen():
            problem = (
                f"{candidate.connect.host} offers port mappings, but it is not the default gateway and "
                f"{host} is not the address that this node is seen as"
            )
        else:
            return IgdClient(line, host)
    raise NetworkError(problem)
