"""Holds the mappings of one own address: finds the router, asks, publishes, renews, gives back at the end.

One task per address. It sleeps until the earliest moment at which a `Mapping` wants something, or until it
is woken: by the router's announcements, by a change of the network, by an answer that shows a restart. What
a mapping wants and when is decided in `mapping`, whether it may be published in `reach`; here is only the
doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence

from warpgate_core import Endpoint, LocalInterface, NetworkError, NodeContext, ProtocolError
from warpgate_upnp.announcements import Announcements
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.mapping import Mapping, State, Wish
from warpgate_upnp.race import Entrant, Race
from warpgate_upnp.reach import Site, doubt

__all__ = ["Holder"]

_LOG = logging.getLogger("warpgate.upnp")

# The node gives a service 3 s to leave in order; both together stay below.
FINISH_ASKING = 1.0  # s for a request that is under way when we end: what it makes is to be deleted as well
GIVE_BACK = 1.5  # s for deleting all mappings, at the same time

_Outcome = dict[Mapping, NetworkError | ProtocolError]


class Holder:
    """The mappings of one address, for UDP and TCP.

    Args:
        context: of the node.
        face: the address, with what STUN knows of it.
        asker: who asks whom.
        entrants: per protocol, how to find a router that speaks it; the preferred one first.
        listen: also hear the router's announcements.

    Attributes:
        face: as last told.
        mappings: one for UDP and one for TCP.
        answered: set when it is known for the first time what comes of it.
    """

    def __init__(
        self,
        context: NodeContext,
        face: LocalInterface,
        asker: Asker,
        entrants: Sequence[Entrant],
        *,
        listen: bool = True,
    ) -> None:
        self.face = face
        self._context = context
        self._asker = asker
        self._entrants = tuple(entrants)
        self._listen = listen
        self._client: Client | None = None
        self._wake = asyncio.Event()
        self.answered = asyncio.Event()
        self._published: dict[Mapping, Endpoint] = {}
        now = asyncio.get_running_loop().time()
        self.mappings = tuple(
            Mapping(Wish(asker.site.internal, transport), now, random.random) for transport in ("udp", "tcp")
        )

    @property
    def site(self) -> Site:
        """The own address and the router in front of it."""
        return self._asker.site

    def published(self, mapping: Mapping) -> Endpoint | None:
        """What is in the node's address for this mapping."""
        return self._published.get(mapping)

    def changed(self, face: LocalInterface) -> None:
        """The network has changed, or STUN has learnt something about this address."""
        before, self.face = self.face, face
        if _seen(before) != _seen(face):  # another address outside: perhaps another line, or another router
            self._forgotten()
        self._wake.set()

    async def run(self) -> None:
        """Hold mappings until cancelled; then give them back, within `FINISH_ASKING` and `GIVE_BACK`."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._listen:
                    heard = Announcements(self.site, self._asker.clock, self._announced)
                    await stack.enter_async_context(heard)
                    for problem in heard.problems:
                        _LOG.info("%s; a restart of the router is noticed later", problem)
                await self._hold()
        finally:
            await self._give_back()

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            for mapping in self.mappings:
                mapping.tick(now)
            await self._review()
            if all(mapping.is_settled for mapping in self.mappings):
                self.answered.set()
            if due := [mapping for mapping in self.mappings if mapping.due <= now]:
                await self._ask(due)
                continue
            with contextlib.suppress(TimeoutError):  # then something is due
                async with asyncio.timeout_at(min(mapping.wakeup for mapping in self.mappings)):
                    await self._wake.wait()

    # -- asking ----------------------------------------------------------------------------------

    async def _ask(self, due: list[Mapping]) -> None:
        """Ask the router we know; if it does not answer, whichever we find."""
        now = asyncio.get_running_loop().time()
        for mapping in due:
            mapping.asked(now)
        failed: _Outcome = dict.fromkeys(due, NetworkError("the router was not asked yet"))
        if self._client is not None:
            failed = await self._lease(self._client, due)
            if failed and not any(mapping.lease for mapping in self.mappings):
                await self._drop_client()  # next time, see whether another protocol does better
        if any(not isinstance(error, RefusalError) for error in failed.values()):
            await self._drop_client()
            failed = await self._race(list(failed))
        now = asyncio.get_running_loop().time()
        for mapping, error in failed.items():
            is_refusal = isinstance(error, RefusalError)
            after = error.retry_after if isinstance(error, RefusalError) else None
            mapping.failed(str(error), now, refused=is_refusal, retry_after=after)
            _LOG.debug("%s %s: %s", mapping.wish.transport, mapping.wish.internal, error)

    async def _race(self, wanted: list[Mapping]) -> _Outcome:
        """Look for a router by every protocol, and take the first that gives something."""
        refusals: dict[Mapping, RefusalError] = {}
        async with Race(self._entrants, self._asker, self._forgotten) as race:
            while (client := await race.next()) is not None:
                self._client = client
                failed = await self._lease(client, wanted)
                if len(failed) < len(wanted):
                    return failed
                race.problems += dict.fromkeys(map(str, failed.values()))
                refusals |= {m: error for m, error in failed.items() if isinstance(error, RefusalError)}
                await self._drop_client()
        text = "; ".join(dict.fromkeys(race.problems))
        return {mapping: _with_text(refusals.get(mapping), text) for mapping in wanted}

    async def _lease(self, client: Client, wanted: list[Mapping]) -> _Outcome:
        """Ask for all of them at once; who was granted nothing, and why.

        When we are cancelled meanwhile, what was asked for may come into being a moment later and must be
        known then, so that it can be deleted.
        """
        task = asyncio.create_task(self._lease_all(client, wanted), name="upnp: lease")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=FINISH_ASKING)
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _lease_all(self, client: Client, wanted: list[Mapping]) -> _Outcome:
        errors = await asyncio.gather(*(self._lease_one(client, mapping) for mapping in wanted))
        return {mapping: error for mapping, error in zip(wanted, errors, strict=True) if error is not None}

    async def _lease_one(self, client: Client, mapping: Mapping) -> NetworkError | ProtocolError | None:
        try:
            lease = await client.lease(mapping.wish, mapping.lease)
        except (NetworkError, ProtocolError) as error:
            return error
        mapping.granted(lease, asyncio.get_running_loop().time())
        return None

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # -- signs -----------------------------------------------------------------------------------

    def _announced(self, is_restart: bool) -> None:
        if is_restart:
            self._forgotten()
            return
        now = asyncio.get_running_loop().time()
        for mapping in self.mappings:
            mapping.noticed(now)
        self._wake.set()

    def _forgotten(self) -> None:
        """The router has lost its state, as far as can be told."""
        now = asyncio.get_running_loop().time()
        for mapping in self.mappings:
            mapping.lost(now)
        self._wake.set()

    # -- publishing ------------------------------------------------------------------------------

    async def _review(self) -> None:
        """Publish what is held and true; give back what is of no use."""
        useless: list[Mapping] = []
        for mapping in self.mappings:
            lease = mapping.lease
            problem = "" if lease is None else doubt(lease.external.host, self.face)
            self._publish(mapping, None if lease is None or problem else lease.external)
            if problem and mapping.state is State.HELD:
                useless.append(mapping)
        if useless:
            await self._release(useless)
            now = asyncio.get_running_loop().time()
            for mapping in useless:
                if mapping.lease is not None:
                    mapping.given_up(doubt(mapping.lease.external.host, self.face), now)

    def _publish(self, mapping: Mapping, external: Endpoint | None) -> None:
        before, wish = self._published.get(mapping), mapping.wish
        if external == before:
            return
        if external is None:
            del self._published[mapping]
            self._context.withdraw(wish.internal, wish.transport)
            _LOG.info("%s %s is no longer mapped", wish.transport, wish.internal)
        else:
            self._published[mapping] = external
            self._context.publish(wish.internal, external, wish.transport)
            _LOG.info("%s %s is reached at %s", wish.transport, wish.internal, external)

    # -- giving back -----------------------------------------------------------------------------

    async def _give_back(self) -> None:
        for mapping in self.mappings:
            self._publish(mapping, None)
        try:
            await self._release([mapping for mapping in self.mappings if mapping.lease is not None])
        finally:
            await self._drop_client()

    async def _release(self, mappings: Sequence[Mapping]) -> None:
        """Delete these at the router, for `GIVE_BACK` seconds at most; what stays runs out by itself."""
        client = self._client
        if client is None:
            return
        try:
            async with asyncio.timeout(GIVE_BACK):
                await asyncio.gather(*(self._release_one(client, mapping) for mapping in mappings))
        except TimeoutError:
            _LOG.info("the router %s does not answer; its mappings run out", self.site.gateway)

    async def _release_one(self, client: Client, mapping: Mapping) -> None:
        lease = mapping.lease
        if lease is None or lease.protocol != client.protocol:
            return
        try:
            await client.release(mapping.wish, lease)
        except (NetworkError, ProtocolError) as error:
            _LOG.info(
                "%s %s stays mapped until it runs out: %s", mapping.wish.transport, lease.external, error
            )


def _with_text(refusal: RefusalError | None, text: str) -> NetworkError:
    """A refusal is one even if others were merely silent; the text tells of all of them."""
    if refusal is None:
        return NetworkError(text)
    return RefusalError(text, code=refusal.code, retry_after=refusal.retry_after)


def _seen(face: LocalInterface) -> str:
    return "" if face.external is None else face.external.host
