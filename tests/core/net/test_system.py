"""`SystemEdge` on real sockets: start, learn, keep up, heal, close."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
import uvloop

from tests.core.net.coturn import HAVE_COTURN, coturn, until_it_answers
from tests.core.net.edges import running
from tests.core.net.stun_fixture import stun_server
from warpgate_core.endpoint import IP4, IP6, Endpoint
from warpgate_core.errors import ConfigError, NetworkError
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.net import nat_discovery
from warpgate_core.net.edge import DatagramSocket, TcpMapping
from warpgate_core.net.nat_discovery import fresh_client
from warpgate_core.net.ports import bind_pair
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.system import START_WAIT, SystemEdge

OUTSIDE = "203.0.113.9"
OPEN = NatProfile(Mapping.NONE, Filtering.EIF, Allocation.PRESERVED)


def preserving(source: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(OUTSIDE, source.port)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def free_port() -> int:
    pair = bind_pair("127.0.0.1")
    pair.close()
    return pair.endpoint.port


# -- starting --------------------------------------------------------------------------------


async def start_and_learn() -> None:
    async with stun_server() as server:
        before = files()
        async with running(stun=[server.text]) as watched:
            face = watched.face
            assert face.name == "lo"
            assert face.prefix == 8
            assert face.external == face.internal, "known when start returns"
            assert face.tcp_external == face.internal
            assert (await watched.profiled()).nat == OPEN
            assert watched.edge.diagnosis(face.internal).doubtful == ()
            await watched.until(lambda: watched.changes)
        await asyncio.sleep(0)  # uvloop closes its handles in the turn after
        assert files() == before


def test_start_learns_the_mapped_endpoint_and_the_nat_in_the_background() -> None:
    asyncio.run(start_and_learn())
    uvloop.run(start_and_learn())


async def test_behind_a_nat() -> None:
    async with (
        stun_server(mapped=preserving, filtering=Filtering.APDF) as server,
        running(stun=[server.text]) as watched,
    ):
        face = await watched.profiled()
        assert face.external == Endpoint(OUTSIDE, face.internal.port)
        assert face.nat.label == "port-restricted cone"
        assert face.nat.allocation is Allocation.PRESERVED
        assert face.tcp_external is None, "nobody outside can dial that"


async def test_without_servers_nothing_is_waited_for() -> None:
    begun = time.monotonic()
    async with running() as watched:
        assert time.monotonic() - begun < START_WAIT
        assert watched.edge.ready_nat.is_set()
        assert watched.face.external is None
        assert watched.face.nat == NatProfile()


async def test_dead_servers_delay_the_start_by_half_a_second_and_no_more() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))  # takes everything, answers nothing
        begun = time.monotonic()
        async with running(stun=[f"127.0.0.1:{hole.getsockname()[1]}"]) as watched:
            assert START_WAIT * 0.9 <= time.monotonic() - begun < START_WAIT + 0.5
            assert watched.face.external is None
            assert not watched.edge.ready_nat.is_set()


async def test_a_dead_and_a_broken_server_beside_a_live_one_cost_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        async with (
            stun_server() as live,
            stun_server(("127.0.0.3", "127.0.0.4"), raw=lambda request: request[:20] + b"?") as broken,
        ):
            begun = time.monotonic()
            dead = f"127.0.0.1:{hole.getsockname()[1]}"
            async with running(stun=[dead, broken.text, "127.0.0.1:1", live.text]) as watched:
                assert time.monotonic() - begun < START_WAIT * 0.9
                assert watched.face.external == watched.face.internal
                assert (await watched.profiled()).nat == OPEN


async def test_a_liar_that_answers_first_is_corrected_by_the_majority() -> None:
    async with (
        stun_server(("127.0.0.5", "127.0.0.6"), mapped=lambda *_: Endpoint("10.6.6.6", 6)) as liar,
        stun_server(mapped=preserving) as one,
        stun_server(("127.0.0.3", "127.0.0.4"), mapped=preserving) as two,
        running(stun=[liar.text, one.text, two.text]) as watched,
    ):
        face = await watched.profiled()
        assert face.external == Endpoint(OUTSIDE, face.internal.port)
        assert watched.edge.diagnosis(face.internal).doubtful == (liar.endpoint,)


# -- ports -----------------------------------------------------------------------------------


async def test_all_addresses_share_one_number_and_two_nodes_do_not() -> None:
    async with running(families=[IP4, IP6]) as one, running(families=[IP4, IP6]) as two:
        assert {face.internal.host for face in one.edge.interfaces} == {"127.0.0.1", "::1"}
        (first,) = {face.internal.port for face in one.edge.interfaces}
        (second,) = {face.internal.port for face in two.edge.interfaces}
        assert first != second
        assert {face.nic for face in one.edge.interfaces} == {0}
        assert [sock.local for sock in one.edge.sockets] == [face.internal for face in one.edge.interfaces]


async def test_a_given_port_is_used_and_a_taken_one_is_a_clear_error() -> None:
    port = free_port()
    before = files()
    async with running(port=port) as watched:
        assert watched.face.internal.port == port
        with pytest.raises(NetworkError, match=f"port {port} on 127.0.0.1 is taken"):
            async with running(port=port):
                pytest.fail("two on one port")
    assert files() == before


async def test_several_addresses_of_one_card() -> None:
    async with running(nics=None, bind=["127.0.0.1", "127.0.0.2"], families=[IP4, IP6]) as watched:
        assert [face.internal.host for face in watched.edge.interfaces] == ["127.0.0.1", "127.0.0.2"]
        remote = Endpoint("127.0.0.2", 9)
        assert watched.edge.socket_for(remote) is watched.edge.sockets[0]
        assert watched.edge.socket_for(Endpoint("::1", 9)) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nics": "tun77"}, "no network card or address tun77 is up on this machine; there are: .*lo 127"),
        ({"bind": ["192.0.2.77"]}, r"no network card or address 192\.0\.2\.77"),
        ({"families": []}, "no usable network address"),
    ],
)
async def test_nothing_usable_is_a_clear_error(options: dict[str, object], words: str) -> None:
    edge = SystemEdge(**options)  # type: ignore[arg-type]
    before = files()
    with pytest.raises(NetworkError, match=words):
        await edge.start()
    assert files() == before


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70_000},
        {"port": -1},
        {"keepalive": 0},
        {"bind": ["eth0"]},
        {"nics": 5},
        {"stun": ["host:port"]},
    ],
)
def test_nonsense_is_refused_before_anything_is_opened(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SystemEdge(**options)  # type: ignore[arg-type]


# -- traffic ---------------------------------------------------------------------------------


async def talk() -> None:
    streams: asyncio.Queue[StreamLink] = asyncio.Queue()
    datagrams: asyncio.Queue[tuple[bytes, Endpoint]] = asyncio.Queue()
    async with running() as here, running(nics="127.0.0.2") as there:
        there.edge.on_stream = streams.put_nowait

        def datagram(data: bytes, source: Endpoint, sock: DatagramSocket) -> None:
            assert sock is there.edge.sockets[0]
            datagrams.put_nowait((data, source))

        there.edge.on_datagram = datagram
        sock = here.edge.socket_for(there.face.internal)
        assert sock is not None
        async with asyncio.timeout(10):
            sock.send(b"\xe0hello", there.face.internal)
            assert await datagrams.get() == (b"\xe0hello", here.face.internal)
            out = await here.edge.dial(there.face.internal, local=here.face.internal)
            back = await streams.get()
            assert back.remote == here.face.internal
            out.write(b"hello")
            assert await back.read_exactly(5) == b"hello"
            for link in (out, back):
                link.abort()
                await link.wait_closed()


def test_streams_and_datagrams_arrive() -> None:
    asyncio.run(talk())
    uvloop.run(talk())


async def test_a_stream_that_nobody_wants_is_closed() -> None:
    async with running() as here:
        link = await here.edge.dial(here.face.internal)
        async with asyncio.timeout(10):
            assert await link.read_some() == b""
        link.abort()
        await link.wait_closed()


async def test_tcp_mappings_and_forwarded_ports() -> None:
    async with (
        stun_server(mapped=preserving) as server,
        running(stun=["127.0.0.1:1", server.text]) as watched,
    ):
        internal = watched.face.internal
        for _ in range(2):
            async with watched.edge.tcp_mapping(internal) as mapping:
                assert mapping == TcpMapping(internal, Endpoint(OUTSIDE, internal.port))
        await watched.profiled()
        forwarded = Endpoint(OUTSIDE, 8080)
        seen = watched.changes
        watched.edge.announce_tcp(internal, forwarded)
        await watched.until(lambda: watched.changes > seen)
        assert watched.face.tcp_external == forwarded
        watched.edge.announce_tcp(internal, None)
        assert [face.tcp_external for face in watched.edge.interfaces] == [None]
        with pytest.raises(NetworkError, match="none of our interfaces"):
            watched.edge.announce_tcp(Endpoint("192.0.2.77", 1), forwarded)
        with pytest.raises(NetworkError, match="none of our interfaces"):
            watched.edge.tcp_mapping(Endpoint("192.0.2.77", 1))


# -- keeping up ------------------------------------------------------------------------------


async def test_keepalive_notices_that_the_mapping_has_changed() -> None:
    async with stun_server(mapped=preserving) as server, running(stun=[server.text], keepalive=1) as watched:
        await watched.profiled()
        server.mapped = lambda source, at: Endpoint("203.0.113.10", 1_024 + source.port % 1_000)
        await watched.until(lambda: watched.face.external != Endpoint(OUTSIDE, watched.face.internal.port))
        assert watched.face.external is not None
        assert watched.face.external.host == "203.0.113.10"


async def test_without_a_nat_nothing_is_sent_to_keep_it_open() -> None:
    async with stun_server() as server, running(stun=[server.text], keepalive=1) as watched:
        await watched.profiled()
        quiet = len(server.requests)
        await asyncio.sleep(1.5)  # more than one interval: there is nothing to wait for
        assert len(server.requests) == quiet


async def test_a_server_that_goes_and_comes_back_is_used_again() -> None:
    async with stun_server(mapped=preserving) as server, running(stun=[server.text], keepalive=1) as watched:
        internal = (await watched.profiled()).internal
        server.silent = 8  # the checks of one keepalive, and half of the next round
        server.mapped = lambda source, at: Endpoint("203.0.113.10", source.port)
        await watched.until(lambda: watched.face.external == Endpoint("203.0.113.10", internal.port))
        assert server.silent == 0


async def test_if_one_server_goes_another_confirms_the_mapping() -> None:
    async with (
        stun_server(mapped=preserving) as one,
        stun_server(("127.0.0.3", "127.0.0.4"), mapped=preserving) as two,
        running(stun=[one.text, two.text], keepalive=1) as watched,
    ):
        external = (await watched.profiled()).external
        await watched.until(lambda: watched.changes)
        changes = watched.changes
        first = {asyncio.create_task(server.until_asked(1)): server for server in (one, two)}
        done, pending = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        favourite = first[done.pop()]
        (other,) = {one.endpoint, two.endpoint} - {favourite.endpoint}
        favourite.silent = 1_000
        await favourite.until_asked(4)
        await (one if other == one.endpoint else two).until_asked(1)
        assert watched.face.external == external
        assert watched.changes == changes


# -- the end ---------------------------------------------------------------------------------


async def test_closing_twice_before_starting_and_in_the_middle() -> None:
    edge = SystemEdge(nics="lo")
    await edge.close()
    async with stun_server(silent=1_000) as server:
        before = files()
        async with running(stun=[server.text]) as watched:
            await watched.edge.close()
            assert watched.edge.interfaces == ()
            assert files() == before
        with pytest.raises(RuntimeError, match="started before"):
            await watched.edge.start()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6, 8, 12, 20])
async def test_a_start_that_is_cancelled_leaves_nothing(turns: int) -> None:
    async with stun_server(silent=1_000) as server:
        before = files()
        task = asyncio.create_task(SystemEdge(nics="lo", stun=[server.text]).start())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert files() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_if_the_nat_cannot_be_looked_into_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(host: str, port: int = 0) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(nat_discovery, "bind_udp", none_left)
    async with stun_server(mapped=preserving) as server, running(stun=[server.text]) as watched:
        face = await watched.profiled()
        assert face.external == Endpoint(OUTSIDE, face.internal.port)
        assert "Too many open files" in watched.edge.diagnosis(face.internal).notes[-1]


async def test_nothing_is_told_after_closing() -> None:
    async with stun_server() as server:
        async with running(stun=[server.text]) as watched:
            watched.edge._learnt()
            changes = watched.changes
        await asyncio.sleep(0)
        assert watched.changes == changes


# -- coturn ----------------------------------------------------------------------------------


@pytest.mark.skipif(not HAVE_COTURN, reason="coturn is not installed: apt-get install coturn")
@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.2"), ("127.0.0.1",)])
async def test_against_coturn(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    async with coturn(tmp_path, hosts) as server:
        async with fresh_client("127.0.0.1", "lo") as client:
            await until_it_answers(client, server)
        async with running(stun=[str(server)]) as watched:
            face = await watched.profiled()
            assert face.external == face.internal
            filtering = Filtering.EIF if len(hosts) == 2 else Filtering.UNKNOWN
            assert face.nat == NatProfile(Mapping.NONE, filtering, Allocation.PRESERVED)
            async with watched.edge.tcp_mapping(face.internal) as mapping:
                assert mapping.external == face.internal
