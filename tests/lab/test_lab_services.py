"""The real servers in the lab serve, and can be stopped, frozen, killed and started by name."""

from __future__ import annotations

import os
import secrets
import socket
import struct

import pytest

from tests.lab import Coturn, Host, Lab, LabError, Nat
from tests.lab.process import Service

COOKIE = 0x2112A442  # RFC 8489 section 5
MAPPED, CHANGE_REQUEST, OTHER_ADDRESS, XOR_MAPPED = 0x0001, 0x0003, 0x802C, 0x0020  # RFC 8489, 5780
CHANGE_PORT, CHANGE_BOTH = 2, 6  # RFC 5780 section 7.2

# Runs on a machine of the lab: connects to a broker, and prints what it said to itself.
MQTT_ECHO = """
import asyncio, sys, aiomqtt
async def main():
    async with aiomqtt.Client(sys.argv[1], 1883, timeout=5) as client:
        await client.subscribe("lab/test")
        await client.publish("lab/test", b"hello")
        async for message in client.messages:
            print(message.payload.decode())
            return
asyncio.run(main())
"""


@pytest.mark.parametrize("family", [4, 6])
def test_brokers_serve_homes(lab: Lab, family: int) -> None:
    net = lab.internet()
    a = net.home("a", Nat.PORT_RESTRICTED, delay=0.005)
    for broker in net.brokers(3):
        host, port = broker.endpoint(family)
        assert port == 1883
        assert a.python("-c", MQTT_ECHO, host).stdout == "hello\n"
        assert broker.url(family) == (f"mqtt://{host}:1883" if family == 4 else f"mqtt://[{host}]:1883")


def connects(client: Host, address: tuple[str, int]) -> bool:
    with client.socket(socket.SOCK_STREAM) as made:
        return made.connect_ex(address) == 0


def test_a_broker_is_killed_and_comes_back(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a")
    one, two = net.brokers(2)
    one.kill()
    assert not one.running
    assert not connects(a, one.endpoint())
    assert connects(a, two.endpoint())
    one.start()
    assert connects(a, one.endpoint())
    one.restart()
    assert connects(a, one.endpoint())
    # mosquitto loses a SIGTERM that comes between its word of being ready and its main loop
    assert a.python("-c", MQTT_ECHO, one.endpoint()[0]).stdout == "hello\n"
    one.stop()
    assert "terminating" in one.output
    with pytest.raises(LabError, match="not running"):
        one.pause()
    two.restart()
    with pytest.raises(LabError, match="running already"):
        two.start()


def test_a_paused_broker_accepts_and_is_silent(lab: Lab) -> None:
    net = lab.internet()
    a = net.home("a")
    (broker,) = net.brokers(1)
    broker.pause()
    with a.socket(socket.SOCK_STREAM) as made:
        made.connect(broker.endpoint())  # its kernel still answers
        made.sendall(bytes.fromhex("100c00044d5154540402003c0000"))  # CONNECT, MQTT 3.1.1
        made.setblocking(False)
        with pytest.raises(BlockingIOError):
            made.recv(10)
        broker.resume()
        made.settimeout(5)
        assert made.recv(10)[:1] == b"\x20"  # CONNACK


def test_a_service_that_fails_says_what_it_said(lab: Lab) -> None:
    host = lab.internet().server("server")
    with pytest.raises(LabError, match=r"(?s)wrong ended.*no such thing"):
        host.service("wrong", ["sh", "-c", "echo no such thing; exit 3"], ready="never")


def binding(made: socket.socket, server: tuple[str, int], change: int = 0) -> dict[int, tuple[str, int]]:
    """A STUN binding request; the endpoints in the response by attribute, and its source as 0."""
    body = struct.pack("!HHI", CHANGE_REQUEST, 4, change) if change else b""
    made.sendto(struct.pack("!HHI", 1, len(body), COOKIE) + secrets.token_bytes(12) + body, server)
    data, source = made.recvfrom(600)
    found = {0: (source[0], source[1])}
    at = 20
    while at < len(data):
        kind, size = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if kind in (MAPPED, OTHER_ADDRESS):
            found[kind] = _endpoint(value)
        elif kind == XOR_MAPPED:
            key = data[4:20]
            port = struct.unpack("!H", value[2:4])[0] ^ (COOKIE >> 16)
            address = bytes(a ^ b for a, b in zip(value[4:], key, strict=False))
            found[kind] = _endpoint(value[:2] + struct.pack("!H", port) + address)
        at += 4 + (size + 3) // 4 * 4
    return found


def _endpoint(value: bytes) -> tuple[str, int]:
    family = socket.AF_INET if value[1] == 1 else socket.AF_INET6
    return socket.inet_ntop(family, value[4:]), struct.unpack("!H", value[2:4])[0]


@pytest.mark.parametrize("family", [4, 6])
def test_coturn_answers_as_rfc_5780_wants(lab: Lab, family: int) -> None:
    net = lab.internet()
    a = net.home("a", Nat.OPEN)
    stun = net.coturn()
    first, second = (x for x in stun.host.addresses if (":" in x) == (family == 6))
    with a.socket(family=family) as made:
        plain = binding(made, stun.endpoint(family))
        own = (a.ip4 if family == 4 else a.ip6), made.getsockname()[1]
        assert plain[XOR_MAPPED] == own
        assert plain[OTHER_ADDRESS] == (second, 3479)
        assert binding(made, (first, 3478), CHANGE_PORT)[0] == (first, 3479)
        assert binding(made, (first, 3478), CHANGE_BOTH)[0] == (second, 3479)


def test_coturn_shows_the_mapping_of_a_nat(lab: Lab) -> None:
    net = lab.internet((4,))
    a = net.home("a", Nat.SYMMETRIC_RANDOM, delay=0.002)
    stun = net.coturn()
    with a.socket() as made:
        mapped = {binding(made, (stun.host.ip4, port))[XOR_MAPPED] for port in (3478, 3479)}
    assert len(mapped) == 2
    assert {host for host, _ in mapped} == {a.home.site.wan4}


# Runs on a machine of the lab: allocates a relay over the transport it is told.
TURN_ALLOCATE = """
import asyncio, sys
from aioice import turn
async def main():
    host, port, user, password, transport = sys.argv[1:]
    made, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol, (host, int(port)), user, password, transport=transport)
    print(made.get_extra_info("sockname")[0])
    made.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_coturn_relays(lab: Lab, transport: str) -> None:
    net = lab.internet((4,))
    a = net.home("a", Nat.SYMMETRIC_RANDOM)
    stun: Coturn = net.coturn()
    host, port = stun.endpoint()
    done = a.python("-c", TURN_ALLOCATE, host, str(port), stun.username, stun.credential, transport)
    assert done.stdout.strip() == stun.host.ip4, done.stderr


def test_services_end_with_the_lab() -> None:
    with Lab() as lab:
        services: list[Service] = [*lab.internet().brokers(1)]
        pids = [service.pid for service in services]
        for pid in pids:
            os.kill(pid, 0)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
