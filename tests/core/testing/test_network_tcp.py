"""TCP in the in-memory network: it behaves as a kernel's would, on a good line and on a bad one."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.links import memory_links
from tests.core.testing.worlds import virtual
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import PeerLostError
from warpgate_core.net.stream import StreamLink
from warpgate_core.testing.host import Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import LeakError
from warpgate_core.testing.nat import NatRules
from warpgate_core.testing.network import MemoryNetwork
from warpgate_core.testing.tcp import RECEIVE_BUFFER, SEND_BUFFER
from warpgate_core.testing.transport import HIGH_WATER, MemoryTransport

SERVER = Endpoint("198.51.100.2", 7)


def hosts(network: MemoryNetwork, line: Line | None = None) -> tuple[Host, Host]:
    return (
        network.host("one", "198.51.100.1/24", line=line),
        network.host("other", "198.51.100.2/24", line=line),
    )


def abort_all(host: Host) -> None:
    for connection in tuple(host.connections.values()):
        if isinstance(connection.owner, MemoryTransport):
            connection.owner.abort()


async def elapsed(awaitable: Awaitable[object]) -> tuple[float, BaseException | None]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    (result,) = await asyncio.gather(awaitable, return_exceptions=True)
    return loop.time() - began, result if isinstance(result, BaseException) else None


# -- connecting ----------------------------------------------------------------------------------


def test_connecting_takes_a_round_trip_and_accepting_half_of_one_more() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        loop = asyncio.get_running_loop()
        one, other = hosts(network, Line(delay=0.02))
        accepted: list[float] = []
        links: list[StreamLink] = []

        def accept(link: StreamLink) -> None:
            accepted.append(loop.time() - began)
            links.append(link)

        other.listen(SERVER, lambda: StreamLink(accept))
        began = loop.time()
        transport, link = await one.connect(SERVER, StreamLink)
        assert loop.time() - began == pytest.approx(0.08)
        assert isinstance(link, StreamLink)
        link.write(b"first")
        await asyncio.sleep(1)
        assert accepted == [pytest.approx(0.12)]
        assert await links[0].read_some() == b"first"
        assert links[0].remote == link.local
        assert link.remote == SERVER
        assert transport.get_extra_info("peername") == tuple(SERVER)
        assert transport.get_extra_info("socket") is None
        other.unlisten(SERVER)
        link.abort()
        links[0].abort()

    virtual(main)


def test_refusal_silence_and_no_way_are_three_things() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        one, _ = hosts(network, Line(delay=0.02))
        took, error = await elapsed(one.connect(SERVER, StreamLink))
        assert isinstance(error, ConnectionRefusedError)
        assert took == pytest.approx(0.08)
        took, error = await elapsed(one.connect(Endpoint("198.51.100.99", 7), StreamLink))
        assert isinstance(error, TimeoutError)
        assert took == pytest.approx(127, abs=1)
        took, error = await elapsed(one.connect(Endpoint("2001:db8::1", 7), StreamLink))
        assert isinstance(error, OSError)
        assert "unreachable" in str(error)
        assert took == 0
        assert one.connections == {}

    virtual(main)


def test_a_lost_handshake_is_repeated() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        one, other = hosts(network)
        other.listen(SERVER, asyncio.Protocol)
        other.partition()
        network.at(2, other.heal)
        took, error = await elapsed(one.connect(SERVER, StreamLink))
        assert error is None
        assert took == pytest.approx(3, abs=0.01), "RFC 6298: after 1 s, after 2 more"
        for host in (one, other):
            abort_all(host)

    virtual(main)


def test_a_cancelled_dial_leaves_nothing_at_either_end() -> None:
    async def main() -> None:
        for when in (0.01, 0.05, 0.079, 0.0800000001, 0.1):
            network = MemoryNetwork()
            one, other = hosts(network, Line(delay=0.02))
            accepted: list[StreamLink] = []
            other.listen(SERVER, lambda accepted=accepted: StreamLink(accepted.append))  # type: ignore[misc]
            dial = asyncio.create_task(one.connect(SERVER, StreamLink))
            await asyncio.sleep(when)
            if dial.done():
                dial.result()[0].abort()
            dial.cancel()
            await asyncio.gather(dial, return_exceptions=True)
            await asyncio.sleep(200)
            for link in accepted:
                assert await link.read_some() == b""
                link.abort()
            await asyncio.sleep(200)
            assert one.connections == {}
            assert other.connections == {}

    virtual(main)


def test_crossed_dials_to_listeners_are_two_connections() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        accepted: list[StreamLink] = []
        ends = hosts(network, Line(delay=0.02))
        for host in ends:
            host.listen(Endpoint(host.cards[0].address, 7), lambda: StreamLink(accepted.append))
        dials = await asyncio.gather(
            *(
                host.connect(Endpoint(peer.cards[0].address, 7), StreamLink)
                for host, peer in (ends, ends[::-1])
            )
        )
        await asyncio.sleep(1)
        assert len(accepted) == 2
        for host in ends:
            assert len(host.connections) == 2
        for transport, _ in dials:
            transport.abort()
        for link in accepted:
            link.abort()

    virtual(main)


def test_crossed_dials_between_the_same_two_ports_are_one_connection() -> None:
    """Simultaneous open (RFC 9293 section 3.5), which punch-tcp lives on."""

    async def main() -> None:
        network = MemoryNetwork()
        one, other = hosts(network, Line(delay=0.02))
        mine, theirs = Endpoint("198.51.100.1", 9), Endpoint("198.51.100.2", 9)
        (_, left), (_, right) = await asyncio.gather(
            one.connect(theirs, StreamLink, mine), other.connect(mine, StreamLink, theirs)
        )
        assert isinstance(left, StreamLink)
        assert isinstance(right, StreamLink)
        assert len(one.connections) == len(other.connections) == 1
        left.write(b"hello")
        assert await right.read_exactly(5) == b"hello"
        with pytest.raises(OSError, match="assign requested address"):
            await one.connect(theirs, StreamLink, mine)
        await asyncio.gather(left.finish(1, 1), right.finish(1, 1))

    virtual(main)


@pytest.mark.parametrize("unsolicited", ["drop", "reset"])
def test_through_two_nats_only_crossing_handshakes_pass(unsolicited: str) -> None:
    rules = NatRules(unsolicited="reset" if unsolicited == "reset" else "drop")

    async def main() -> None:
        network = MemoryNetwork()
        ends = []
        for number in (1, 2):
            zone = network.lan(f"home{number}", f"203.0.113.{number}", rules, line=Line(delay=0.02))
            ends.append(network.host(f"host{number}", "192.168.1.2/24", zone=zone))
        local = Endpoint("192.168.1.2", 9)
        mapped = [Endpoint(f"203.0.113.{number}", 9) for number in (1, 2)]
        ends[1].listen(local, asyncio.Protocol)
        _, alone = await elapsed(ends[0].connect(mapped[1], StreamLink, local))
        assert isinstance(alone, ConnectionRefusedError if unsolicited == "reset" else TimeoutError)
        ends[1].unlisten(local)
        await asyncio.sleep(8000)  # the NAT forgets
        (_, left), (_, right) = await asyncio.gather(
            ends[0].connect(mapped[1], StreamLink, local), ends[1].connect(mapped[0], StreamLink, local)
        )
        assert isinstance(left, StreamLink)
        assert isinstance(right, StreamLink)
        assert left.remote == mapped[1]
        right.write(b"punched")
        assert await left.read_exactly(7) == b"punched"
        await asyncio.gather(left.finish(1, 1), right.finish(1, 1))

    virtual(main)


def test_only_outgoing_443() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        zone = network.lan("office", "203.0.113.1", NatRules(tcp_ports=frozenset({443})))
        inside = network.host("inside", "192.168.1.2/24", zone=zone)
        outside = network.host("outside", "198.51.100.2/24")
        for port in (443, 444):
            outside.listen(Endpoint("198.51.100.2", port), asyncio.Protocol)
        transport, _ = await inside.connect(Endpoint("198.51.100.2", 443), StreamLink)
        _, error = await elapsed(inside.connect(Endpoint("198.51.100.2", 444), StreamLink))
        assert isinstance(error, TimeoutError)
        transport.abort()
        await asyncio.sleep(1)
        abort_all(outside)

    virtual(main)


def test_the_same_endpoints_again_at_once() -> None:
    """What is under way from the former connection must not disturb the next."""

    async def main() -> None:
        network = MemoryNetwork()
        one, other = hosts(network, Line(delay=0.02, jitter=0.1))
        accepted: asyncio.Queue[StreamLink] = asyncio.Queue()
        other.listen(SERVER, lambda: StreamLink(accepted.put_nowait))
        local = Endpoint("198.51.100.1", 9)
        for number in range(20):
            _, left = await one.connect(SERVER, StreamLink, local)
            assert isinstance(left, StreamLink)
            right = await accepted.get()
            left.write(b"%d" % number)
            assert await right.read_some() == b"%d" % number
            await asyncio.gather(left.finish(1, 1), right.finish(1, 1))
            await asyncio.sleep(0.5)  # until the last acknowledgement the endpoints are in use

    for seed in range(10):
        virtual(main, seed)


# -- carrying ------------------------------------------------------------------------------------


@example(seed=699, loss=0.16, jitter=0.03, odd=0.03, shred=True)  # slow, with progress: not given up
@given(st.integers(0, 2**32), st.floats(0, 0.2), st.floats(0, 0.05), st.floats(0, 0.3), st.booleans())
def test_everything_arrives_in_order_over_any_line(
    seed: int, loss: float, jitter: float, odd: float, shred: bool
) -> None:
    async def main() -> None:
        line = Line(delay=0.01, jitter=jitter, loss=loss, reorder=odd, duplicate=odd)
        left, right, *_ = await memory_links(MemoryNetwork(shred=shred), line)
        rng = random.Random(seed)
        sent = [rng.randbytes(rng.randrange(1, 60_000)) for _ in range(6)]

        async def write(link: StreamLink) -> None:
            for data in sent:
                link.write(data)
                await link.drain()
            link.write_eof()

        async def read(link: StreamLink) -> bytes:
            got = b""
            while data := await link.read_some():
                got += data
            return got

        _, _, one, other = await asyncio.gather(write(left), write(right), read(left), read(right))
        assert one == other == b"".join(sent)
        await asyncio.gather(left.finish(9, 9), right.finish(9, 9))

    virtual(main, seed)


def test_a_reader_who_pauses_holds_back_the_writer() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        left, right, *_ = await memory_links(network, Line(delay=0.01))
        right.transport.pause_reading()
        chunk = random.Random(1).randbytes(50_000)
        accepted = 0
        while not left.is_write_paused:
            left.write(chunk)
            accepted += len(chunk)
            await asyncio.sleep(0.1)
        assert accepted <= SEND_BUFFER + RECEIVE_BUFFER + HIGH_WATER + 2 * len(chunk)
        await asyncio.sleep(100)
        assert left.is_write_paused
        right.transport.resume_reading()
        digest = hashlib.sha256()
        read = 0
        while read < accepted:
            data = await right.read_some()
            digest.update(data)
            read += len(data)
        assert digest.digest() == hashlib.sha256(chunk * (accepted // len(chunk))).digest()
        await asyncio.gather(left.finish(1, 1), right.finish(1, 1))

    virtual(main)


def test_a_window_update_that_is_lost_does_not_hang_it() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        left, right, one, other = await memory_links(network, Line(delay=0.01))
        right.transport.pause_reading()
        left.write(bytes(400_000))
        await asyncio.sleep(1)
        network.cut(one, other)
        right.transport.resume_reading()
        await asyncio.sleep(0.1)
        network.mend(one, other)
        read = 0
        while read < 400_000:
            read += len(await right.read_some())
        await asyncio.gather(left.finish(1, 1), right.finish(1, 1))

    virtual(main)


# -- ending --------------------------------------------------------------------------------------


def test_closing_with_unread_data_resets_the_peer() -> None:
    """As on a real kernel (RFC 2525 section 2.17): the reason why `StreamLink.finish` exists."""

    async def main() -> None:
        left, right, *_ = await memory_links(MemoryNetwork(), Line(delay=0.01))
        right.transport.pause_reading()
        left.write(b"never read")
        await asyncio.sleep(1)
        right.transport.close()
        with pytest.raises(PeerLostError):
            await left.read_some()

    virtual(main)


def test_writing_to_a_closed_peer_resets() -> None:
    async def main() -> None:
        left, right, *_ = await memory_links(MemoryNetwork(), Line(delay=0.01))
        right.close()
        assert await left.read_some() == b"", "an orderly end"
        left.write(b"to nobody")
        await left.wait_closed()
        assert isinstance(left.error, PeerLostError)

    virtual(main)


def test_faults_reset_cut_and_mend() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = MemoryNetwork()
        left, right, one, other = await memory_links(network, Line(delay=0.01))
        network.cut(one, other)
        left.write(b"held back")
        await asyncio.sleep(10)
        assert right.buffered == 0
        network.mend(one, other)
        assert await right.read_exactly(9) == b"held back"
        network.at(1, network.reset, one, other)
        began = loop.time()
        for result in await asyncio.gather(left.read_some(), right.read_some(), return_exceptions=True):
            assert isinstance(result, PeerLostError)
            assert isinstance(result.__cause__, ConnectionResetError)
        assert loop.time() - began == pytest.approx(1)
        assert one.connections == other.connections == {}

    virtual(main)


@pytest.mark.parametrize("writes", [False, True])
def test_a_dead_path_is_given_up_after_thirty_seconds(writes: bool) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        left, right, one, _ = await memory_links(network, Line(delay=0.01))
        await asyncio.sleep(500)
        assert not left.is_lost, "keepalive finds a silent peer alive"
        one.partition()
        if writes:
            left.write(b"?")
        took, error = await elapsed(asyncio.gather(left.read_some(), right.wait_closed()))
        assert isinstance(error, PeerLostError)
        assert isinstance(error.__cause__, TimeoutError)
        assert took == pytest.approx(30, abs=6)
        await right.wait_closed()

    virtual(main)


def test_a_transport_that_nobody_closed_is_a_leak() -> None:
    async def main() -> None:
        await memory_links(MemoryNetwork())

    with pytest.raises(LeakError, match="MemoryTransport"):
        virtual(main)


def test_the_transport_keeps_asyncios_promises() -> None:
    async def main() -> None:
        left, right, *_ = await memory_links(MemoryNetwork())
        transport = left.transport
        assert transport.can_write_eof()
        assert transport.is_reading()
        assert transport.get_protocol() is left
        assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        transport.set_write_buffer_limits()
        transport.write(b"")
        transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        assert await right.read_exactly(3) == b"abc"
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"x")
        assert transport.get_write_buffer_size() == 0
        transport.close()
        transport.close()
        transport.abort()
        assert transport.is_closing()
        assert not transport.is_reading()
        transport.write_eof()
        await left.wait_closed()
        right.abort()

    virtual(main)
