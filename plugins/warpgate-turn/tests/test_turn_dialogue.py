"""The dialogue with servers that misbehave: scripted, over real sockets. coturn is in tests/lab/turn."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aioice import stun, turn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warpgate_core import IP6, Endpoint, NetworkError, TurnServer
from warpgate_turn.credentials import Login
from warpgate_turn.dialogue import RESEND, Dialogue, open_tcp, open_udp
from warpgate_turn.doors import GAP
from warpgate_turn.opening import Opening
from warpgate_turn.options import REMEMBERED, TurnOptions
from warpgate_turn.reasons import TurnError

LOGIN = Login("alice", "wonderland")
KEY = turn.make_integrity_key("alice", "realm", "wonderland")
RELAYED, MAPPED, PEER = ("203.0.113.9", 50_000), ("198.51.100.1", 7), Endpoint("198.51.100.2", 9)

Script = Callable[[stun.Message], list[bytes]]


def reply(request: stun.Message, kind: stun.Class, *, key: bytes | None = None, **found: object) -> bytes:
    attributes = {name.replace("_", "-"): value for name, value in found.items()}
    message = stun.Message(request.message_method, kind, request.transaction_id, attributes)
    if key is not None:
        message.add_message_integrity(key)
    return bytes(message)


def challenge(request: stun.Message, code: int = 401) -> bytes:
    return reply(request, stun.Class.ERROR, ERROR_CODE=(code, "no"), REALM="realm", NONCE=b"nonce")


def refuse(request: stun.Message, code: int, text: str = "no") -> bytes:
    return reply(request, stun.Class.ERROR, key=KEY, ERROR_CODE=(code, text))


def grant(request: stun.Message, lifetime: int = 600, key: bytes = KEY) -> bytes:
    found = {"XOR_RELAYED_ADDRESS": RELAYED, "XOR_MAPPED_ADDRESS": MAPPED, "LIFETIME": lifetime}
    return reply(request, stun.Class.RESPONSE, key=key, **found)


def polite(request: stun.Message) -> list[bytes]:
    """What a good server says."""
    return [grant(request) if "USERNAME" in request.attributes else challenge(request)]


class Server(asyncio.DatagramProtocol):
    """A TURN server that says what the script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.got: list[stun.Message] = []
        self.client: Endpoint | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.local = Endpoint.of(transport.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.client = Endpoint.of(addr)
        request = stun.parse_message(data)
        self.got.append(request)
        for answer in self.script(request):
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def udp(script: Script, login: Login = LOGIN) -> AsyncIterator[tuple[Server, Dialogue]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Server(script), local_addr=("127.0.0.1", 0)
    )
    dialogue = await open_udp(server.local, login)
    try:
        yield server, dialogue
    finally:
        await dialogue.close()
        transport.close()


@asynccontextmanager
async def tcp() -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader, Dialogue]]:
    """A dialogue, and the server's end of its connection in the test's own hands."""
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
        asyncio.get_running_loop().create_future()
    )
    server = await asyncio.start_server(lambda r, w: accepted.set_result((r, w)), "127.0.0.1", 0)
    dialogue = await open_tcp(Endpoint.of(server.sockets[0].getsockname()), LOGIN, None, "localhost")
    reader, writer = await accepted
    try:
        yield writer, reader, dialogue
    finally:
        await dialogue.close()
        writer.transport.abort()
        server.close()
        await server.wait_closed()


# -- allocating ----------------------------------------------------------------------------------


async def test_a_challenge_makes_nothing_and_the_allocation_then_takes_one_request() -> None:
    async with udp(polite) as (server, dialogue):
        assert await dialogue.challenge(600, 1.0) is None
        assert (dialogue.may_hold, len(server.got)) == (False, 1)
        granted = await dialogue.allocate(600, None, 1.0)
        assert (granted.relayed, granted.mapped, granted.lifetime) == (RELAYED, MAPPED, 600)
        assert (dialogue.may_hold, len(server.got)) == (True, 2)


async def test_a_server_without_logins_grants_at_once() -> None:
    async with udp(lambda request: [grant(request)], Login()) as (_, dialogue):
        granted = await dialogue.challenge(600, 1.0)
        assert granted is not None
        assert granted.relayed == RELAYED
        assert dialogue.may_hold


async def test_ipv6_is_asked_for_in_an_attribute_under_the_integrity() -> None:
    raw: list[bytes] = []

    class Recording(Server):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            raw.append(data)
            super().datagram_received(data, addr)

    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Recording(polite), local_addr=("127.0.0.1", 0)
    )
    dialogue = await open_udp(server.local, LOGIN)
    try:
        await dialogue.allocate(600, IP6, 1.0)
    finally:
        await dialogue.close()
        transport.close()
    assert [data[20:28] for data in raw] == [struct.pack("!HHB3x", 0x0017, 4, 2)] * 2
    assert server.got[-1].check_message_integrity(KEY)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (300, "redirects"),
        (403, "forbids"),
        (437, "no such allocation"),
        (441, "another user name"),
        (442, "does not relay UDP"),
        (486, "too many allocations"),
        (508, "no free relay port"),
        (599, "it refuses"),
    ],
)
async def test_refusals_are_put_in_words(code: int, words: str) -> None:
    def script(request: stun.Message) -> list[bytes]:
        if "USERNAME" in request.attributes:
            return [refuse(request, code, "X\n\x1b[1m")]
        return [challenge(request)]

    async with udp(script) as (_, dialogue):
        with pytest.raises(TurnError, match=words) as caught:
            await dialogue.allocate(600, None, 1.0)
        assert caught.value.code == code
        assert str(caught.value).isprintable()
        assert not dialogue.may_hold


async def test_a_wrong_password_and_a_missing_one_are_told_apart() -> None:
    for login, words in ((LOGIN, "refuses user name and password"), (Login(), "none is configured")):
        async with udp(lambda request: [challenge(request)], login) as (_, dialogue):
            with pytest.raises(TurnError, match=words):
                await dialogue.allocate(600, None, 1.0)


async def test_a_grant_that_lacks_something_is_refused() -> None:
    def script(request: stun.Message) -> list[bytes]:
        return [reply(request, stun.Class.RESPONSE, key=KEY, LIFETIME=600)]

    async with udp(script, Login()) as (_, dialogue):
        with pytest.raises(NetworkError, match="lacks XOR-RELAYED-ADDRESS and XOR-MAPPED-ADDRESS"):
            await dialogue.challenge(600, 1.0)


async def test_a_stale_nonce_is_replaced() -> None:
    nonces = iter([b"nonce", b"newer"])

    def script(request: stun.Message) -> list[bytes]:
        if request.attributes.get("NONCE") == b"newer":
            return [grant(request)]
        code = 438 if "USERNAME" in request.attributes else 401
        return [reply(request, stun.Class.ERROR, ERROR_CODE=(code, ""), REALM="realm", NONCE=next(nonces))]

    async with udp(script) as (server, dialogue):
        assert await dialogue.challenge(600, 1.0) is None
        assert (await dialogue.allocate(600, None, 1.0)).relayed == RELAYED
        assert len(server.got) == 3


# -- what is lost, late or forged ----------------------------------------------------------------


async def test_one_lost_packet_costs_no_half_second() -> None:
    seen: set[bytes] = set()

    def script(request: stun.Message) -> list[bytes]:
        """Loses the first transmission of every request."""
        if request.transaction_id not in seen:
            seen.add(request.transaction_id)
            return []
        return polite(request)

    async with udp(script) as (server, dialogue):
        start = asyncio.get_running_loop().time()
        await dialogue.allocate(600, None, 3.0)
        assert 2 * RESEND <= asyncio.get_running_loop().time() - start < 0.5 + RESEND
        assert len(server.got) == 4


async def test_a_silent_server_is_given_up_in_time() -> None:
    async with udp(lambda request: []) as (_, dialogue):
        start = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError, match=r"no answer within 0\.3 s"):
            await dialogue.allocate(600, None, 0.3)
        assert asyncio.get_running_loop().time() - start < 1.0


async def test_a_closed_port_is_known_at_once() -> None:
    async with udp(polite) as (server, dialogue):
        server.transport.abort()
        await asyncio.sleep(0)
        start = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError, match="nothing listens there"):
            await dialogue.challenge(600, 5.0)
        assert asyncio.get_running_loop().time() - start < 1.0


async def test_an_answer_with_a_wrong_integrity_is_no_answer() -> None:
    def script(request: stun.Message) -> list[bytes]:
        if "USERNAME" not in request.attributes:
            return [challenge(request)]
        return [grant(request, key=b"x" * 16), grant(request, lifetime=77)]

    async with udp(script) as (_, dialogue):
        assert (await dialogue.allocate(600, None, 1.0)).lifetime == 77


async def test_rubbish_from_the_server_changes_nothing() -> None:
    request = stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)
    damaged = bytearray(reply(request, stun.Class.RESPONSE, LIFETIME=1))
    damaged[23] = 2  # LIFETIME of two bytes: aioice's reader of it raises struct.error

    def script(request: stun.Message) -> list[bytes]:
        return [b"", b"\x40", b"\x40\x00\x00\x09x", b"\x00\x01", bytes(20), bytes(damaged), *polite(request)]

    async with udp(script) as (_, dialogue):
        assert (await dialogue.allocate(600, None, 1.0)).relayed == RELAYED


# -- data ----------------------------------------------------------------------------------------


def indication(data: bytes) -> bytes:
    found = {"XOR-PEER-ADDRESS": tuple(PEER), "DATA": data}
    return bytes(stun.Message(stun.Method.DATA, stun.Class.INDICATION, attributes=found))


def channel(number: int, data: bytes, *, padded: bool = False) -> bytes:
    frame = struct.pack("!HH", number, len(data)) + data
    return frame + bytes(stun.padding_length(len(frame))) if padded else frame


async def test_indications_and_channels_over_udp() -> None:
    async with udp(lambda request: [*polite(request), indication(b"one"), channel(0x4007, b"two")]) as (
        _,
        end,
    ):
        data: list[object] = []
        end.on_data = lambda got, remote: data.append((got, remote))
        end.on_channel = lambda number, got: data.append((got, number))
        await end.challenge(600, 1.0)
        await end.allocate(600, None, 1.0)
        assert data[:2] == [(b"one", PEER), (b"two", 0x4007)]


async def test_requests_carry_the_peer() -> None:
    async with udp(lambda request: [reply(request, stun.Class.RESPONSE, key=KEY)]) as (server, dialogue):
        permitting: list[str] = []
        dialogue.on_permitting = permitting.append
        await dialogue.permit(PEER.host, 1.0)
        await dialogue.bind(0x4001, PEER, 1.0)
        dialogue.indicate(b"data", PEER)
        await dialogue.renew(0, 1.0)
    methods = [request.message_method for request in server.got]
    assert methods == [
        stun.Method.CREATE_PERMISSION,
        stun.Method.CHANNEL_BIND,
        stun.Method.SEND,
        stun.Method.REFRESH,
    ]
    assert server.got[1].attributes["CHANNEL-NUMBER"] == 0x4001
    assert server.got[2].attributes["DATA"] == b"data"
    assert server.got[3].attributes["LIFETIME"] == 0
    assert permitting == [PEER.host, PEER.host]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12), st.data())
def test_a_stream_may_be_cut_anywhere(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(
        channel(0x4000 + number, body, padded=True) if number % 2 else indication(body)
        for number, body in enumerate(messages)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))

    async def main() -> None:
        async with tcp() as (writer, _, dialogue):
            dialogue.may_hold = True
            got: list[bytes] = []
            all_there = asyncio.Event()

            def take(body: bytes) -> None:
                got.append(body)
                if len(got) == len(messages):
                    all_there.set()

            dialogue.on_data = lambda body, remote: take(body)
            dialogue.on_channel = lambda number, body: take(body)
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                writer.write(stream[start:end])
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await all_there.wait()
            assert got == messages

    asyncio.run(main())


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff" * 9])
async def test_a_stream_that_is_no_turn_ends_the_connection(greeting: bytes) -> None:
    async with tcp() as (writer, _, dialogue):
        writer.write(greeting)
        async with asyncio.timeout(5):
            await dialogue.gone
        with pytest.raises(NetworkError, match="closed"):
            await dialogue.challenge(600, 1.0)


async def test_a_connection_that_ends_fails_what_waits() -> None:
    async with tcp() as (writer, reader, dialogue):
        asking = asyncio.create_task(dialogue.challenge(600, 5.0))
        await reader.read(20)
        writer.transport.abort()
        with pytest.raises(NetworkError, match="closed the connection"):
            await asking


async def test_what_a_stalled_server_does_not_take_is_dropped_and_not_kept() -> None:
    async with tcp() as (_, _reader, dialogue):
        packet = bytes(1_200)
        for _ in range(20_000):
            dialogue.channel(0x4000, packet)
            if dialogue.full:
                break
        assert dialogue.full
        before = dialogue.transport.get_write_buffer_size()  # type: ignore[attr-defined]
        for _ in range(1_000):
            dialogue.channel(0x4000, packet)
        assert dialogue.transport.get_write_buffer_size() == before  # type: ignore[attr-defined]


# -- several servers -----------------------------------------------------------------------------


@asynccontextmanager
async def servers(*scripts: Script) -> AsyncIterator[list[Server]]:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_datagram_endpoint(lambda script=script: Server(script), local_addr=("127.0.0.1", 0))  # type: ignore[misc]
        for script in scripts
    ]
    try:
        yield [server for _, server in made]
    finally:
        for transport, _ in made:
            transport.close()


def opening(options: TurnOptions, notes: list[tuple[str, bool]]) -> Opening:
    return Opening(
        options,
        Endpoint("0.0.0.0", 0).family,
        udp=True,
        receive=lambda data, remote, sock: None,
        note=lambda door, text, good: notes.append((f"{door}: {text}", good)),
    )


def options_for(made: list[Server]) -> TurnOptions:
    return TurnOptions(
        servers=tuple(TurnServer(f"turn:alice:wonderland@127.0.0.1:{server.local.port}") for server in made)
    )


async def test_a_dead_server_and_a_hostile_one_cost_only_their_own_attempt() -> None:
    def no_quota(request: stun.Message) -> list[bytes]:
        return [refuse(request, 486) if "USERNAME" in request.attributes else challenge(request)]

    async with servers(lambda request: [], no_quota, polite) as made:
        notes: list[tuple[str, bool]] = []
        race = opening(options_for(made), notes)
        race.go()
        start = asyncio.get_running_loop().time()
        try:
            relay = await race.run()
        finally:
            await race.close()
        assert asyncio.get_running_loop().time() - start < 2 * GAP + 0.2, "one pause, then failures at once"
        assert relay.local == RELAYED
        assert relay.name.startswith(f"turn:127.0.0.1:{made[2].local.port}")
        await relay.let_go()
        assert made[2].got[-1].attributes["LIFETIME"] == 0
        assert [good for _, good in notes] == [False, True]
        assert "too many allocations" in notes[0][0]


async def test_who_served_last_is_asked_first() -> None:
    async with servers(lambda request: [], polite) as made:
        options = options_for(made)
        for _ in range(2):
            race = opening(options, [])
            race.go()
            try:
                relay = await race.run()
            finally:
                await race.close()
            await relay.let_go()
        assert len(made[0].got) <= 3, "the second race did not ask the dead one"
        now = asyncio.get_running_loop().time()
        last = options.memory.last(now)
        assert last is not None
        assert last.server.port == made[1].local.port
        assert options.memory.last(now + REMEMBERED) is None, "not for ever"


async def test_all_of_them_are_named_when_all_fail() -> None:
    def forbidden(request: stun.Message) -> list[bytes]:
        return [refuse(request, 403) if "USERNAME" in request.attributes else challenge(request)]

    async with servers(forbidden, lambda request: [challenge(request)]) as made:
        race = opening(options_for(made), [])
        race.go()
        with pytest.raises(NetworkError) as caught:
            await race.run()
        await race.close()
    text = str(caught.value)
    for server in made:
        assert f"turn:127.0.0.1:{server.local.port}?transport=udp: it" in text
        assert f"turn:127.0.0.1:{server.local.port}?transport=tcp: Connection refused" in text
    assert "wonderland" not in text


async def test_a_relay_that_is_not_wanted_yet_is_not_made() -> None:
    async with servers(polite, polite) as made:
        race = opening(options_for(made), [])
        task = asyncio.create_task(race.run())
        await asyncio.sleep(0.6)  # longer than the pause after which the next door would open
        assert [len(server.got) for server in made] == [1, 0], "one challenge, and only one server asked"
        race.go()
        relay = await task
        assert len(made[0].got) == 2
        await race.close()
        await relay.let_go()


async def test_cancelling_in_the_midst_of_an_allocation_takes_it_back() -> None:
    reached = asyncio.Event()

    def slow(request: stun.Message) -> list[bytes]:
        if request.message_method is stun.Method.ALLOCATE and "USERNAME" in request.attributes:
            reached.set()
            return []  # made, but the answer is lost
        return polite(request)

    async with servers(slow) as made:
        race = opening(options_for(made), [])
        race.go()
        task = asyncio.create_task(race.run())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await race.close()
        last = made[0].got[-1]
        assert last.message_method is stun.Method.REFRESH
        assert last.attributes["LIFETIME"] == 0
