"""What a pipe costs over bare asyncio: throughput, round trip, packets per second.

    uv run python benchmarks/bench_pipe.py [--seconds 1.0] [--runs 5] [--uvloop]

Both ends run in separate processes on this machine, over loopback, the same kind at either end. The kinds
take turns in every run, so that whatever else the machine does meets all of them; each figure is the
median over the runs, and so is each ratio (taken within a run).

streams: `asyncio.open_connection`, as most programs are written. protocol: a bare `asyncio.Protocol` or
`DatagramProtocol` with callbacks, the least that asyncio can do. pipe: `await send` and `await recv`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import PipeClosedError
from warpgate_core.net.ports import bind_udp
from warpgate_core.net.stream import READ_LIMIT, StreamLink
from warpgate_core.net.udp import UdpSocket
from warpgate_core.pipe import Consent, DatagramMux, DatagramPipe, Path, StreamPipe
from warpgate_core.trace import Trace

CHUNK = bytes(64 * 1024)
PING = bytes(64)
PACKET = bytes(200)
WINDOW = 32  # datagrams under way
LOOPBACK = "127.0.0.1"
STREAM_KINDS = ("streams", "protocol", "pipe")
DATAGRAM_KINDS = ("protocol", "pipe")


# -- the pipe under test, made without a node ------------------------------------------------------


def wrap(link: StreamLink) -> StreamPipe:
    path = Path("tcp", link.local, link.remote)
    return StreamPipe(link, peer=bytes(33), path=path, strategy="bench", trace=Trace(time.monotonic))


def wrap_datagram(sock: UdpSocket, remote: Endpoint, *, is_server: bool) -> DatagramPipe:
    keys = (b"a" * 32, b"b" * 32) if is_server else (b"b" * 32, b"a" * 32)
    consent = Consent(*keys, asyncio.get_running_loop().time())
    mux = DatagramMux(sock, remote, other=lambda data: None, idle=lambda: None)
    return DatagramPipe(
        mux.channel(0),
        remote,
        peer=bytes(33),
        path=Path("udp", sock.local, remote),
        strategy="bench",
        trace=Trace(time.monotonic),
        consent=consent,
    )


# -- the other end, in a process of its own: reads to the end and confirms, or echoes ---------------


class SinkProtocol(asyncio.Protocol):
    """Counts; or echoes, after a first byte that says so."""

    def __init__(self) -> None:
        self.echo: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.echo is None:
            self.echo, data = data[:1] == b"e", data[1:]
        if self.echo and data:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.transport.write(b".")
        self.transport.close()
        return True


async def sink_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    echo = await reader.readexactly(1) == b"e"
    while data := await reader.read(READ_LIMIT):
        if echo:
            writer.write(data)
            await writer.drain()
    writer.write(b".")
    writer.close()
    await writer.wait_closed()


async def sink_pipe(link: StreamLink) -> None:
    async with wrap(link) as pipe:
        echo = await pipe.recv(limit=1) == b"e"
        try:
            while True:
                data = await pipe.recv()
                if echo:
                    await pipe.send(data)
        except PipeClosedError:
            await pipe.send(b".")


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def echo_datagrams(sock: UdpSocket, remote: Endpoint) -> None:
    async with wrap_datagram(sock, remote, is_server=True) as pipe:
        with contextlib.suppress(PipeClosedError):
            async for data in pipe:
                await pipe.send(data)


async def serve(control: Connection) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    first: dict[Endpoint, asyncio.Task[None]] = {}

    def accept(link: StreamLink) -> None:
        tasks.add(task := loop.create_task(sink_pipe(link)))
        task.add_done_callback(tasks.discard)

    def accept_datagram(data: bytes, remote: Endpoint, sock: object) -> None:
        if remote not in first:
            first[remote] = task = loop.create_task(echo_datagrams(udp, remote))
            task.add_done_callback(lambda _: first.pop(remote))

    servers = {
        "streams": await asyncio.start_server(sink_streams, LOOPBACK, 0),
        "protocol": await loop.create_server(SinkProtocol, LOOPBACK, 0),
        "pipe": await loop.create_server(lambda: StreamLink(accept), LOOPBACK, 0),
    }
    ports = {f"tcp {kind}": server.sockets[0].getsockname()[1] for kind, server in servers.items()}
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, local_addr=(LOOPBACK, 0))
    ports["udp protocol"] = transport.get_extra_info("sockname")[1]
    udp = await open_udp(accept_datagram)
    ports["udp pipe"] = udp.local.port
    control.send(ports)
    await loop.run_in_executor(None, control.recv)
    left = [*first.values(), *tasks]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for server in servers.values():
        server.close()
    transport.close()
    udp.close()
    await udp.wait_closed()


async def open_udp(on_datagram: Callable[[bytes, Endpoint, object], None] | None = None) -> UdpSocket:
    raw = bind_udp(LOOPBACK, 0)
    sock = UdpSocket("lo", on_datagram)
    await sock.open(raw, Endpoint.of(raw.getsockname()))
    return sock


# -- our end ---------------------------------------------------------------------------------------


class ClientProtocol(asyncio.Protocol):
    """The least asyncio can do: flow control by callback, one future per answer."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.deadline = 0.0
        self.samples: list[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if self.samples is None:
            self.done.set_result(None)
            return
        now = time.perf_counter()
        self.samples.append(now - self.began)
        if now >= self.deadline:
            self.done.set_result(None)
        else:
            self.ping()

    def ping(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(PING)


async def push_protocol(port: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(ClientProtocol, LOOPBACK, port)
    began = time.perf_counter()
    transport.write(b"s")
    sent = 0
    while time.perf_counter() - began < seconds:
        transport.write(CHUNK)
        sent += len(CHUNK)
        if not protocol.writable.is_set():
            await protocol.writable.wait()
    transport.write_eof()
    await protocol.done
    transport.close()
    return sent / (time.perf_counter() - began) / 1e6


async def push_streams(port: int, seconds: float) -> float:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    began = time.perf_counter()
    writer.write(b"s")
    sent = 0
    while time.perf_counter() - began < seconds:
        writer.write(CHUNK)
        sent += len(CHUNK)
        await writer.drain()
    writer.write_eof()
    await reader.readexactly(1)
    rate = sent / (time.perf_counter() - began) / 1e6
    writer.close()
    await writer.wait_closed()
    return rate


@contextlib.asynccontextmanager
async def open_pipe(port: int) -> AsyncIterator[StreamPipe]:
    _, link = await asyncio.get_running_loop().create_connection(StreamLink, LOOPBACK, port)
    async with wrap(link) as pipe:
        yield pipe


async def push_pipe(port: int, seconds: float) -> float:
    async with open_pipe(port) as pipe:
        began = time.perf_counter()
        await pipe.send(b"s")
        sent = 0
        while time.perf_counter() - began < seconds:
            await pipe.send(CHUNK)
            sent += len(CHUNK)
        pipe.send_eof()
        await pipe.recv()
        return sent / (time.perf_counter() - began) / 1e6


async def ping_protocol(port: int, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(ClientProtocol, LOOPBACK, port)
    transport.write(b"e")
    protocol.samples, protocol.deadline = [], time.perf_counter() + seconds
    protocol.ping()
    await protocol.done
    transport.close()
    return protocol.samples


async def ping_streams(port: int, seconds: float) -> list[float]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"e")

    async def exchange() -> None:
        writer.write(PING)
        await writer.drain()
        await reader.readexactly(len(PING))

    samples = await measure(exchange, seconds)
    writer.close()
    await writer.wait_closed()
    return samples


async def ping_pipe(port: int, seconds: float) -> list[float]:
    async with open_pipe(port) as pipe:
        await pipe.send(b"e")

        async def exchange() -> None:
            await pipe.send(PING)
            await pipe.recv()

        return await measure(exchange, seconds)


async def measure(exchange: Callable[[], Awaitable[None]], seconds: float) -> list[float]:
    samples = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await exchange()
        samples.append(time.perf_counter() - began)
    return samples


class FloodDatagrams(asyncio.DatagramProtocol):
    """Keeps `WINDOW` datagrams under way."""

    def __init__(self, seconds: float) -> None:
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.count = 0
        self.seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.DatagramTransport = cast("asyncio.DatagramTransport", transport)
        self.began = time.perf_counter()
        for _ in range(WINDOW):
            self.transport.sendto(PACKET)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.count += 1
        elapsed = time.perf_counter() - self.began
        if elapsed < self.seconds:
            self.transport.sendto(data)
        elif not self.done.done():
            self.done.set_result(self.count / elapsed)


async def flood_protocol(port: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: FloodDatagrams(seconds), remote_addr=(LOOPBACK, port)
    )
    rate = await protocol.done
    transport.close()
    return rate


async def flood_pipe(port: int, seconds: float) -> float:
    remote = Endpoint(LOOPBACK, port)
    sock = await open_udp()
    sock.send(b"hello", remote)  # makes the other end's pipe
    async with wrap_datagram(sock, remote, is_server=False) as pipe:
        await pipe.send(PACKET)
        while True:  # the first one may come before the other end's pipe stands
            with contextlib.suppress(TimeoutError):
                await pipe.recv(timeout=0.1)
                break
            await pipe.send(PACKET)
        began = time.perf_counter()
        count = 0
        for _ in range(WINDOW):
            await pipe.send(PACKET)
        while (elapsed := time.perf_counter() - began) < seconds:
            await pipe.send(await pipe.recv())
            count += 1
    sock.close()
    await sock.wait_closed()
    return count / elapsed


# -- the table -------------------------------------------------------------------------------------

PUSH = {"streams": push_streams, "protocol": push_protocol, "pipe": push_pipe}
PINGS = {"streams": ping_streams, "protocol": ping_protocol, "pipe": ping_pipe}
FLOOD = {"protocol": flood_protocol, "pipe": flood_pipe}
Results = dict[str, dict[str, list[float]]]


async def run(ports: dict[str, int], seconds: float, runs: int) -> Results:
    results: Results = {}

    def keep(what: str, kind: str, value: float) -> None:
        results.setdefault(what, {}).setdefault(kind, []).append(value)

    for number in range(runs + 1):  # the first warms up
        kept = keep if number else lambda *_: None
        for kind in turn(STREAM_KINDS, number):
            kept("TCP throughput, MB/s", kind, await PUSH[kind](ports[f"tcp {kind}"], seconds))
        for kind in turn(STREAM_KINDS, number):
            samples = sorted(await PINGS[kind](ports[f"tcp {kind}"], seconds))
            kept("TCP round trip p50, us", kind, samples[len(samples) // 2] * 1e6)
            kept("TCP round trip p99, us", kind, samples[len(samples) * 99 // 100] * 1e6)
        for kind in turn(DATAGRAM_KINDS, number):
            kept("UDP echoes per second", kind, await FLOOD[kind](ports[f"udp {kind}"], seconds))
    return results


def turn(kinds: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Another one begins each time."""
    start = number % len(kinds)
    return kinds[start:] + kinds[:start]


def show(results: Results) -> None:
    columns = "".join(f"{kind:>11}" for kind in STREAM_KINDS)
    print(f"{'':26}{columns}{'pipe/streams':>14}{'pipe/protocol':>15}")
    for what, kinds in results.items():
        row = f"{what:26}"
        for kind in STREAM_KINDS:
            row += f"{statistics.median(kinds[kind]):>11.0f}" if kind in kinds else f"{'-':>11}"
        for other, width in (("streams", 14), ("protocol", 15)):
            if other in kinds:
                ratios = [ours / theirs for ours, theirs in zip(kinds["pipe"], kinds[other], strict=True)]
                row += f"{statistics.median(ratios):>{width}.2f}"
            else:
                row += f"{'-':>{width}}"
        print(row)


def make_loop(fast: bool) -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop() if fast else asyncio.new_event_loop()


def run_server(control: Connection, fast: bool) -> None:
    with asyncio.Runner(loop_factory=lambda: make_loop(fast)) as runner:
        runner.run(serve(control))


def main() -> None:
    parser = argparse.ArgumentParser(description="What a pipe costs over bare asyncio.")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--runs", type=int, default=5, help="measured runs, after one that warms up")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop at both ends")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=run_server, args=(theirs, options.uvloop))
    server.start()
    try:
        ports = ours.recv()
        with asyncio.Runner(loop_factory=lambda: make_loop(options.uvloop)) as runner:
            results = runner.run(run(ports, options.seconds, options.runs))
        loop = "uvloop" if options.uvloop else "asyncio"
        print(f"two processes over loopback, {loop}, median of {options.runs} runs of {options.seconds:g} s")
        show(results)
    finally:
        ours.send("stop")
        server.join(10)
        server.terminate()


if __name__ == "__main__":
    main()
