"""What the router says to everybody: that it has started, that it leaves, that its address has changed.

This is what makes a mapping survive a restart of the router: it is asked for again a moment later, and not
at half of its life. Heard are SSDP notifications (UDA 1.1 section 1.2) and the multicasts of PCP (RFC 6887
section 14.1) and NAT-PMP (RFC 6886 section 3.2.1), from the router only. A port that another program keeps
to itself is no error: then a restart is noticed at the next renewal.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from warpgate_core import IP4, Endpoint, NetworkError, ProtocolError
from warpgate_upnp import nat_pmp, pcp, ssdp
from warpgate_upnp.epoch import NatPmpEpoch, PcpEpoch
from warpgate_upnp.reach import Site
from warpgate_upnp.sockets import listen_to_group

__all__ = ["BURST", "Announcements", "RouterClock"]

BURST = 130.0  # s that the repetitions of one announcement take: ten, 250 ms and doubling (RFC 6886, 3.2.1)


class RouterClock:
    """What all answers and announcements of one router say together of its restarts.

    Args:
        now: gives seconds of a clock that never jumps.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._pcp = PcpEpoch()
        self._nat_pmp = NatPmpEpoch()
        self._address = ""
        self._announced = -math.inf
        self.sightings = ssdp.Sightings()

    def pcp_answer(self, epoch: int) -> bool:
        """Whether the epoch of an answer fits the ones before."""
        return self._pcp.observe(epoch, self._now())

    def nat_pmp_answer(self, epoch: int, host: str = "") -> bool:
        """Whether epoch and external address of an answer fit the ones before."""
        before, self._address = self._address, host or self._address
        fits = self._nat_pmp.observe(epoch, self._now())
        return fits and (not before or not host or host == before)

    def announcement(self, data: bytes) -> bool:
        """Whether a PCP or NAT-PMP announcement means a restart, or another external address.

        They are sent for no other reason, so the first of a burst counts in any case: the clocks are in
        whole seconds and may be off by some, so that two restarts in a row could look like none.

        Raises:
            ProtocolError: it is none.
        """
        if data[:1] == b"\0":
            answer = nat_pmp.parse(data)
            if not isinstance(answer, nat_pmp.PublicAddress):
                raise ProtocolError("a NAT-PMP mapping is no announcement")
            fits = self.nat_pmp_answer(answer.epoch, answer.host)
        else:
            announced = pcp.parse(data)
            if announced.is_map or announced.result != pcp.Result.SUCCESS:
                raise ProtocolError("a PCP answer that is no announcement")
            fits = self.pcp_answer(announced.epoch)
        before, self._announced = self._announced, self._now()
        return not fits or self._announced - before > BURST


class Announcements:
    """Listens for one site, as an asynchronous context manager.

    Args:
        site: own address and gateway.
        clock: what is known of the router.
        on_sign: called with True when the router has lost its state or leaves, with False when it is
            merely there.
    """

    def __init__(self, site: Site, clock: RouterClock, on_sign: Callable[[bool], None]) -> None:
        self._site = site
        self._clock = clock
        self._on_sign = on_sign
        self._stack = AsyncExitStack()
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        family = self._site.internal.family
        groups = (
            (Endpoint(ssdp.GROUPS[family], ssdp.PORT), self._ssdp),
            (Endpoint(*pcp.ANNOUNCEMENTS[family]), self._port_control),
        )
        try:
            for group, receive in groups:
                await self._listen(group, receive)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _listen(self, group: Endpoint, receive: Callable[[bytes, Endpoint], None]) -> None:
        try:
            sock = listen_to_group(group, self._site.internal, self._site.card)
        except NetworkError as error:
            self.problems.append(str(error))
            return
        receiver = _Receiver(receive)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: receiver, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._stack.push_async_callback(receiver.close)

    def _ssdp(self, data: bytes, source: Endpoint) -> None:
        if not self._is_router(source.host):
            return
        notice = ssdp.parse_notice(data)
        if notice is not None:
            self._on_sign(self._clock.sightings.observe(notice))

    def _port_control(self, data: bytes, source: Endpoint) -> None:
        if self._is_router(source.host) and source.port == pcp.PORT:
            self._on_sign(self._clock.announcement(data))

    def _is_router(self, host: str) -> bool:
        """The gateway; with IPv6 any link-local address on the card, since a router has several.

        What a stranger there gains is that we ask our own router once more.
        """
        if self._site.internal.family is IP4:
            return host == self._site.gateway
        return host == self._site.gateway or (host.startswith("fe80:") and self._site.is_on_link(host))


class _Receiver(asyncio.DatagramProtocol):
    """Hands datagrams on, and swallows those that are rubbish."""

    def __init__(self, receive: Callable[[bytes, Endpoint], None]) -> None:
        self._receive = receive
        self._transport: asyncio.BaseTransport | None = None
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        try:
            self._receive(data, Endpoint.of(addr))
        except ProtocolError:
            return  # multicast groups carry whatever anybody sends there

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()
