"""Small servers on loopback that behave as a test wants: well, badly, slowly, or not at all.

They count what comes in, so that a test can also say what must *not* have been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from warpgate_core import Endpoint
from warpgate_upnp import igd, nat_pmp, pcp
from warpgate_upnp.announcements import RouterClock
from warpgate_upnp.client import Asker
from warpgate_upnp.reach import Site
from warpgate_upnp.timing import Timing

HERE = "127.0.0.1"
QUICK = Timing(resend=0.05, tries=4, search=0.4, http=0.6, find=2.0)
EXTERNAL = "25.1.1.1"


def asker(
    gateway: str = HERE, internal: Endpoint | None = None, *, seen: str = "", timing: Timing = QUICK
) -> Asker:
    """Somebody on loopback who asks."""
    own = internal or Endpoint(gateway, 4000)
    return Asker(
        site=Site(own, gateway, "lo", 8 if own.family == 4 else 128),
        clock=RouterClock(asyncio.get_running_loop().time),
        lease=600,
        description="warpgate test",
        nonce=lambda wish: (wish.transport + "-nonce-nonce-").encode()[:12],
        pick=lambda below: below // 2,
        seen=lambda: seen,
        timing=timing,
    )


class Datagrams(asyncio.DatagramProtocol):
    """A UDP server: `answer` gets each datagram and gives what is sent back."""

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.got = asyncio.Event()
        self.transport: asyncio.DatagramTransport | None = None
        self.endpoint = Endpoint("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.endpoint = Endpoint.of(transport.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        self.received.append(data)
        self.got.set()
        assert self.transport is not None
        for reply in self.answer(data):
            self.transport.sendto(reply, addr)


@asynccontextmanager
async def datagrams(answer: Callable[[bytes], list[bytes]], host: str = HERE) -> AsyncIterator[Datagrams]:
    """Run a UDP server."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Datagrams(answer), local_addr=(host, 0))
    try:
        yield protocol
    finally:
        transport.close()


Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Streams:
    """A TCP server that read a request before it did what it was told."""

    endpoint: Endpoint
    requests: list[bytes] = field(default_factory=list)
    got: asyncio.Event = field(default_factory=asyncio.Event)
    broken: int = 0


@asynccontextmanager
async def streams(serve: Serve, host: str = HERE) -> AsyncIterator[Streams]:
    """Run a server: `serve` gets each whole request and the way back."""
    made = Streams(Endpoint(host, 0))
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            made.requests.append(head + body)
            made.got.set()
            await serve(head + body, writer)
        except (OSError, asyncio.IncompleteReadError):
            made.broken += 1
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(accept, host, 0)
    made.endpoint = Endpoint.of(server.sockets[0].getsockname())
    try:
        yield made
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


def http_answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A plain HTTP answer."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""])
    return head.encode() + body


async def write_and_end(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send, and end."""
    writer.write(data)
    await writer.drain()


def description(*services: tuple[str, str]) -> bytes:
    """A device's description."""
    inside = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        for kind, url in services
    )
    return f"<root><device><serviceList>{inside}</serviceList></device></root>".encode()


class Igd:
    """A UPnP router.

    Args:
        host: its address.
        version: of WANIPConnection.

    Attributes:
        external: its external address.
        table: (protocol, external port) to (client, port, description, lease).
        pinholes: number to (client, port, protocol).
        faults: action to the error codes that it answers with, in turn, before it does what it should.
        document: its description, if it is another than the usual one.
        location: what it calls its location, if it is another.
        calls: the actions it was asked for, in order.
    """

    def __init__(self, host: str = HERE, version: int = 2) -> None:
        self.host = host
        self.version = version
        self.external = EXTERNAL
        self.table: dict[tuple[str, int], tuple[str, int, str, int]] = {}
        self.pinholes: dict[int, tuple[str, int, str]] = {}
        self.faults: dict[str, list[int]] = {}
        self.document: bytes | None = None
        self.location = ""
        self.calls: list[str] = []
        self.http = Streams(Endpoint("", 0))
        self.ssdp: Datagrams | None = None

    @property
    def port(self) -> int:
        """Of SSDP."""
        assert self.ssdp is not None
        return self.ssdp.endpoint.port

    @asynccontextmanager
    async def running(self, responder: str = "") -> AsyncIterator[Igd]:
        """Run it; SSDP may be answered from another address."""
        async with (
            streams(self._serve, self.host) as self.http,
            datagrams(self._found, responder or self.host) as self.ssdp,
        ):
            yield self

    def reply(self, data: bytes, addr: tuple[object, ...]) -> None:
        """Answer a search that reached somebody else, from the own address."""
        assert self.ssdp is not None
        assert self.ssdp.transport is not None
        for answer in self._found(data):
            self.ssdp.transport.sendto(answer, addr)

    def _found(self, data: bytes) -> list[bytes]:
        target = re.search(rb"\nST: (\S+)", data)
        assert target is not None
        location = self.location or f"http://{self.http.endpoint}/root.xml"
        return [
            b"HTTP/1.1 200 OK\r\nST: %s\r\nLOCATION: %s\r\nBOOTID.UPNP.ORG: 7\r\n\r\n"
            % (target[1], location.encode())
        ]

    async def _serve(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if data.startswith(b"GET /root.xml "):
            usual = description(
                (f"urn:schemas-upnp-org:service:WANIPConnection:{self.version}", "/ctl/wan"),
                (igd.FIREWALL, "/ctl/six"),
            )
            await write_and_end(writer, http_answer(usual if self.document is None else self.document))
            return
        action = re.search(rb'SOAPAction: "[^"#]*#(\w+)"', data)
        assert action is not None, data
        name = action[1].decode()
        self.calls.append(name)
        arguments = {
            key.decode(): value.decode() for key, value in re.findall(rb"<(\w+)>([^<]*)</\w+>", data)
        }
        waiting = self.faults.get(name)
        found = waiting.pop(0) if waiting else self._do(name, arguments)
        if isinstance(found, int):
            fault = (
                f"<s:Fault><detail><UPnPError><errorCode>{found}</errorCode></UPnPError></detail></s:Fault>"
            )
            await write_and_end(writer, http_answer(_envelope(fault), "500 Internal Server Error"))
            return
        inside = "".join(f"<{key}>{value}</{key}>" for key, value in found.items())
        result = f'<u:{name}Response xmlns:u="x">{inside}</u:{name}Response>'
        await write_and_end(writer, http_answer(_envelope(result)))

    def _do(self, action: str, given: dict[str, str]) -> dict[str, object] | int:
        if action == "GetExternalIPAddress":
            return {"NewExternalIPAddress": self.external}
        if action in ("AddPortMapping", "AddAnyPortMapping"):
            return self._add(action, given)
        if action == "DeletePortMapping":
            key = (given["NewProtocol"], int(given["NewExternalPort"]))
            return 714 if self.table.pop(key, None) is None else {}
        if action == "GetGenericPortMappingEntry":
            return self._entry(int(given["NewPortMappingIndex"]))
        if action == "AddPinhole":
            number = len(self.pinholes) + 5
            self.pinholes[number] = (given["InternalClient"], int(given["InternalPort"]), given["Protocol"])
            return {"UniqueID": number}
        if action in ("UpdatePinhole", "DeletePinhole"):
            number = int(given["UniqueID"])
            if number not in self.pinholes:
                return 704
            if action == "DeletePinhole":
                del self.pinholes[number]
            return {}
        return 401

    def _add(self, action: str, given: dict[str, str]) -> dict[str, object] | int:
        if action == "AddAnyPortMapping" and self.version == 1:
            return 401
        port, protocol = int(given["NewExternalPort"]), given["NewProtocol"]
        client = given["NewInternalClient"]
        while (protocol, port) in self.table and self.table[protocol, port][0] != client:
            if action == "AddPortMapping":
                return 718
            port += 1
        self.table[protocol, port] = (
            client,
            int(given["NewInternalPort"]),
            given["NewPortMappingDescription"],
            int(given["NewLeaseDuration"]),
        )
        return {"NewReservedPort": port} if action == "AddAnyPortMapping" else {}

    def _entry(self, index: int) -> dict[str, object] | int:
        lines = sorted(self.table.items())
        if index >= len(lines):
            return 713
        (protocol, port), (client, inner, text, lease) = lines[index]
        return {
            "NewExternalPort": port,
            "NewProtocol": protocol,
            "NewInternalPort": inner,
            "NewInternalClient": client,
            "NewPortMappingDescription": text,
            "NewLeaseDuration": lease,
        }


def _envelope(inside: str) -> bytes:
    return f'<s:Envelope xmlns:s="s"><s:Body>{inside}</s:Body></s:Envelope>'.encode()


class PortControl:
    """A PCP and NAT-PMP server.

    Attributes:
        external: its external address.
        epoch: seconds that it says to be up for; rises by one with each answer unless set.
        result: what it answers with instead of success.
        table: (transport, internal port) to (external port, lifetime, nonce).
        speaks: versions that it understands.
        shift: how far the external port is from the internal one.
        garbage: what it sends before each answer.
        drop: so many datagrams go unanswered first.
    """

    def __init__(self) -> None:
        self.external = EXTERNAL
        self.epoch = 100
        self.result = 0
        self.table: dict[tuple[str, int], tuple[int, int, bytes]] = {}
        self.speaks = {0, 2}
        self.shift = 0
        self.garbage: list[bytes] = []
        self.drop = 0

    def answer(self, data: bytes) -> list[bytes]:
        """What it says to one datagram."""
        if self.drop:
            self.drop -= 1
            return []
        if data[0] not in self.speaks:
            version = max(self.speaks)
            return [bytes((version, data[1] | 0x80, 0, 1)) + self.epoch.to_bytes(4).rjust(20, b"\0")]
        found = self._pcp(data) if data[0] == pcp.VERSION else self._nat_pmp(data)
        return [*self.garbage, found]

    def _nat_pmp(self, data: bytes) -> bytes:
        head = bytes((0, data[1] | 0x80)) + self.result.to_bytes(2) + self.epoch.to_bytes(4)
        if data[1] == 0:
            return head + (socket.inet_aton(self.external) if not self.result else b"")
        transport = {1: "udp", 2: "tcp"}[data[1]]
        internal, life = int.from_bytes(data[4:6]), int.from_bytes(data[8:12])
        external = internal + self.shift if life else 0
        if not self.result:
            self._remember(transport, internal, external, life, b"")
        return head + internal.to_bytes(2) + external.to_bytes(2) + life.to_bytes(4)

    def _pcp(self, data: bytes) -> bytes:
        life = int.from_bytes(data[4:8])
        head = (
            bytes((2, data[1] | 0x80, 0, self.result)) + life.to_bytes(4) + self.epoch.to_bytes(4) + bytes(12)
        )
        if data[1] == 0:
            return head
        transport = {6: "tcp", 17: "udp"}[data[36]]
        internal = int.from_bytes(data[40:42])
        external = internal + self.shift
        if not self.result:
            self._remember(transport, internal, external, life, data[24:36])
        form = self.external if ":" in self.external else f"::ffff:{self.external}"
        mapped = socket.inet_pton(socket.AF_INET6, form)
        return head + data[24:42] + external.to_bytes(2) + mapped

    def _remember(self, transport: str, internal: int, external: int, life: int, nonce: bytes) -> None:
        if life:
            self.table[transport, internal] = (external, life, nonce)
        else:
            self.table.pop((transport, internal), None)


assert nat_pmp.PORT == pcp.PORT  # one server for both
