"""Dialling and listening: sharing a port, telling people what went wrong, leaving no socket behind."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net import tcp
from warpgate_core.net.ports import PortPair, bind_pair
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.tcp import Listener, dial, reset


def sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[tuple[Endpoint, asyncio.Queue[StreamLink]]]:
    links: asyncio.Queue[StreamLink] = asyncio.Queue()
    pair = bind_pair(host)
    listener = Listener(links.put_nowait)
    try:
        await listener.open(pair.tcp)
        yield pair.endpoint, links
    finally:
        listener.close()
        await listener.wait_closed()
        pair.udp.close()
        while not links.empty():
            await close(links.get_nowait())


async def close(link: StreamLink) -> None:
    link.abort()
    await link.wait_closed()


async def accepted(links: asyncio.Queue[StreamLink]) -> StreamLink:
    async with asyncio.timeout(5):
        return await links.get()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_bytes_pass_both_ways(host: str) -> None:
    async with listening(host) as (endpoint, links):
        here = await dial(endpoint)
        there = await accepted(links)
        assert (here.remote, here.local) == (there.local, there.remote)
        here.write(b"ping")
        assert await there.read_exactly(4) == b"ping"
        there.write(b"pong")
        assert await here.read_exactly(4) == b"pong"
        await close(here)
        await close(there)


async def test_both_ends_have_no_delay_and_keepalive() -> None:
    async with listening() as (endpoint, links):
        here = await dial(endpoint)
        there = await accepted(links)
        for link in (here, there):
            sock = link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            await close(link)


async def test_dialling_from_the_port_of_the_listener() -> None:
    async with listening() as (ours, _), listening("127.0.0.2") as (theirs, links):
        here = await dial(theirs, local=ours)
        there = await accepted(links)
        assert there.remote == ours
        await close(here)
        await close(there)


async def test_crossing_dials_from_both_listeners_ports_make_one_connection() -> None:
    """On loopback there is no delay, so the first meets the other's listener and is the only one."""
    async with listening() as (one, _), listening("127.0.0.2") as (two, from_one):
        first, second = await asyncio.gather(
            dial(two, local=one), dial(one, local=two), return_exceptions=True
        )
        assert isinstance(first, StreamLink)
        assert (first.local, first.remote) == (one, two)
        assert isinstance(second, NetworkError)
        assert "connected with it already" in str(second)
        there = await accepted(from_one)
        assert there.remote == one
        await close(first)
        await close(there)


async def test_after_a_reset_the_same_endpoints_can_connect_again() -> None:
    async with listening() as (ours, _), listening("127.0.0.2") as (theirs, links):
        for _ in range(3):
            here = await dial(theirs, local=ours)
            there = await accepted(links)
            reset(here)
            await here.wait_closed()
            await there.wait_closed()


async def test_any_port_of_a_given_address() -> None:
    async with listening() as (endpoint, links):
        here = await dial(endpoint, local=Endpoint("127.0.0.5", 0))
        assert here.local.host == "127.0.0.5"
        there = await accepted(links)
        assert there.remote == here.local
        await close(here)
        await close(there)


async def free_port() -> int:
    pair: PortPair = bind_pair("127.0.0.1")
    pair.close()
    return pair.endpoint.port


async def test_texts_say_what_happened() -> None:
    port = await free_port()
    before = sockets()
    with pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{port} refused the connection") as caught:
        await dial(Endpoint("127.0.0.1", port))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(NetworkError, match=r"192\.0\.2\.77:0 is not ours"):
        await dial(Endpoint("127.0.0.1", port), local=Endpoint("192.0.2.77", 0))
    with pytest.raises(NetworkError, match="different address families"):
        await dial(Endpoint("127.0.0.1", port), local=Endpoint("::1", 0))
    with pytest.raises(NetworkError, match="no network card 'tun77'"):
        await dial(Endpoint("fe80::1%tun77", port))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Endpoint("127.0.0.1", other.getsockname()[1])
        with pytest.raises(NetworkError, match=f"port {taken} is taken by another program"):
            await dial(Endpoint("127.0.0.1", port), local=taken)
    assert sockets() == before


async def test_dialling_ones_own_port_is_no_connection() -> None:
    port = await free_port()
    own = Endpoint("127.0.0.1", port)
    before = sockets()
    with pytest.raises(NetworkError, match="refused"):
        await dial(own, local=own)
    assert sockets() == before


async def test_a_cancelled_dial_leaves_no_socket() -> None:
    """A listener whose queue is full answers no further SYN, so a dial to it hangs."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        remote = Endpoint.of(full.getsockname())
        before = sockets()
        hanging = [asyncio.create_task(dial(remote)) for _ in range(8)]
        done, pending = await asyncio.wait(hanging, timeout=0.3)
        assert pending, "with a backlog of 0 not all of them can be accepted"
        for task in pending:
            task.cancel()
        outcomes = await asyncio.gather(*pending, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        for task in done:
            await close(task.result())
        assert sockets() == before


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_moment_leaves_no_socket(turns: int) -> None:
    async with listening() as (endpoint, links):
        before = sockets()
        task = asyncio.create_task(dial(endpoint))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await close(await task)
        while turns and sockets() > before:  # the accepted end hears of it a moment later
            await close(await accepted(links))
        assert sockets() == before


async def test_if_nobody_takes_a_connection_it_is_closed_and_the_error_reported() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reported.append(context.get("exception"))
    )

    def refuse(link: StreamLink) -> None:
        raise LookupError("a bug in an application")

    pair = bind_pair("127.0.0.1")
    pair.udp.close()
    listener = Listener(refuse)
    await listener.open(pair.tcp)
    for _ in range(2):
        here = await dial(pair.endpoint)
        async with asyncio.timeout(5):
            assert await here.read_some() == b""
        await close(here)
    listener.close()
    await listener.wait_closed()
    assert [type(error) for error in reported] == [LookupError, LookupError]


async def test_without_a_file_left_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "ACCEPT_PAUSE", 0.05)
    async with listening() as (endpoint, links):
        here = await dial(endpoint)
        await close(await accepted(links))
        await close(here)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as raw:  # made before, connected by the kernel without our accept
            raw.setblocking(False)
            lowest_free = os.dup(raw.fileno())
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                await asyncio.get_running_loop().sock_connect(raw, endpoint)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(links.get(), 0.2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await close(await accepted(links))


@pytest.mark.parametrize("turns", range(8))
async def test_closing_while_a_connection_comes_in(turns: int) -> None:
    """It is handed over, or it is closed; never forgotten."""
    taken: list[StreamLink] = []
    pair = bind_pair("127.0.0.1")
    pair.udp.close()
    listener = Listener(taken.append)
    await listener.open(pair.tcp)
    with socket.create_connection(pair.endpoint) as here:  # connected by the kernel; our accept comes later
        here.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.close()
        listener.close()
        await listener.wait_closed()
        async with asyncio.timeout(5):
            if turns > 5:
                assert taken
            for link in taken:
                await close(link)
            with suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(here, 1) == b""
    with pytest.raises(NetworkError, match="refused"):
        await dial(pair.endpoint)
