"""User names and passwords: how they are made, asked for, kept, and kept quiet about."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.certificates import Certificates
from warpgate_core import ConfigError, NetworkError, Registry, TurnServer
from warpgate_turn import Turn, TurnOptions
from warpgate_turn.credentials import HMAC_LIFETIME, Login, hmac_login, static_login
from warpgate_turn.rest import DEFAULT_TTL, MAX_ANSWER, fetch_login, read_login

NOW = 1_700_000_000.25
SECRETS = ("hush", "wonderland", "the-key")


def rest(url: str, **fields: str) -> TurnServer:
    return TurnServer("turn:relay.example:3478", credential_type="rest", credential_url=url, **fields)


# -- static and hmac -----------------------------------------------------------------------------


def test_static_is_as_configured() -> None:
    login = static_login(TurnServer("turn:alice:hush@relay.example"))
    assert (login.username, login.password, login.expires) == ("alice", "hush", None)


@pytest.mark.parametrize(
    ("label", "username"), [("bob", "1700086400:bob"), (None, "1700086400"), ("a:b", "1700086400:a:b")]
)
def test_hmac_is_expiry_and_label_signed_with_the_secret(label: str | None, username: str) -> None:
    server = TurnServer("turn:relay.example", username=label, credential="north-wind", credential_type="hmac")
    login = hmac_login(server, NOW)
    signed = hmac.new(b"north-wind", username.encode(), hashlib.sha1).digest()
    assert login == Login(username, base64.b64encode(signed).decode(), int(NOW) + HMAC_LIFETIME)


def test_nothing_secret_is_ever_shown() -> None:
    servers = (
        TurnServer("turn:alice:hush@relay.example"),
        TurnServer("turn:x:wonderland@relay.example?auth=hmac"),
        rest("https://pool.example/turn?key=the-key", credential="the-key"),
    )
    options = TurnOptions(servers=servers)
    texts = [repr(options), str(options.doors), repr(options.doors), repr(options.memory)]
    texts += [repr(Turn(options)), *map(str, options.doors)]
    texts += [repr(static_login(servers[0])), repr(hmac_login(servers[1], NOW))]
    assert not [text for text in texts for secret in SECRETS if secret in text]
    registry = Registry(discover=False, options={"turn": {"servers": ["turn:alice:hush@"]}})
    with pytest.raises(ConfigError) as caught:
        registry.add(Turn)
    assert "hush" not in str(caught.value)


# -- options -------------------------------------------------------------------------------------


def test_servers_are_urls_or_objects_each_once() -> None:
    options = TurnOptions(servers=("turn:a", TurnServer("turn:a"), "turns:b"))
    assert [str(door) for door in options.doors] == [
        "turn:a:3478?transport=udp",
        "turns:b:5349?transport=tcp",
        "turn:a:3478?transport=tcp",
    ]


def test_a_node_hands_over_its_own_servers() -> None:
    registry = Registry(discover=False, settings={"turn": (TurnServer("turn:a"),)})
    registry.add(Turn)
    first, second = registry.create("turn"), registry.create("turn")
    assert first.options.servers == (TurnServer("turn:a"),)
    assert first.options.memory is second.options.memory, "what one attempt learns, the next one knows"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"servers": ["stun:a"]}, "no TURN server"),
        ({"servers": [f"turn:h{n}" for n in range(9)]}, "9 servers are too many"),
        ({"servers": "turn:a"}, "servers must be"),
        ({"refresh": 300}, "refresh"),
        ({"refresh": 0}, "refresh"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": 4_000}, "lifetime"),
        ({"memory": 1}, "no option 'memory'"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(options: dict[str, object], why: str) -> None:
    registry = Registry(discover=False, options={"turn": options})
    with pytest.raises(ConfigError, match=why):
        registry.add(Turn)


async def test_a_ca_file_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="no-such-file"):
        await TurnOptions().memory.tls("/no-such-file")


# -- what a web service says ---------------------------------------------------------------------

GOOD = {"username": "1:x", "password": "hush", "ttl": 600, "uris": ["turn:elsewhere"]}


@pytest.mark.parametrize(
    ("told", "login"),
    [
        (GOOD, Login("1:x", "hush", NOW + 600)),
        ({"username": "u", "credential": "p"}, Login("u", "p", NOW + DEFAULT_TTL)),
        ({"iceServers": [{"urls": "stun:s"}, GOOD]}, Login("1:x", "hush", NOW + 600)),
        ({"iceServers": GOOD}, Login("1:x", "hush", NOW + 600)),
        ([{"urls": "stun:s"}, GOOD], Login("1:x", "hush", NOW + 600)),
        (GOOD | {"ttl": -5}, Login("1:x", "hush", NOW + DEFAULT_TTL)),
        (GOOD | {"ttl": "long"}, Login("1:x", "hush", NOW + DEFAULT_TTL)),
        (GOOD | {"ttl": True}, Login("1:x", "hush", NOW + DEFAULT_TTL)),
        (GOOD | {"ttl": 1e300}, Login("1:x", "hush", NOW + 7 * 86_400)),
    ],
)
def test_what_services_answer_is_understood(told: object, login: Login) -> None:
    assert read_login(json.dumps(told).encode(), NOW, "it") == login


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b'{"username": "u"}',
        b'{"username": "", "password": "p"}',
        b'{"username": ["u"], "password": "p"}',
        json.dumps({"username": "u" * 509, "password": "p"}).encode(),
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(NetworkError, match=r"^it (gave|answered)"):
        read_login(body, NOW, "it")


@given(st.binary(max_size=300))
def test_rubbish_is_refused(body: bytes) -> None:
    with pytest.raises(NetworkError):
        read_login(body, NOW, "it")


# -- asking it -----------------------------------------------------------------------------------

Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


class Service:
    """A web service on loopback that answers everything alike, and remembers what it was asked."""

    def __init__(self, answer: bytes, *, stays: bool = False, is_mute: bool = False) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.port = 0
        self._stays = stays
        self._is_mute = is_mute
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for writer in tuple(self._open):
                writer.transport.abort()
            server.close()
            await server.wait_closed()
            # Those of its connections, also of one whose TLS never came about.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=5)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            self.was_asked.set()
            if not self._is_mute:
                writer.write(self.answer)
                await writer.drain()
            if self._stays or self._is_mute:
                await reader.read()
        except ConnectionError:
            pass  # who asked has gone
        finally:
            self._open.discard(writer)
            writer.close()

    def url(self, rest_of_it: str = "/turn", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{rest_of_it}"


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode() + body


BODY = json.dumps(GOOD).encode()


async def no_tls() -> ssl.SSLContext:
    raise AssertionError("plain http needs no TLS")


@pytest.mark.parametrize(
    ("answer", "stays"),
    [
        (http(BODY), False),
        (http(BODY, f"Content-Length: {len(BODY)}"), True),
        (http(f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), True),
    ],
    ids=["until the end", "counted", "chunked"],
)
async def test_a_login_is_fetched(answer: bytes, stays: bool) -> None:
    async with Service(answer, stays=stays).serve() as service:
        server = rest(service.url("/turn?app=1"), username="me & you", credential="the-key")
        assert await fetch_login(server, NOW, no_tls) == Login("1:x", "hush", NOW + 600)
    (asked,) = service.asked
    method, target, version = asked.split("\r\n")[0].split(" ")
    assert (method, version) == ("GET", "HTTP/1.1")
    assert urlsplit(target).path == "/turn"
    assert parse_qs(urlsplit(target).query) == {
        "app": ["1"],
        "service": ["turn"],
        "username": ["me & you"],
        "key": ["the-key"],
    }
    assert f"Host: 127.0.0.1:{service.port}" in asked


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(b"", status="403 Forbidden"), "status 403"),
        (http(b"", "Location: http://127.0.0.1/elsewhere", status="302 Found"), "redirects are not followed"),
        (http(b"<html>"), "not JSON"),
        (b"SSH-2.0-x\r\n", "cannot be used"),
        (b"", "cannot be used"),
        (http(b" " * (MAX_ANSWER + 5_000)), "cannot be used"),
    ],
)
async def test_other_answers_are_named_without_the_key(answer: bytes, why: str) -> None:
    async with Service(answer).serve() as service:
        server = rest(service.url("/turn?token=the-key"), credential="the-key")
        with pytest.raises(NetworkError, match=why) as caught:
            await fetch_login(server, NOW, no_tls)
    assert len(service.asked) == 1
    assert "the-key" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


async def test_a_mute_service_costs_a_bounded_time() -> None:
    async with Service(b"", is_mute=True).serve() as service:
        start = asyncio.get_running_loop().time()
        with pytest.raises(NetworkError, match=r"did not answer within 0\.2 s"):
            await fetch_login(rest(service.url()), NOW, no_tls, bound=0.2)
        assert asyncio.get_running_loop().time() - start < 1.0


async def test_nobody_there_is_said() -> None:
    async with Service(b"").serve() as service:
        pass
    with pytest.raises(NetworkError, match="refused"):
        await fetch_login(rest(service.url()), NOW, no_tls)


async def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    async with Service(b"", is_mute=True).serve() as service:
        task = asyncio.create_task(fetch_login(rest(service.url()), NOW, no_tls))
        await service.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_https_is_checked_against_the_ca_file(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certfile, certificates.keyfile)
    async with Service(http(BODY)).serve(context) as service:
        server = rest(service.url(scheme="https"))
        login = await TurnOptions().memory.login(server, str(certificates.cafile), lambda: NOW)
        assert login.password == "hush"
        with pytest.raises(NetworkError, match="certificate"):
            await TurnOptions().memory.login(server, "", lambda: NOW)


async def test_a_login_is_kept_for_most_of_its_time_and_asked_for_once() -> None:
    now = NOW
    async with Service(http(BODY)).serve() as service:
        memory, server = TurnOptions().memory, rest(service.url())

        def clock() -> float:
            return now

        logins = await asyncio.gather(*(memory.login(server, "", clock) for _ in range(5)))
        assert len(set(logins)) == 1
        assert len(service.asked) == 1
        now += 479
        assert await memory.login(server, "", clock) == logins[0]
        assert len(service.asked) == 1
        now += 2  # 0.8 of 600 s
        assert await memory.login(server, "", clock) != logins[0]
        assert len(service.asked) == 2
        memory.refused(server)
        await memory.login(server, "", clock)
        assert len(service.asked) == 3


async def test_a_service_that_failed_is_asked_again() -> None:
    async with Service(http(b"", status="500 Oops")).serve() as service:
        memory, server = TurnOptions().memory, rest(service.url())
        with pytest.raises(NetworkError, match="status 500"):
            await memory.login(server, "")
        service.answer = http(BODY)
        assert (await memory.login(server, "")).password == "hush"
