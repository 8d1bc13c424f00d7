"""The long-lived UDP socket: who gets which datagram, and what happens to those that cannot be sent."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from warpgate_core.endpoint import Endpoint
from warpgate_core.net.edge import DatagramSocket
from warpgate_core.net.ports import bind_udp
from warpgate_core.net.udp import UdpSocket

IP_RECVTTL = 12  # linux/in.h; `socket` has no name for it
STUN_LIKE = b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)


class Collector:
    """Receives datagrams and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, Endpoint | None]] = asyncio.Queue()

    def receive(self, data: bytes) -> None:
        self.got.put_nowait((data, None))

    def unclaimed(self, data: bytes, source: Endpoint, sock: DatagramSocket) -> None:
        assert isinstance(sock, UdpSocket)
        self.got.put_nowait((data, source))

    async def next(self) -> tuple[bytes, Endpoint | None]:
        async with asyncio.timeout(5):
            return await self.got.get()


@asynccontextmanager
async def udp(host: str = "127.0.0.1", collector: Collector | None = None) -> AsyncIterator[UdpSocket]:
    sock = bind_udp(host)
    made = UdpSocket("lo", collector.unclaimed if collector else None)
    await made.open(sock, Endpoint(host, sock.getsockname()[1]))
    try:
        yield made
    finally:
        made.close()
        await made.wait_closed()
        assert made.is_closed


async def exchange(host: str) -> None:
    rest = Collector()
    pipe = Collector()
    async with udp(host, rest) as here, udp(host) as there, udp(host) as stranger:
        here.attach(there.local, pipe.receive)
        there.send(b"for the pipe", here.local)
        stranger.send(b"for nobody", here.local)
        assert await pipe.next() == (b"for the pipe", None)
        assert await rest.next() == (b"for nobody", stranger.local)
        here.detach(there.local)
        here.detach(there.local)
        there.send(b"no longer", here.local)
        assert await rest.next() == (b"no longer", there.local)
        assert pipe.got.empty()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_attached_receiver_gets_its_datagrams_and_nobody_else_does(host: str) -> None:
    asyncio.run(exchange(host))
    uvloop.run(exchange(host))


async def test_a_remote_endpoint_has_one_receiver() -> None:
    async with udp() as here:
        remote = Endpoint("127.0.0.1", 9)
        here.attach(remote, print)
        with pytest.raises(ValueError, match="attached"):
            here.attach(remote, print)
        with pytest.raises(ValueError, match="not-an-address"):
            here.attach(Endpoint("not-an-address", 9), print)
        assert here.attached == 1


async def test_addresses_are_one_however_they_are_written() -> None:
    pipe = Collector()
    async with udp("::1") as here, udp("::1") as there:
        here.attach(Endpoint("0:0:0:0:0:0:0:1", there.local.port), pipe.receive)
        there.send(b"x", here.local)
        assert await pipe.next() == (b"x", None)


async def test_stun_goes_to_its_client_and_on_if_that_does_not_know_it() -> None:
    rest = Collector()
    offered: list[Endpoint] = []

    def mine(data: bytes, source: Endpoint) -> bool:
        offered.append(source)
        return data[-1] == 0

    async with udp(collector=rest) as here, udp() as there:
        here.on_stun = mine
        there.send(STUN_LIKE, here.local)
        there.send(STUN_LIKE[:-1] + b"\1", here.local)
        there.send(STUN_LIKE[:19], here.local)  # too short to be STUN
        assert await rest.next() == (STUN_LIKE[:-1] + b"\1", there.local)
        assert await rest.next() == (STUN_LIKE[:19], there.local)
    assert offered == [there.local, there.local]


async def test_what_nobody_wants_is_counted() -> None:
    seen = asyncio.Event()
    async with udp() as here, udp() as there:
        here.attach(there.local, lambda data: seen.set())
        async with udp() as stranger:
            stranger.send(b"?", here.local)
        there.send(b"!", here.local)
        async with asyncio.timeout(5):
            await seen.wait()
        assert here.counters.unclaimed == 1


async def unsendable() -> None:
    async with udp() as here:
        index = socket.if_nametoindex("lo")
        for remote in (
            Endpoint("::1", 9),
            Endpoint("fe80::1%nowhere", 9),
            Endpoint(f"fe80::1%{index}", 9),
            Endpoint("127.0.0.1", 70_000),
            Endpoint("255.255.255.255", 9),
        ):
            here.send(b"x", remote)
        here.send(os.urandom(70_000), here.local)
        assert not here.is_closed
        got = Collector()
        here.attach(here.local, got.receive)
        here.send(b"still alive", here.local)
        assert await got.next() == (b"still alive", None)
        assert here.counters.errors + here.counters.unsent >= 5
        assert here.last_error is not None


def test_a_datagram_that_cannot_be_sent_is_a_lost_one() -> None:
    asyncio.run(unsendable())
    uvloop.run(unsendable())


async def test_when_the_buffers_are_full_datagrams_are_dropped_and_counted() -> None:
    async with udp() as here:
        here.pause_writing()
        here.send(b"x", here.local)
        assert here.counters.unsent == 1
        here.resume_writing()
        got = Collector()
        here.attach(here.local, got.receive)
        here.send(b"y", here.local)
        assert await got.next() == (b"y", None)


async def test_after_closing_nothing_is_sent_and_nothing_raises() -> None:
    async with udp() as here:
        pass
    here.send(b"x", here.local)
    assert here.counters.unsent == 1
    here.close()
    await here.wait_closed()


async def hops(host: str) -> None:
    received = {
        "127.0.0.1": (socket.IPPROTO_IP, IP_RECVTTL),
        "::1": (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT),
    }[host]
    there = bind_udp(host)
    there.setsockopt(*received, 1)
    there.setblocking(True)
    there.settimeout(5)
    try:
        remote = Endpoint(host, there.getsockname()[1])
        async with udp(host) as here:
            here.send(b"far", remote)
            here.send_near(b"near", remote, 3)
            here.send(b"far", remote)
            seen = [there.recvmsg(10, 100) for _ in range(3)]
        here.send_near(b"closed", remote, 3)
        assert here.counters.unsent == 1
    finally:
        there.close()
    assert [data for data, *_ in seen] == [b"far", b"near", b"far"]
    usual, near, again = [int.from_bytes(message[0][2], sys.byteorder) for _, message, *_ in seen]
    assert near == 3
    assert usual == again != near


@pytest.mark.skipif(sys.platform != "linux", reason="reads the TTL the way Linux tells it")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_may_stay_near(host: str) -> None:
    asyncio.run(hops(host))
    uvloop.run(hops(host))


async def broken_receiver() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reported.append(context.get("exception"))
    )
    got = Collector()
    async with udp(collector=got) as here, udp() as there, udp() as other:

        def broken(data: bytes) -> None:
            raise LookupError("a bug in a pipe")

        here.attach(there.local, broken)
        there.send(b"x", here.local)
        other.send(b"y", here.local)
        assert await got.next() == (b"y", other.local)
        assert not here.is_closed
    assert [type(error) for error in reported] == [LookupError]


def test_a_receiver_that_raises_does_not_harm_the_socket() -> None:
    asyncio.run(broken_receiver())
    uvloop.run(broken_receiver())
