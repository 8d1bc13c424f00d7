"""The plugin: one service per node, with a `Holder` for each own address behind a router.

It follows the node's interfaces: an address that comes gets a holder, one that goes, or gets another router,
loses its own. Made by the hook `warpgate_node_service`; what it says of itself goes to `warpgate doctor`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from warpgate_core import IP4, IP6, Identity, LocalInterface, NodeContext, hookimpl
from warpgate_upnp import options as options_module
from warpgate_upnp.announcements import RouterClock
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.holder import Holder
from warpgate_upnp.igd_client import find_igd
from warpgate_upnp.mapping import Wish
from warpgate_upnp.pcp import NONCE_BYTES
from warpgate_upnp.port_control import NatPmpClient, PcpClient
from warpgate_upnp.race import Entrant
from warpgate_upnp.reach import Site, is_needless, sites
from warpgate_upnp.status import MappingStatus, sentences, status_of

__all__ = ["Upnp"]

_LOG = logging.getLogger("warpgate.upnp")


class Upnp:
    """The plugin object; there is one per node.

    Args:
        options: see `Options`.
    """

    Options = options_module.Options

    def __init__(self, options: options_module.Options) -> None:
        self._options = options
        self._service: _Service | None = None

    @hookimpl
    def warpgate_node_service(self, context: NodeContext) -> AbstractAsyncContextManager[None]:
        """Port mappings for as long as the node lives."""
        self._service = _Service(context, self._options)
        return self._service.live()

    @hookimpl
    def warpgate_node_status(self) -> list[str]:
        """What is mapped where, or why nothing is."""
        return sentences(self.status())

    def status(self) -> tuple[MappingStatus, ...]:
        """Every mapping that is wanted, with its state now; empty if no router stands before this node."""
        return () if self._service is None else self._service.status()


class _Service:
    """The holders of one node."""

    def __init__(self, context: NodeContext, options: options_module.Options) -> None:
        self._context = context
        self._options = options
        self._secret = _secret_of(context.identity)
        self._holders: dict[Site, tuple[Holder, asyncio.Task[None]]] = {}
        self._look = asyncio.Event()
        self._looked = asyncio.Event()  # for the first time

    def status(self) -> tuple[MappingStatus, ...]:
        now = asyncio.get_running_loop().time()
        return tuple(
            status_of(holder, mapping, now)
            for holder, _ in self._holders.values()
            for mapping in holder.mappings
        )

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Follow the network until left. Entered when the routers there are have answered, or are none."""
        unwatch = self._context.on_change(self._look.set)
        follower = asyncio.create_task(self._follow(), name="upnp: follow")
        follower.add_done_callback(_report)
        try:
            await self._settled(follower)
            yield
        finally:
            unwatch()
            follower.cancel()
            await asyncio.wait({follower})
            await self._end(list(self._holders))

    async def _settled(self, follower: asyncio.Task[None]) -> None:
        """Wait until every holder has had its first answer."""
        await _either(self._looked, follower)
        for holder, task in tuple(self._holders.values()):
            await _either(holder.answered, task)

    async def _follow(self) -> None:
        while True:
            self._look.clear()
            await self._reconcile()
            self._looked.set()
            await self._look.wait()

    async def _reconcile(self) -> None:
        """Bring holders in line with the addresses and routers of now."""
        faces = {face.internal: face for face in self._context.interfaces}
        wanted = {site: faces[site.internal] for site in sites(faces.values(), self._context.gateways)}
        await self._end([site for site in self._holders if site not in wanted])
        for site, face in wanted.items():
            if site in self._holders:
                self._holders[site][0].changed(face)
            elif not is_needless(face) and (entrants := self._entrants(site, face)):
                self._start(site, face, entrants)

    def _start(self, site: Site, face: LocalInterface, entrants: list[Entrant]) -> None:
        holder = Holder(self._context, face, self._asker(site), entrants)
        task = asyncio.create_task(holder.run(), name=f"upnp: hold {site.internal}")
        task.add_done_callback(_report)
        self._holders[site] = (holder, task)

    async def _end(self, ending: list[Site]) -> None:
        """Cancel these, which give back what they hold; cancelled ourselves, they stop even that."""
        tasks = {self._holders.pop(site)[1] for site in ending}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise

    def _asker(self, site: Site) -> Asker:
        def seen() -> str:
            held = self._holders.get(site)
            return "" if held is None or held[0].face.external is None else held[0].face.external.host

        return Asker(
            site=site,
            clock=RouterClock(asyncio.get_running_loop().time),
            lease=self._options.lease,
            description=f"{self._options.description} {self._context.identity.node_id}",
            nonce=self._nonce,
            pick=random.randrange,  # a port that is free, not one that nobody can guess
            seen=seen,
        )

    def _nonce(self, wish: Wish) -> bytes:
        """A PCP nonce that others cannot guess and that we have again after a crash, to own the mapping."""
        text = f"{wish.transport} {wish.internal}".encode()
        return hmac.digest(self._secret, b"warpgate-upnp PCP nonce " + text, "sha256")[:NONCE_BYTES]

    def _entrants(self, site: Site, face: LocalInterface) -> list[Entrant]:
        """By which protocols a router can be asked for this address, the preferred one first."""
        options, found = self._options, list[Entrant]()
        if site.internal.family is IP6 and not options.ipv6:
            return found
        if options.pcp:
            found.append(Entrant(PcpClient.find))
        is_translated = face.external is None or face.external.host != face.internal.host
        if site.internal.family is IP4 and not is_translated:
            return found  # a firewall only, and of the three PCP alone opens one for IPv4
        if options.nat_pmp and site.internal.family is IP4:
            found.append(Entrant(NatPmpClient.find))
        if options.igd:
            found.append(Entrant(_find_igd, waits=True))
        return found


async def _find_igd(asker: Asker, _on_forgotten: object) -> Client:
    return await find_igd(asker)  # UPnP's answers tell nothing of restarts; its announcements do


async def _either(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait for the event, or for the end of the task that would set it."""
    waiting = asyncio.create_task(event.wait(), name="upnp: wait")
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _secret_of(identity: Identity) -> bytes:
    """A secret that only this identity can compute: an exchange with itself."""
    return hashlib.sha256(b"warpgate-upnp " + identity.exchange(identity.public_key)).digest()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error(
            "%s has failed; this address gets no port mapping any more", task.get_name(), exc_info=error
        )
