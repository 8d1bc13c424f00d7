"""NAT behaviour discovery (RFC 5780) in three round trips: the driver that collects the observations.

Round 1 is the plain binding request of the long-lived socket to every server, which is made anyway to learn
the mapped endpoint.

Round 2: six sockets used once ask one server, in a burst: how are ports given out? At the same time one
fresh socket per capable server asks for answers from its other address and port: what comes through?

Round 3: the long-lived socket asks the server's other address and port: how do mappings depend on them?
This is last because it opens the filter for those addresses; not only of its own mapping, for some routers
remember to whom a host has sent, from whatever port.

RFC 5780 section 4 does these one after the other and needs five to seven round trips. Where no server does
RFC 5780, two or more plain ones still tell the mapping. `nat_classify` draws the conclusions.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.net.nat_classify import Diagnosis, FilterTest, Observations, Seen, diagnose
from warpgate_core.net.ports import bind_udp, leave_by
from warpgate_core.net.stun_client import Binding, Schedule, StunClient
from warpgate_core.net.udp import UdpSocket

__all__ = ["FRESH_SOCKETS", "alternate_of", "discover", "fresh_client"]

FRESH_SOCKETS = 6  # with the main one 7 ports: a 2,048 window by chance once in 10^8 (chance_of_window)
FILTER_SERVERS = 2  # one may be down, or lie about having a second address
MIN_PAUSE = 0.1  # s between repetitions; the absence of an answer is a result here, so do not hurry
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)  # RFC 1918, RFC 6598, RFC 4193

Fresh = Callable[[], AbstractAsyncContextManager[StunClient]]


@asynccontextmanager
async def fresh_client(host: str, name: str, leave_by_card: int = 0) -> AsyncIterator[StunClient]:
    """A STUN client on a UDP socket of its own, for one question; closed at the end.

    Args:
        host: own address to bind.
        name: of the card.
        leave_by_card: see `ports.leave_by`; 0: as the system likes.

    Raises:
        OSError: the address is gone, or there are too many open files.
    """
    sock = bind_udp(host)
    try:
        local = Endpoint(host, sock.getsockname()[1])
        if leave_by_card:
            leave_by(sock, local.family, leave_by_card)
    except BaseException:
        sock.close()
        raise
    udp = UdpSocket(name)
    client = StunClient(local, udp.send)
    udp.on_stun = client.receive
    await udp.open(sock, local)
    try:
        yield client
    finally:
        client.close()
        udp.close()
        await udp.wait_closed()


async def discover(main: StunClient, answers: Sequence[Binding], fresh: Fresh) -> Diagnosis:
    """Find out what the NAT in front of `main` does.

    Args:
        main: client on the long-lived socket.
        answers: its answers of round 1, one or more, in the order the requests were sent.
        fresh: opens a client on a fresh socket on the same address.

    Raises:
        OSError: no further socket could be opened.
    """
    seen = _seen(answers)
    doubtful = diagnose(Observations(seen)).doubtful
    believed = [answer for answer in answers if answer.server not in doubtful] or list(answers)
    target = min(believed, key=lambda answer: answer.rtt).server
    capable = _capable(believed, answers)
    async with AsyncExitStack() as sockets:
        once = [await sockets.enter_async_context(fresh()) for _ in range(FRESH_SOCKETS)]
        filters = [await sockets.enter_async_context(fresh()) for _ in capable]
        schedule = _schedule(main.rto(target))
        # Tasks start in the order they are made, and each sends before it first waits: the burst is in order.
        async with asyncio.TaskGroup() as group:
            bursts = [group.create_task(_try(client, target, schedule)) for client in once]
            tests = [
                group.create_task(_test_filter(client, server, _schedule(main.rto(server))))
                for client, (server, _) in zip(filters, capable, strict=True)
            ]
    async with asyncio.TaskGroup() as group:
        further = [
            group.create_task(_try(main, remote, _schedule(main.rto(server))))
            for server, other in capable
            for remote in _alternates(server, other)
        ]
    return diagnose(
        Observations(
            (*seen, *_seen(task.result() for task in further)),
            _seen(task.result() for task in bursts),
            tuple(task.result() for task in tests),
        )
    )


def _capable(believed: Sequence[Binding], answers: Sequence[Binding]) -> list[tuple[Endpoint, Endpoint]]:
    """Servers that name another endpoint, first those whose other address nobody has sent to yet."""
    found = [(answer.server, other) for answer in believed if (other := alternate_of(answer))]
    asked = {answer.server.host for answer in answers}
    found.sort(key=lambda pair: pair[1].host in asked)
    return found[:FILTER_SERVERS]


def alternate_of(answer: Binding) -> Endpoint | None:
    """The server's other endpoint, if it is one that we may send to.

    A server must not be able to point us at machines it could not reach itself: an address of a public
    server is public, and only a server on this machine has an alternate on this machine.
    """
    other = answer.other
    if other is None or other.family is not answer.server.family:
        return None
    theirs, named = answer.server.ip, other.ip
    if theirs == named or other.port in (0, answer.server.port):
        return None  # RFC 5780 section 7.4: both must differ
    if named.is_multicast or named.is_unspecified:
        return None
    if (named.is_loopback and not theirs.is_loopback) or (named.is_link_local and not theirs.is_link_local):
        return None
    if _is_private(named) and not (_is_private(theirs) or theirs.is_loopback):
        return None
    return other


def _is_private(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in network for network in _PRIVATE)


def _alternates(server: Endpoint, other: Endpoint) -> tuple[Endpoint, Endpoint, Endpoint]:
    """The three further combinations of two addresses and two ports (RFC 5780 section 4.3)."""
    return Endpoint(other.host, server.port), Endpoint(server.host, other.port), other


def _schedule(rto: float) -> Schedule:
    """Four tries: at 10 % loss each way all four fail in about one case of 1,000."""
    return Schedule(tries=4, growth=1.5, last=2.0, first=max(MIN_PAUSE, rto))


async def _try(
    client: StunClient,
    server: Endpoint,
    schedule: Schedule,
    *,
    change_ip: bool = False,
    change_port: bool = False,
) -> Binding | None:
    """The answer, or None: here silence and refusal are results."""
    try:
        return await client.binding(server, change_ip=change_ip, change_port=change_port, schedule=schedule)
    except (NetworkError, ProtocolError):
        return None


async def _test_filter(client: StunClient, server: Endpoint, schedule: Schedule) -> FilterTest:
    async with asyncio.TaskGroup() as group:
        plain = group.create_task(_try(client, server, schedule))
        both = group.create_task(_try(client, server, schedule, change_ip=True, change_port=True))
        port = group.create_task(_try(client, server, schedule, change_port=True))
    answer = plain.result()
    sources = [result.source for result in (both.result(), port.result()) if result is not None]
    return FilterTest(
        server,
        answered=answer is not None,
        capable=answer is not None and alternate_of(answer) is not None,
        from_other_address=any(source.host != server.host for source in sources),
        from_other_port=any(source.host == server.host and source.port != server.port for source in sources),
    )


def _seen(results: Iterable[Binding | None]) -> tuple[Seen, ...]:
    return tuple(Seen(result.local, result.server, result.mapped) for result in results if result is not None)
