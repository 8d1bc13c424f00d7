"""`SystemEdge`: the edge of the network on a real operating system.

It composes what the other files of this package do: which addresses there are (`interfaces`, `selection`,
`watch`), one `Attachment` for each address in use, and dialling (`tcp`). It opens and closes attachments as
addresses come and go, and says so in one callback, however many things changed at once.

`start` returns when the sockets are open and mapped endpoints are known, and after half a second in
any case: a node without STUN servers, or behind a firewall that drops them, is still of use on its LAN and
as the side that dials. What the NAT does is found out in the background (`ready_nat`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

from warpgate_core.endpoint import IP4, IP6, Endpoint, Family
from warpgate_core.errors import ConfigError, NetworkError, ProtocolError
from warpgate_core.net.attachment import KEEPALIVE, Attachment, AttachmentHooks
from warpgate_core.net.edge import DatagramSocket, Edge, LentSocket, LocalInterface, TcpMapping
from warpgate_core.net.interfaces import LocalAddress, enumerate_addresses
from warpgate_core.net.lent import LentUdpSocket
from warpgate_core.net.nat_classify import Diagnosis
from warpgate_core.net.ports import PortPair, bind_pair, bind_pairs, bind_udp, leave_by
from warpgate_core.net.selection import NicWish, choose, read_wishes
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.stun_client import Schedule, StunClient
from warpgate_core.net.stun_server import read_servers, resolve
from warpgate_core.net.tcp import dial
from warpgate_core.net.tcp_mapping import TcpMapper
from warpgate_core.net.udp import UdpSocket
from warpgate_core.net.watch import AddressWatcher
from warpgate_core.tasks import TaskSet

__all__ = ["SystemEdge"]

START_WAIT = 0.5  # s for mapped endpoints at start; two round trips half around the world
SECOND_WAIT = 0.02  # s at least for the other addresses after the first; on a LAN all answer within 5 ms
RETRY = 5.0  # s until an address that could not be opened is tried again
QUESTION = Schedule(tries=3, growth=1.5, last=2.0)  # of one server, 0.2 + 0.3 + 0.4 s; then the next


class SystemEdge(Edge):
    """Interfaces, sockets, STUN and NAT behaviour of this machine.

    Args:
        nics: cards to use, by name, address or object with `.name` (see `selection.read_wishes`); None
            for all that make sense.
        bind: own addresses to use, exactly these; for more control than `nics`.
        port: for UDP and TCP on every address; 0 for any that is free on all of them.
        families: address families to use.
        stun: servers, as text ("203.0.113.20:3478", "stun:host", "host") or `StunServer`.
        keepalive: seconds between checks of the mapping, 1 to 3,600.

    Attributes:
        ready_nat: set once every address was looked into; it stays set when the network changes later.

    Raises:
        ConfigError: one of these cannot be used.
    """

    def __init__(
        self,
        *,
        nics: object = None,
        bind: Sequence[str] = (),
        port: int = 0,
        families: Iterable[Family] = (IP4, IP6),
        stun: object = (),
        keepalive: float = KEEPALIVE,
    ) -> None:
        if not 0 <= port <= 65_535:
            raise ConfigError(f"port {port} does not exist; choose 1 to 65535, or 0 for any")
        if not 1 <= keepalive <= 3_600:
            raise ConfigError(f"a keepalive interval of {keepalive} s is not sensible; choose 1 to 3600")
        self._wishes = (*read_wishes(nics), *_read_addresses(bind))
        self._families = tuple(families)
        self._servers = read_servers(stun)
        self._keepalive = keepalive
        self._port = port
        self.ready_nat = asyncio.Event()
        self._attachments: list[Attachment] = []
        self._numbers: dict[str, int] = {}
        self._watcher = AddressWatcher(self._look)
        self._tasks = TaskSet("edge")
        self._mapper = TcpMapper(lambda remote, local: self.dial(remote, local=local), self._tcp_seen)
        self._look_again = asyncio.Event()
        self._progress = asyncio.Event()
        self._started = self._running = self._told = False

    # -- Edge --------------------------------------------------------------------------------

    @property
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """What there is now, in the system's order of preference."""
        return tuple(attachment.interface for attachment in self._attachments)

    @property
    def sockets(self) -> tuple[UdpSocket, ...]:
        """The long-lived UDP sockets, one per interface and family."""
        return tuple(attachment.socket for attachment in self._attachments)

    async def start(self) -> None:
        """Open sockets and listeners and learn the mapped endpoints, at most half a second long.

        Raises:
            NetworkError: not one usable interface, or the wanted port is taken.
            RuntimeError: it was started before.
        """
        if self._started:
            raise RuntimeError("this edge was started before; make a new one")
        self._started = True
        try:
            self._watcher.start()  # before the first look, so that no change falls between the two
            await self._open_first()
            self._tasks.start(self._follow(), "follow changes")
            self._learnt()
            await self._first_answers()
            self._running = True
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close everything and wait until it is closed. May be called twice."""
        self._running = False
        self._watcher.close()
        attachments, self._attachments = self._attachments, []
        for attachment in attachments:
            attachment.shut()
        await self._tasks.close()
        for attachment in attachments:
            await attachment.close()

    async def dial(self, remote: Endpoint, *, local: Endpoint | None = None) -> StreamLink:
        """Open one TCP connection; see `Edge.dial`. Cancelling leaves no socket behind."""
        own = None if local is None else self._attachment_at(local)
        pinned = own is not None and own.leave_by_card and not _is_ours(remote)
        return await dial(remote, local=local, card=own.address.name if own is not None and pinned else "")

    def tcp_mapping(self, local: Endpoint) -> AbstractAsyncContextManager[TcpMapping]:
        """Learn how the NAT maps TCP from a port of ours; see `Edge.tcp_mapping`."""
        attachment = self._known(local)
        if local.port not in (0, attachment.socket.local.port):
            raise NetworkError(f"{local} is none of our interfaces; give its own port, or 0")
        family = attachment.address.family
        return self._mapper.hold(local, [partial(resolve, server, family) for server in self._servers])

    async def open_socket(self, local: Endpoint) -> LentSocket:
        """Open one more UDP socket; see `Edge.open_socket`."""
        attachment = self._known(local)
        host = attachment.address.host
        try:
            bound = bind_udp(host)
            sock = LentUdpSocket(attachment.address.name, self._datagram)
            own = Endpoint(host, bound.getsockname()[1])
            try:
                if attachment.leave_by_card:
                    leave_by(bound, own.family, attachment.leave_by_card)
            except BaseException:
                bound.close()
                raise
            await sock.open(bound, own)
        except OSError as error:
            raise NetworkError(f"no further UDP socket on {host}: {error}") from error
        return sock

    async def mapped(self, sock: LentSocket) -> Endpoint:
        """How a STUN server sees a socket; see `Edge.mapped`."""
        if not isinstance(sock, LentUdpSocket):
            raise NetworkError(f"{sock!r} is none of this machine's sockets")
        client = StunClient(sock.local, sock.send)
        sock.on_stun = client.receive
        problem: Exception = NetworkError("no STUN server is configured")
        try:
            for server in self._servers:
                try:
                    where = await resolve(server, sock.local.family)
                    return (await client.binding(where, schedule=QUESTION)).mapped
                except (NetworkError, ProtocolError) as error:
                    problem = error
        finally:
            sock.on_stun = None
        raise NetworkError(f"no STUN server says how {sock.local} is mapped: {problem}") from problem

    # -- beyond Edge -------------------------------------------------------------------------

    @property
    def follows_events(self) -> bool:
        """Whether the system tells of changes; else they are looked for every 30 s."""
        return self._watcher.uses_events

    def diagnosis(self, internal: Endpoint) -> Diagnosis:
        """What was found out about the NAT in front of one of `interfaces`, with notes for people.

        Raises:
            NetworkError: no such interface.
        """
        return self._known(internal).diagnosis

    def announce_tcp(self, internal: Endpoint, external: Endpoint | None) -> None:
        """A gateway forwards `external` to our listener at `internal` (None: no longer).

        Raises:
            NetworkError: no such interface.
        """
        attachment = self._known(internal)
        if attachment.tcp_announced != external:
            attachment.tcp_announced = external
            self._learnt()

    def _known(self, internal: Endpoint) -> Attachment:
        attachment = self._attachment_at(internal)
        if attachment is None:
            raise NetworkError(f"{internal} is none of our interfaces (any more)")
        return attachment

    def _attachment_at(self, local: Endpoint) -> Attachment | None:
        for attachment in self._attachments:
            if attachment.socket.local.host == local.host:
                return attachment
        return None

    # -- opening -----------------------------------------------------------------------------

    async def _open_first(self) -> None:
        found = enumerate_addresses()
        chosen = choose(found, self._wishes, self._families)
        bindable = [address for address in chosen if _can_bind(address)]
        if not bindable:
            raise NetworkError(_nothing_usable(found, self._wishes, self._families))
        pairs = list(bind_pairs([address.host for address in bindable], self._port))
        try:
            self._port = pairs[0].endpoint.port
            for address in bindable:
                await self._open(address, pairs.pop(0), _way_out(address, found))
        finally:
            for pair in pairs:
                pair.close()

    async def _open(self, address: LocalAddress, pair: PortPair, leave_by_card: int) -> None:
        hooks = AttachmentHooks(self._accepted, self._datagram, self._learnt)
        number = self._number(address.name)
        attachment = Attachment(address, number, self._servers, self._keepalive, hooks)
        await attachment.open(pair, leave_by_card)
        self._attachments.append(attachment)

    def _number(self, name: str) -> int:
        """A card keeps its number while it is in use."""
        in_use = {attachment.address.name for attachment in self._attachments}
        self._numbers = {card: number for card, number in self._numbers.items() if card in in_use}
        if name not in self._numbers:
            taken = set(self._numbers.values())
            self._numbers[name] = next(number for number in range(len(taken) + 1) if number not in taken)
        return self._numbers[name]

    async def _first_answers(self) -> None:
        """Wait for mapped endpoints: for the first, then as long again for the others."""
        now = asyncio.get_running_loop().time
        begun = now()
        deadline = begun + START_WAIT
        while not all(attachment.settled for attachment in self._attachments):
            if deadline == begun + START_WAIT and any(face.external for face in self.interfaces):
                deadline = min(deadline, now() + max(SECOND_WAIT, now() - begun))
            self._progress.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._progress.wait()
            except TimeoutError:
                return

    # -- following changes -------------------------------------------------------------------

    def _look(self) -> None:
        self._look_again.set()

    async def _follow(self) -> None:
        complete = True
        while True:
            with suppress(TimeoutError):  # then it is time to try again what failed
                async with asyncio.timeout(None if complete else RETRY):
                    await self._look_again.wait()
            self._look_again.clear()
            complete = await self._refresh()

    async def _refresh(self) -> bool:
        """Bring attachments in line with the addresses there are now; returns whether all could be opened."""
        found = enumerate_addresses()
        chosen = {
            (address.name, address.host): address
            for address in choose(found, self._wishes, self._families)
            if _can_bind(address)
        }
        present = {(item.address.name, item.address.host): item for item in self._attachments}
        complete = True
        for key, address in chosen.items():
            way_out = _way_out(address, found)
            if key in present:
                self._update(present[key], address, way_out)
            else:
                complete &= await self._open_late(address, way_out)
        for stale in [item for key, item in present.items() if key not in chosen]:
            self._attachments.remove(stale)
            self._learnt()
            await stale.close()
        order = list(chosen)
        self._attachments.sort(key=lambda item: order.index((item.address.name, item.address.host)))
        return complete

    def _update(self, attachment: Attachment, address: LocalAddress, leave_by_card: int) -> None:
        """The address is still there; prefix, way out or card number may have changed."""
        attachment.pin(leave_by_card)
        if address != attachment.address:
            attachment.address = address
            attachment.look_again()
            self._learnt()

    async def _open_late(self, address: LocalAddress, leave_by_card: int) -> bool:
        """An address that came later takes our port if it is free there, else any.

        Returns:
            False if it could not be opened: it has gone again, or there are too many open files.
        """
        try:
            try:
                pair = bind_pair(address.host, self._port)
            except NetworkError:
                pair = bind_pair(address.host)
            await self._open(address, pair, leave_by_card)
        except (NetworkError, OSError):
            return False
        self._learnt()
        return True

    # -- callbacks ---------------------------------------------------------------------------

    def _accepted(self, link: StreamLink) -> None:
        if self.on_stream is None:
            link.abort()
        else:
            self.on_stream(link)

    def _datagram(self, data: bytes, source: Endpoint, sock: DatagramSocket) -> None:
        if self.on_datagram is not None:
            self.on_datagram(data, source, sock)

    def _tcp_seen(self, local: Endpoint, external: Endpoint) -> None:
        attachment = self._attachment_at(local)
        if attachment is not None and attachment.socket.local == local:
            attachment.tcp_seen = external  # of interest to the next session only, so nobody is told

    def _learnt(self) -> None:
        """Something is different; told once for all that happens in one turn of the loop."""
        self._progress.set()
        if all(attachment.profiled for attachment in self._attachments):
            self.ready_nat.set()
        if self._running and not self._told:
            self._told = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._told = False
        if self._running and self.on_change is not None:
            self.on_change()


def _read_addresses(bind: Sequence[str]) -> tuple[NicWish, ...]:
    wishes = tuple(wish for text in bind for wish in read_wishes(text))
    for wish in wishes:
        if not wish.host:
            raise ConfigError(f"bind= takes numeric addresses of this machine, not {wish.name!r}")
    return wishes


def _is_ours(remote: Endpoint) -> bool:
    return remote.ip.is_loopback or any(own.host == remote.host for own in enumerate_addresses())


def _can_bind(address: LocalAddress) -> bool:
    """Whether the system lets us; an address may vanish, or be refused, between listing and use."""
    try:
        bind_udp(address.host).close()
    except OSError:
        return False
    return True


def _way_out(address: LocalAddress, found: Sequence[LocalAddress]) -> int:
    """The card to send by if the routing table would choose another one, else 0."""
    if address.metric is None:
        return 0
    better = (
        other.metric < address.metric or (other.metric == address.metric and other.index < address.index)
        for other in found
        if other.metric is not None and other.family is address.family and other.name != address.name
    )
    return address.index if any(better) else 0


def _nothing_usable(
    found: Sequence[LocalAddress], wishes: Sequence[NicWish], families: Sequence[Family]
) -> str:
    there = ", ".join(f"{address.name} {address.host}" for address in found) or "none at all"
    if wishes:
        wanted = " or ".join(map(str, wishes))
        return f"no network card or address {wanted} is up on this machine; there are: {there}"
    spoken = " or ".join(f"IPv{int(family)}" for family in families) or "no family at all"
    return f"no usable network address ({spoken}) on this machine; there are: {there}"
