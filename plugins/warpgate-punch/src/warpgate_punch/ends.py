"""Where this node's TCP connections come from, as the peer is told.

What is certain or nearly so is known at once, and enters the offer or answer: a port that is forwarded or
not translated, one that a STUN server saw before, one that the NAT will most likely keep. The rest is asked
of a STUN server over TCP while the session begins, and follows in a message. Rejected: waiting for the
servers (two round trips, and every other strategy would wait as well).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from warpgate_core import Endpoint, LocalInterface, Mapping, NetworkError, TcpMapping
from warpgate_punch.faces import expected_tcp, is_fixed
from warpgate_punch.section import Section

__all__ = ["OwnEnds"]

Mapper = Callable[[Endpoint], AbstractAsyncContextManager[TcpMapping]]


class OwnEnds:
    """Our own TCP endpoints in one attempt.

    Args:
        faces: this node's interfaces.
        mapper: `Attempt.tcp_mapping`.

    Attributes:
        errors: why servers could not tell, each once.
    """

    def __init__(self, faces: tuple[LocalInterface, ...], mapper: Mapper) -> None:
        self.errors: list[str] = []
        self._mapper = mapper
        self._known = {face.internal: _expected(face) for face in faces if _has_internet(face)}
        self._settled = {face.internal for face in faces if _is_certain(face)}
        self._asked: dict[Endpoint, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def ask(self, *, again: bool = False) -> None:
        """Ask STUN servers about every endpoint that is not known, or with `again` not certain."""
        for local, known in self._known.items():
            if local not in self._asked and (known is None or (again and local not in self._settled)):
                self._asked[local] = asyncio.create_task(self._ask(local), name=f"TCP mapping of {local}")

    async def _ask(self, local: Endpoint) -> None:
        try:
            async with self._mapper(local) as mapping:
                self._settled.add(local)
                if self._known[local] != mapping.external:
                    self._known[local] = mapping.external
                    self._news.set()
                await asyncio.get_running_loop().create_future()  # held until `close`
        except NetworkError as error:
            if str(error) not in self.errors:
                self.errors.append(str(error))
        finally:
            if local not in self._settled:
                self._settled.add(local)
                self._news.set()

    @property
    def section(self) -> Section:
        """What there is to be said now."""
        found = [endpoint for endpoint in self._known.values() if endpoint is not None]
        return Section.of(found, more=any(local not in self._settled for local in self._asked))

    async def changed(self) -> Section:
        """Wait until there is something new to be said, and return it."""
        await self._news.wait()
        self._news.clear()
        return self.section

    async def close(self) -> None:
        """Let go of the mappings."""
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _has_internet(face: LocalInterface) -> bool:
    return not face.internal.ip.is_loopback


def _expected(face: LocalInterface) -> Endpoint | None:
    if face.tcp_seen is not None and face.tcp_seen.port == face.internal.port:
        return face.tcp_seen
    found = expected_tcp(face)
    if found is None and not is_fixed(face):
        return face.external  # the port is anybody's guess; the address opens an address-dependent filter
    return found


def _is_certain(face: LocalInterface) -> bool:
    """Whether no server need be asked: there is no NAT, or none of them could tell."""
    return face.tcp_external is not None or face.nat.mapping is Mapping.NONE or not is_fixed(face)
