"""Whole nodes with a real coturn on loopback: logins, failing servers, refreshing, what is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.fixtures.certificates import Certificates
from tests.lab.turn.coturn import PASSWORD, REALM, SECRET, USER, TurnServerProgram, free_udp_port
from tests.lab.turn.nodes import exchange, explained, joined, nodes
from warpgate_core import Node, PeerLostError, TurnServer
from warpgate_core.pipe.consent import EXPIRY
from warpgate_turn.credentials import hmac_login
from warpgate_turn.relay import Relay


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def coturn(certificates: Certificates) -> Iterator[TurnServerProgram]:
    with TurnServerProgram(tls=certificates) as server:
        yield server


@pytest.fixture(scope="module")
def with_secret() -> Iterator[TurnServerProgram]:
    with TurnServerProgram(secret=True) as server:
        yield server


# -- transports and logins -----------------------------------------------------------------------


@pytest.mark.parametrize("via", ["udp", "tcp", "tls"])
async def test_messages_pass_over_one_relay_and_nothing_is_left(
    coturn: TurnServerProgram, certificates: Certificates, via: str
) -> None:
    before = coturn.made
    url = coturn.url(via)
    async with nodes([url], [url], stun=coturn, ca_file=str(certificates.cafile)) as (alice, bob):
        one, other = await joined(alice, bob)
        await exchange(one, other, (0, 1, 2, 3, 1_000, 1_200, 8_000))
        assert coturn.held == 1, "one relay is enough for both"
        assert other.path.local.host == "127.0.0.1"
        assert one.path.remote == other.path.local
        await one.close()
        await other.close()
        await asyncio.to_thread(coturn.wait_until_empty)
    assert coturn.made == before + 1
    assert coturn.refreshes[-1] == 0, "it was deleted, and did not just run out"


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_one_end_with_a_server_is_enough(coturn: TurnServerProgram, who: str) -> None:
    servers = [coturn.url()]
    alices, bobs = (servers, []) if who == "alice" else ([], servers)
    async with nodes(alices, bobs, stun=coturn) as (alice, bob):
        for caller, called in ((alice, bob), (bob, alice)):
            one, other = await joined(caller, called)
            await exchange(one, other)
            assert coturn.held == 1
            await asyncio.gather(one.close(), other.close())
    await asyncio.to_thread(coturn.wait_until_empty)


@pytest.mark.parametrize("via", ["udp", "tcp", "tls"])
async def test_a_server_may_have_a_name(
    coturn: TurnServerProgram, certificates: Certificates, via: str
) -> None:
    """localhost is often ::1 first, where nobody listens."""
    url = coturn.url(via).replace("127.0.0.1", "localhost")
    async with nodes([], [url], stun=coturn, ca_file=str(certificates.cafile)) as (alice, bob):
        one, other = await joined(alice, bob)
        await exchange(one, other)
    await asyncio.to_thread(coturn.wait_until_empty)


async def test_a_name_that_is_none_is_named(coturn: TurnServerProgram) -> None:
    url = coturn.url().replace("127.0.0.1", "no-such-host.invalid")
    async with nodes([], [url], stun=coturn) as (alice, bob):
        text, _ = await explained(alice, bob)
    assert "the name no-such-host.invalid is not known" in text


async def test_without_stun_both_allocate_and_meet_all_the_same(coturn: TurnServerProgram) -> None:
    async with nodes([coturn.url()], [coturn.url()]) as (alice, bob):
        one, other = await joined(alice, bob)
        await exchange(one, other)
    await asyncio.to_thread(coturn.wait_until_empty)


async def test_a_secret_shared_with_the_server(with_secret: TurnServerProgram) -> None:
    async with nodes([], [with_secret.hmac_url()], stun=with_secret) as (alice, bob):
        one, other = await joined(alice, bob)
        await exchange(one, other)
    await asyncio.to_thread(with_secret.wait_until_empty)
    assert ":bob>" in with_secret.output


async def test_a_web_service_that_hands_out_logins(with_secret: TurnServerProgram) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        server = TurnServer("turn:x", username="carol", credential=SECRET, credential_type="hmac")
        login = hmac_login(server, 2_000_000_000)
        body = json.dumps({"username": login.username, "password": login.password, "ttl": 600})
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    service = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = service.sockets[0].getsockname()[1]
    server = TurnServer(
        f"turn:127.0.0.1:{with_secret.port}",
        credential_type="rest",
        credential_url=f"http://127.0.0.1:{port}/turn",
        credential="the-key",
    )
    async with nodes([], [server], stun=with_secret) as (alice, bob):
        for _ in range(2):
            one, other = await joined(alice, bob)
            await exchange(one, other)
            await asyncio.gather(one.close(), other.close())
    service.close()
    await service.wait_closed()
    assert len(asked) == 1, "the login was kept"
    assert b"key=the-key" in asked[0]
    await asyncio.to_thread(with_secret.wait_until_empty)


async def test_a_server_that_wants_no_login() -> None:
    with TurnServerProgram(options=["--no-auth"], secret=None) as server:
        async with nodes([], [server.url(user="")], stun=server) as (alice, bob):
            one, other = await joined(alice, bob)
            await exchange(one, other)


# -- what goes wrong -----------------------------------------------------------------------------


async def test_a_wrong_password_is_named_with_its_server_and_not_shown(coturn: TurnServerProgram) -> None:
    async with nodes([], [coturn.url(password="wrong-one")], stun=coturn) as (alice, bob):
        text, seconds = await explained(alice, bob)
    assert "refuses user name and password" in text
    assert "[401" in text
    assert f"turn:127.0.0.1:{coturn.port}?transport=udp" in text
    assert "wrong-one" not in text
    assert USER not in text.replace("turn:", "")
    assert seconds < 1.0, "nobody waits for the time-out"


async def test_the_trace_of_both_ends_shows_no_secret(coturn: TurnServerProgram) -> None:
    async with nodes([coturn.url(password="wrong-one")], [coturn.url()], stun=coturn) as (alice, bob):
        one, other = await joined(alice, bob)
        shown = "".join(f"{event}{event!r}" for end in (one, other) for event in end.trace)
        shown += repr(alice.config) + repr(one) + repr(bob.registry.create("turn"))
        assert "allocate" in shown
        for secret in ("wrong-one", PASSWORD):
            assert secret not in shown


async def test_a_wrong_secret_is_named(with_secret: TurnServerProgram) -> None:
    url = with_secret.hmac_url().replace(SECRET, "south-wind")
    async with nodes([], [url], stun=with_secret) as (alice, bob):
        text, _ = await explained(alice, bob)
    assert "clock for hmac" in text
    assert "south-wind" not in text


async def test_no_server_at_either_end_is_said_at_once(coturn: TurnServerProgram) -> None:
    async with nodes([], [], stun=coturn) as (alice, bob):
        text, seconds = await explained(alice, bob)
    assert "no TURN server is configured at either end" in text
    assert seconds < 1.0


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_dead_servers_and_a_wrong_password_cost_only_their_own_attempt(
    coturn: TurnServerProgram, certificates: Certificates, who: str
) -> None:
    nobody = free_udp_port()
    servers = [
        f"turn:{USER}:{PASSWORD}@127.0.0.1:{nobody}",
        f"turns:{USER}:{PASSWORD}@127.0.0.1:{coturn.port}",  # not TLS there
        coturn.url(password="wrong-one"),
        coturn.url("tls"),
    ]
    alices, bobs = (servers, []) if who == "alice" else ([], servers)
    async with nodes(alices, bobs, stun=coturn, ca_file=str(certificates.cafile)) as (alice, bob):
        loop = asyncio.get_running_loop()
        start = loop.time()
        one, other = await joined(alice, bob)
        assert loop.time() - start < 1.5
        await exchange(one, other)
        end = one if who == "alice" else other
        told = [str(event) for event in end.trace if event.strategy == "turn"]
        assert any("port unreachable" in line and str(nobody) in line for line in told)
        assert any("refuses user name and password" in line for line in told)
    await asyncio.to_thread(coturn.wait_until_empty)


async def test_who_stood_by_helps_out_when_the_responder_gets_no_relay(coturn: TurnServerProgram) -> None:
    async with nodes([coturn.url()], [coturn.url(password="wrong-one")], stun=coturn) as (alice, bob):
        one, other = await joined(alice, bob)
        await exchange(one, other)
        assert one.path.local.port == other.path.remote.port, "the relay is alice's"
    await asyncio.to_thread(coturn.wait_until_empty)


async def test_a_private_certificate_needs_its_authority(
    coturn: TurnServerProgram, certificates: Certificates
) -> None:
    async with nodes([], [coturn.url("tls")], stun=coturn) as (alice, bob):
        text, _ = await explained(alice, bob)
    assert "certificate" in text
    assert "ca_file" in text


async def test_a_quota_is_named() -> None:
    with TurnServerProgram(options=["--user-quota=1"]) as server:
        async with nodes([], [server.url()], stun=server) as (alice, bob):
            pipes = await joined(alice, bob)
            text, _ = await explained(alice, bob)
            assert "too many allocations" in text
            await exchange(*pipes)


async def test_a_peer_that_the_server_forbids_is_noted() -> None:
    with TurnServerProgram(options=["--denied-peer-ip=127.0.0.0-127.255.255.255"]) as server:
        async with nodes([], [server.url()], stun=server) as (alice, bob):
            text, seconds = await explained(alice, bob, timeout=10)
            assert "did not answer any check" in text or "did not come" in text
            assert seconds < 9
        await asyncio.to_thread(server.wait_until_empty)


# -- staying alive -------------------------------------------------------------------------------


@asynccontextmanager
async def short_lived(via: str) -> AsyncIterator[tuple[TurnServerProgram, str]]:
    """coturn with lifetimes of seconds instead of minutes; RFC 8656 has 600, 600 and 300."""
    lifetimes = [
        "--max-allocate-lifetime=4",
        "--channel-lifetime=3",
        "--permission-lifetime=3",
        "--stale-nonce=2",
    ]
    with TurnServerProgram(options=lifetimes) as server:
        yield server, server.url(via)


@pytest.mark.slow
@pytest.mark.parametrize("via", ["udp", "tcp"])
async def test_a_pipe_outlives_allocation_permission_channel_and_nonce(via: str) -> None:
    async with short_lived(via) as (server, url), nodes([], [url], stun=server, refresh=1.0) as (alice, bob):
        one, other = await joined(alice, bob)
        for _ in range(5):
            await asyncio.sleep(2)  # time is what is tested
            await exchange(one, other)
        assert server.made == 1
        assert len(server.refreshes) >= 8
        assert not any(refresh == 0 for refresh in server.refreshes)
        await asyncio.gather(one.close(), other.close())
        await asyncio.to_thread(server.wait_until_empty)
        assert server.refreshes[-1] == 0, "deleted, with a nonce that was renewed on the way"


@pytest.mark.slow
async def test_without_refreshes_it_would_not() -> None:
    """The test above can fail: the same server lets go of who does not refresh."""
    async with short_lived("udp") as (server, url), nodes([], [url], stun=server) as (alice, bob):
        one, _ = await joined(alice, bob)
        (relay,) = _relays(bob)
        for task in tuple(relay._tasks):
            task.cancel()
        await asyncio.to_thread(server.wait_until_empty)
        assert not one.closed, "its own consent has 30 s"


def _relays(node: Node) -> list[Relay]:
    """The relays that a node's pipes are attached to."""
    socks = {mux.sock for mux in node.parts.engine._muxes.values()}
    return [sock for sock in socks if isinstance(sock, Relay)]


# -- the server goes away ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_over_tcp_a_lost_server_is_an_error_at_once_for_who_owns_the_relay(how: str) -> None:
    with TurnServerProgram() as server:
        async with nodes([], [server.url("tcp")], stun=server) as (alice, bob):
            _, other = await joined(alice, bob)
            await asyncio.to_thread(getattr(server, how))
            with pytest.raises(PeerLostError, match=r"relay at turn:127.*is gone"):
                await other.recv(timeout=3)
            assert isinstance(other.error, PeerLostError)


async def test_over_udp_a_killed_server_is_an_error_at_the_next_packet() -> None:
    with TurnServerProgram() as server:
        async with nodes([], [server.url()], stun=server) as (alice, bob):
            _, other = await joined(alice, bob)
            await asyncio.to_thread(server.kill)
            await other.send(b"into the void")
            with pytest.raises(PeerLostError, match=r"relay at turn:127.*is gone"):
                await other.recv(timeout=3)


@pytest.mark.slow
async def test_over_udp_a_restarted_server_is_an_error_within_the_time_of_consent() -> None:
    """It answers nothing that would tell; the peer has no relay to lose, and learns by silence as well."""
    with TurnServerProgram() as server:
        async with nodes([], [server.url()], stun=server) as (alice, bob):
            one, other = await joined(alice, bob)
            await asyncio.to_thread(server.restart)
            start = asyncio.get_running_loop().time()
            for end in (one, other):
                with pytest.raises(PeerLostError):
                    await end.recv(timeout=EXPIRY + 5)
            assert asyncio.get_running_loop().time() - start < EXPIRY + 5
            again = await joined(alice, bob)
            await exchange(*again)


# -- nothing left --------------------------------------------------------------------------------


async def test_closing_the_nodes_deletes_the_relay_of_an_open_pipe(coturn: TurnServerProgram) -> None:
    async with nodes([], [coturn.url()], stun=coturn) as (alice, bob):
        await joined(alice, bob)
        assert coturn.held == 1
    await asyncio.to_thread(coturn.wait_until_empty)
    assert coturn.refreshes[-1] == 0


async def test_a_peer_that_closes_first_leaves_no_relay_either(coturn: TurnServerProgram) -> None:
    async with nodes([], [coturn.url()], stun=coturn) as (alice, bob):
        one, other = await joined(alice, bob)
        await one.close()
        await other.wait_closed()
        await asyncio.to_thread(coturn.wait_until_empty)


async def test_several_pipes_have_a_relay_each_and_end_apart(coturn: TurnServerProgram) -> None:
    async with nodes([], [coturn.url()], stun=coturn) as (alice, bob):
        pairs = [await joined(alice, bob) for _ in range(3)]
        assert coturn.held == 3
        await asyncio.gather(*(end.close() for end in pairs[1]))
        assert coturn.held == 2
        for pair in (pairs[0], pairs[2]):
            await exchange(*pair)
    await asyncio.to_thread(coturn.wait_until_empty)


async def test_a_relay_that_loses_the_race_is_deleted(coturn: TurnServerProgram) -> None:
    before = coturn.made
    async with nodes([coturn.url()], [coturn.url()], stun=coturn) as (alice, bob):
        pipe, spec = await alice.connect(bob.address)
        assert spec.name != "turn"
        await asyncio.to_thread(coturn.wait_until_empty)
        await pipe.close()
    assert coturn.made - before <= 1
    assert REALM in coturn.output
