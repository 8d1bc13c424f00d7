"""The long-lived UDP socket: STUN, punching, control and data share it, so that they share a mapping.

A datagram goes to the receiver attached to its source, if there is one; that is the hot path, one
dictionary lookup by the very tuple the socket module made, so that an established pipe runs at 0.8 or
more of the rate of a bare asyncio protocol. Everything else is told apart by its first bytes (RFC 7983):
answers to our own STUN requests go to the STUN client, the rest to the edge.

Rejected: a connected socket per peer (each has a mapping of its own, and a NAT that maps by source port
would need to be learnt anew), one datagram per round of the loop as asyncio reads them (half of the cost of a
small one), and asyncio's endless send buffer: a datagram that cannot leave now is late, so it is dropped
and counted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import NetworkError
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.ports import sockaddr
from warpgate_core.net.stun import is_stun

__all__ = ["UdpCounters", "UdpSocket"]

_BATCH = 16  # datagrams taken per round of the loop: others get their turn after 0.1 ms at most
_MAX_DATAGRAM = 65_536  # bytes; the length field has 16 bits
_HOPS = {
    Family.IP4: (socket.IPPROTO_IP, socket.IP_TTL),
    Family.IP6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
_SEND_BUFFER = 64 * 1024  # bytes that asyncio may hold while the system's own buffer is full


@dataclass(slots=True)
class UdpCounters:
    """What happened to datagrams that did not simply pass.

    Args:
        errors: the system reported an error (ICMP unreachable, no route, forbidden by a firewall).
        unsent: dropped here because the system's buffer was full, or the address cannot be used.
        unclaimed: received, and nobody wanted them.
    """

    errors: int = 0
    unsent: int = 0
    unclaimed: int = 0


class UdpSocket(asyncio.DatagramProtocol, DatagramSocket):
    """One UDP socket of the operating system, with demultiplexing.

    Args:
        name: of the network card.
        on_datagram: gets everything that has no receiver and is no answer to our own STUN requests.

    Attributes:
        on_stun: offered every datagram that looks like STUN; returns whether it was an answer to us.
    """

    def __init__(
        self,
        name: str,
        on_datagram: Callable[[bytes, Endpoint, DatagramSocket], None] | None = None,
    ) -> None:
        self.name = name
        self.local = Endpoint("", 0)
        self.counters = UdpCounters()
        self.last_error: Exception | None = None
        self.on_stun: Callable[[bytes, Endpoint], bool] | None = None
        self._on_datagram = on_datagram
        self._receivers: dict[tuple[object, ...], Callable[[bytes], None]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False
        self._is_ip6 = False
        self._raw: socket.socket | None = None  # where the loop itself reads one datagram per round
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<UdpSocket {self.local} on {self.name}{' closed' if self._transport is None else ''}>"

    async def open(self, sock: socket.socket, local: Endpoint) -> None:
        """Take over a bound, non-blocking socket. It is closed with this one, or here on failure.

        Args:
            sock: see `ports.bind_udp`.
            local: where it is bound.
        """
        self.local = local
        self._is_ip6 = local.family is Family.IP6
        try:
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(lambda: self, sock=sock)
            self._raw = sock if isinstance(loop, asyncio.SelectorEventLoop) else None
        except BaseException:
            if self._transport is None:
                sock.close()
            else:
                self.close()
            raise

    # -- DatagramSocket ----------------------------------------------------------------------

    def send(self, data: bytes, remote: Endpoint) -> None:
        """Send one datagram; never blocks and never raises for one that cannot be sent."""
        transport = self._transport
        host, port = remote
        if transport is None or self._full or port > 65_535 or (":" in host) is not self._is_ip6:
            self.counters.unsent += 1  # for the last two asyncio would close the socket
            return
        try:
            transport.sendto(data, sockaddr(remote) if "%" in host else remote)
        except (OSError, ValueError, NetworkError) as error:
            # uvloop raises here what asyncio hands to error_received
            self.counters.unsent += 1
            self.last_error = error

    def send_near(self, data: bytes, remote: Endpoint, hops: int) -> None:
        """Send one datagram that only `hops` routers pass on; see `DatagramSocket.send_near`.

        An option of the socket around the sending, not an ancillary message of the one packet: asyncio's
        transports take none, and both send at once unless the system's buffer is full.
        """
        if self._transport is None:
            self.counters.unsent += 1
            return
        sock = self._transport.get_extra_info("socket")
        level, option = _HOPS[self.local.family]
        usual = sock.getsockopt(level, option)
        sock.setsockopt(level, option, hops)
        try:
            self.send(data, remote)
        finally:
            sock.setsockopt(level, option, usual)

    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        """From now on hand every datagram from `remote` to `receiver` and to nobody else.

        Raises:
            ValueError: somebody is attached to that remote endpoint already, or it is no address.
        """
        key = self._key(remote)
        if key in self._receivers:
            raise ValueError(f"{remote} is attached to {self!r} already")
        self._receivers[key] = receiver

    def detach(self, remote: Endpoint) -> None:
        """End what `attach` began; harmless if nothing is attached."""
        self._receivers.pop(self._key(remote), None)

    @property
    def attached(self) -> int:
        """How many remote endpoints have a receiver."""
        return len(self._receivers)

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready (called by the event loop)."""
        # uvloop's UDP transport is not an asyncio.DatagramTransport, so no isinstance
        self._transport = transport  # type: ignore[assignment]
        assert self._transport is not None
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=_SEND_BUFFER)

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        """One datagram came (called by the event loop); take along what else is there."""
        self._dispatch(data, addr)
        for _ in range(_BATCH - 1):
            if self._raw is None:
                return
            try:
                data, addr = self._raw.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an ICMP error that the system reports here
                self.error_received(error)
                return
            self._dispatch(data, addr)

    def _dispatch(self, data: bytes, addr: tuple[object, ...]) -> None:
        receiver = self._receivers.get(addr)
        if receiver is not None:
            receiver(data)
            return
        source = Endpoint.of(addr)
        if is_stun(data) and self.on_stun is not None and self.on_stun(data, source):
            return
        if self._on_datagram is None:
            self.counters.unclaimed += 1
        else:
            self._on_datagram(data, source, self)

    def error_received(self, exc: Exception) -> None:
        """A datagram could not be sent or was answered by ICMP (called by the event loop)."""
        self.counters.errors += 1
        self.last_error = exc

    def pause_writing(self) -> None:
        """The buffers are full (called by the event loop): drop until there is room."""
        self._full = True

    def resume_writing(self) -> None:
        """There is room again (called by the event loop)."""
        self._full = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed (called by the event loop)."""
        self._raw = None
        if exc is not None:
            self.last_error = exc
        self._transport = None
        self._receivers.clear()
        self._gone.set()

    # -- the end -----------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed, or was never opened."""
        return self._transport is None

    def close(self) -> None:
        """Close the socket; what is queued is discarded. Harmless twice."""
        self._raw = None
        if self._transport is not None:
            self._transport.abort()
        else:
            self._gone.set()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed, for whatever reason."""
        await self._gone.wait()

    def _key(self, remote: Endpoint) -> tuple[object, ...]:
        """The tuple that the socket module will hand out for datagrams from `remote`."""
        where = sockaddr(remote)
        family = remote.family
        packed = ipaddress.ip_address(where[0]).packed  # ValueError: no address
        host = socket.inet_ntop(family.socket_family, packed)
        if family is Family.IP4:
            return (host, remote.port)
        return (host, remote.port, 0, where[3] if len(where) == 4 else 0)
