"""The way to one broker: TLS, WebSocket, credentials, cards, names; and brokers that answer nonsense."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
import uvloop

from tests.fixtures.brokers import Certificates, Mosquitto
from tests.integration.signal_kit import Received, no_socket_is_left
from warpgate_core.errors import ConfigError
from warpgate_core.identity import Identity
from warpgate_core.signal import link as link_module
from warpgate_core.signal import mqtt as mqtt_module
from warpgate_core.signal.brokers import parse_url
from warpgate_core.signal.mqtt import MqttClient
from warpgate_core.signal.router import Router

broker_needed = pytest.mark.broker


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    with no_socket_is_left():
        yield


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def exchange(url: str, **options: Any) -> tuple[Received, Router]:
    """Start a router on this one broker and send a message to itself."""
    me, received = Identity.generate(), Received()
    async with Router(me, received, get_time=time.time, servers=[url], **options) as one:
        pipe = await one.pipe(me.public_key_hex)
        assert await pipe.send(b"through", timeout=5) == 7
        for size in (1, 100, 200, 16_000):  # every length form of MQTT and WebSocket
            assert await pipe.send(bytes(size)) == size
        assert await received.get() == b"through"
        assert [row.state for row in one.brokers] == ["up"]
    return received, one


async def why_not(url: str, **options: Any) -> str:
    """Why this broker cannot be used."""
    async with Router(Identity.generate(), None, get_time=time.time, servers=[url], **options) as one:
        (row,) = one.brokers
        assert row.state != "up"
        assert not one.hints
        return row.error


@broker_needed
class TestSchemes:
    @pytest.mark.parametrize("websocket", [False, True])
    @pytest.mark.parametrize("tls", [False, True])
    async def test_mqtt_mqtts_ws_wss(self, certificates: Certificates, websocket: bool, tls: bool) -> None:
        context = certificates.client_context()
        async with Mosquitto(websocket=websocket, tls=certificates if tls else None) as broker:
            assert broker.scheme in ("mqtt", "mqtts", "ws", "wss")
            await exchange(broker.url, tls=context)

    async def test_a_name_and_ipv6(self, certificates: Certificates) -> None:
        async with Mosquitto(tls=certificates) as broker:
            await exchange(f"mqtts://localhost:{broker.port}", tls=certificates.client_context())
        async with Mosquitto("::1") as broker:
            assert broker.url.startswith("mqtt://[::1]:")
            await exchange(broker.url)

    async def test_a_certificate_of_nobody_we_know_is_refused(self, certificates: Certificates) -> None:
        async with Mosquitto(tls=certificates) as broker:
            assert "certificate is not accepted" in await why_not(broker.url)

    async def test_a_certificate_for_another_name_is_refused(self, tmp_path: Path) -> None:
        other = Certificates(tmp_path, ("broker.example",))
        async with Mosquitto(tls=other) as broker:
            error = await why_not(broker.url, tls=other.client_context())
            assert "certificate is not accepted" in error
            assert "127.0.0.1" in error

    async def test_the_wrong_scheme_is_told(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link_module, "CONNECT_TIMEOUT", 0.5)
        context = certificates.client_context()
        async with Mosquitto() as plain, Mosquitto(tls=certificates) as secure:
            assert await why_not(f"mqtts://{plain.broker_id}", tls=context)
            assert await why_not(f"mqtt://{secure.broker_id}")
            assert await why_not(f"ws://{plain.broker_id}")


@broker_needed
class TestCredentials:
    async def test_the_right_ones_open_the_door(self) -> None:
        async with Mosquitto(users={"warp": "s3cr3t"}) as broker:
            await exchange(broker.url_for("warp"))

    async def test_the_wrong_ones_do_not_and_are_shown_nowhere(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with Mosquitto(users={"warp": "right"}) as broker:
            with caplog.at_level(logging.DEBUG):
                error = await why_not(f"mqtt://warp:wr0ng-s3cr3t@{broker.broker_id}")
                assert "not authorized" in error
                assert "not authorized" in await why_not(broker.url)
            assert "wr0ng-s3cr3t" not in error + caplog.text
            assert "no broker is alive yet" in caplog.text


@broker_needed
class TestTheWayOut:
    @pytest.mark.parametrize("nic", ["lo", "127.0.0.1"])
    async def test_a_card_or_an_address(self, nic: str) -> None:
        async with Mosquitto() as broker:
            await exchange(broker.url, nic=nic)

    async def test_an_object_of_aionetiface(self) -> None:
        class Interface:
            name = "lo"

            def what_afs(self) -> list[int]:
                return [socket.AF_INET]

            def nic(self, af: int) -> str:
                return "127.0.0.5"

        heard: list[tuple[str, int]] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(writer.get_extra_info("peername"))
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert "closed the connection" in await why_not(f"127.0.0.1:{port}", nic=Interface())
        assert heard[0][0] == "127.0.0.5"

    async def test_a_card_without_the_family_says_so(self) -> None:
        error = await why_not("[::1]:1883", nic="127.0.0.1")
        assert error == "no address of ::1 can be reached from 127.0.0.1"

    async def test_a_card_that_does_not_exist_is_a_config_error(self) -> None:
        with pytest.raises(ConfigError, match="no such network card"):
            Router(Identity.generate(), get_time=time.time, servers=["h"], nic="eth77")


@broker_needed
async def test_peers_with_one_family_each_meet_at_a_broker_that_has_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An IPv4-only, an IPv6-only and a dual-stack router, pairwise; most brokers have one family."""
    real = socket.getaddrinfo

    def both(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "localhost":
            return real(host, port, *args, **kwargs)
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        return [v6, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    async with AsyncExitStack() as stack:
        hosts = ["127.0.0.1"] * 3 + ["::1"] * 3 + ["localhost"]
        urls = [(await stack.enter_async_context(Mosquitto(host))).url for host in hosts]
        peers = {}
        for nic in ("127.0.0.1", "::1", None):
            made = Router(Identity.generate(), Received(), time.time, nic, urls)
            peers[nic] = await stack.enter_async_context(made)
        for sender in peers.values():
            for recipient in peers.values():
                pipe = await sender.pipe(recipient.identity.public_key)
                assert await pipe.send(b"met") == 3


class TestNames:
    async def test_a_name_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*args: object, **kwargs: object) -> object:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert (
            await why_not("broker.invalid")
            == "no address is known for broker.invalid: name or service not known"
        )

    @broker_needed
    async def test_a_resolver_that_hangs_delays_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More hanging names than any executor has threads, and one address beside them."""
        release, real = threading.Event(), socket.getaddrinfo

        def hanging(host: Any, *args: Any, **kwargs: Any) -> Any:
            if str(host).endswith(".example"):
                release.wait(20)
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
            return real(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", hanging)
        me, received = Identity.generate(), Received()
        try:
            async with Mosquitto() as broker:
                names = [f"h{n}.example" for n in range(40)]
                began = time.monotonic()
                async with Router(me, received, time.time, None, [*names, broker.url]) as one:
                    pipe = await one.pipe(me.public_key_hex)
                    assert await pipe.send(b"x") == 1
                    assert time.monotonic() - began < 0.3
                    answer = await asyncio.get_running_loop().run_in_executor(None, lambda: 5)
                    assert answer == 5  # the loop's own executor is free
                assert time.monotonic() - began < 1
        finally:
            release.set()

    @broker_needed
    async def test_of_several_addresses_the_one_that_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = socket.getaddrinfo

        def several(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "two.example":
                return real(host, port, *args, **kwargs)
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", several)
        async with Mosquitto() as broker:
            await exchange(f"two.example:{broker.port}")
        assert "::1" in await why_not(f"two.example:{broker.port}")


CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x00"


class Scripted:
    """A broker that says the same to everybody, whatever it hears."""

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self._answers = answers
        self._close = close
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._talk(reader, writer), name="scripted broker"))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in self._answers:
                await reader.read(4096)
                writer.write(answer)
            if not self._close:
                await asyncio.Event().wait()
        finally:
            writer.close()


class TestNonsense:
    """Whatever a broker says: a reason for people, no warning, nothing left behind."""

    @pytest.mark.parametrize(
        ("answers", "words"),
        [
            ((b"\x20\x02\x00\x05",), "not authorized"),
            ((b"\x20\x02\x00\x03",), "server unavailable"),
            ((b"\x20\x02\x00\x01",), "closed the connection"),  # paho ends it: unknown protocol version
            ((b"\x20\x02\x00\x99",), ""),
            ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), ""),
            ((b"\xff" * 50,), ""),
            ((b"\x20\xff\xff\xff\xff\xff\x01",), ""),
            ((b"\x30\xff\xff\xff\x7f",), "longer than any"),
            ((b"\x20\x00",), ""),
            ((b"\x30\x04\x00\x09ab",), ""),  # a topic longer than its packet
            ((CONNACK, b"\x90\x03\x00\x01\x80"), "refuses the subscription"),
            ((CONNACK, b"\x90\x00"), ""),
            ((CONNACK + SUBACK, b"\x62\x02\x00\x01"), ""),
        ],
    )
    async def test_it_is_refused(
        self,
        answers: tuple[bytes, ...],
        words: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(link_module, "CONNECT_TIMEOUT", 0.5)
        monkeypatch.setattr(link_module, "ANSWER_TIMEOUT", 0.5)
        async with Scripted(*answers) as url:
            error = await why_not(url)
        assert error
        assert words in error
        assert [r.name for r in caplog.records if r.levelno >= logging.WARNING] == ["warpgate.signal"]

    async def test_a_broker_that_stops_answering_pings_is_dropped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mqtt_module, "KEEPALIVE", 1)
        monkeypatch.setattr(mqtt_module, "KEEPALIVE_CHECK", 0.25)
        async with (
            Scripted(CONNACK, SUBACK) as url,
            Router(Identity.generate(), None, time.time, None, [url]) as one,
        ):
            (row,) = one.brokers
            assert row.state == "up"
            (link,) = one._running()._links.values()
            client = link._client
            assert client is not None
            async with asyncio.timeout(10):
                assert await client.wait_lost()

    async def test_pings_keep_a_quiet_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mqtt_module, "KEEPALIVE", 1)
        monkeypatch.setattr(mqtt_module, "KEEPALIVE_CHECK", 0.25)
        async with (
            Scripted(CONNACK, SUBACK, *[b"\xd0\x00"] * 100) as url,
            Router(Identity.generate(), None, time.time, None, [url]) as one,
        ):
            (link,) = one._running()._links.values()
            assert link._client is not None
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(link._client.wait_lost(), 3.5)  # three pings and their answers

    async def test_closing_at_once_is_told_at_once(self) -> None:
        async with Scripted(b"", close=True) as url:
            began = time.monotonic()
            assert "closed the connection" in await why_not(url)
            assert time.monotonic() - began < 1

    async def test_a_web_server_that_is_no_broker(self) -> None:
        async with Scripted(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
            assert "HTTP status 404" in await why_not(f"ws://{url}/mqtt")

    async def test_an_endless_handshake(self) -> None:
        async with Scripted(b"HTTP/1.1 101 x\r\n" + b"x" * 20_000) as url:
            assert "has no end" in await why_not(f"ws://{url}/mqtt")

    async def test_a_web_server_that_hangs_up(self) -> None:
        async with Scripted(b"HTTP/1.1 101 x\r\n", close=True) as url:
            assert "closed the connection" in await why_not(f"ws://{url}/mqtt")


@broker_needed
@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux lets a program confirm at once")
async def test_an_answer_right_behind_an_acknowledgement_is_not_held_back() -> None:
    """Brokers leave Nagle's algorithm on: without confirming at once the second message waits 40 ms."""
    alice, bob, answers, times = Identity.generate(), Identity.generate(), Received(), []
    async with (
        Mosquitto() as broker,
        Router(bob, None, time.time, None, [broker.url]) as there,
        Router(alice, answers, time.time, None, [broker.url]) as here,
    ):
        back = await there.pipe(alice.public_key_hex)

        async def answer(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
            assert await back.send(b"answer") == 6

        there.add_msg_handler(answer)
        pipe = await here.pipe(bob.public_key_hex)
        for _ in range(9):
            began = time.monotonic()
            assert await pipe.send(b"question") == 8
            assert await answers.get() == b"answer"
            times.append(time.monotonic() - began)
    assert sorted(times)[4] < 0.02, times


@broker_needed
@pytest.mark.parametrize("tls", [False, True])
async def test_closing_does_not_wait_for_a_broker_that_hangs(certificates: Certificates, tls: bool) -> None:
    async with Mosquitto(tls=certificates if tls else None) as broker:
        context = certificates.client_context()
        async with Router(Identity.generate(), None, time.time, None, [broker.url], tls=context) as one:
            assert one.brokers[0].state == "up"
            await broker.pause()
            began = time.monotonic()
        assert time.monotonic() - began < 1.5


@broker_needed
def test_it_runs_on_uvloop(certificates: Certificates) -> None:
    async def main() -> None:
        async with Mosquitto(tls=certificates, websocket=True) as broker:
            await exchange(broker.url, tls=certificates.client_context())
        async with Mosquitto() as broker:
            await exchange(broker.url)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_what_the_carrier_relies_on_inside_aiomqtt_and_paho_is_there() -> None:
    """An update that moves one of these fails here, with a name, and not in the field."""
    source = inspect.getsource(aiomqtt.Client)
    for callback in (
        "_on_message",
        "_on_socket_open",
        "_on_socket_close",
        "_on_socket_register_write",
        "_on_socket_unregister_write",
    ):
        assert f"= self.{callback}\n" in source, f"aiomqtt sets another callback than {callback}"
        ours, theirs = getattr(MqttClient, callback), getattr(aiomqtt.Client, callback)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for attribute in ("_connected", "_disconnected", "_pending_subscribes", "_loop", "_client"):
        assert f"self.{attribute}: " in source or f"self.{attribute} = " in source, attribute
    assert "self._wait_for(" in source
    assert inspect.iscoroutinefunction(aiomqtt.Client._wait_for)
    assert callable(aiomqtt.Client._client_connect)
    inside = inspect.getsource(paho.Client)
    assert "self._sock = self._create_socket()" in inside
    assert '"remaining_length"' in inside
    for used in ("recv", "send", "close", "setblocking"):
        assert f"self._sock.{used}(" in inside or f"sock.{used}(" in inside


def test_urls_of_all_schemes_know_what_they_need() -> None:
    flags = {scheme: parse_url(f"{scheme}://h") for scheme in ("mqtt", "mqtts", "ws", "wss")}
    assert {s: (b.is_tls, b.is_websocket) for s, b in flags.items()} == {
        "mqtt": (False, False),
        "mqtts": (True, False),
        "ws": (False, True),
        "wss": (True, True),
    }


def test_the_default_context_checks_names() -> None:
    context = ssl.create_default_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
