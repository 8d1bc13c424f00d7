"""The program under test: nodes on one machine of the lab, told what to do by one JSON object per line.

It is a program that uses the library as any other would, by its public names (and looks inside only to say
what a node still holds); each order is one short method below. An order runs as a task of its own, so that
one may wait in `accept` while another connects. Answers carry the order's number; `event` lines tell what
happens in between.

Rejected: nodes inside the test's own process with `setns` around them. A socket stays in the namespace in
which it was opened, but a node opens sockets whenever it likes, and two nodes in one process share one
event loop, so that neither could be killed or measured alone.

`tests.lab.e2e.agent` is the other end. ``python -m tests.lab.e2e.program`` runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any

from warpgate_core import (
    SUB_ALL,
    ConnectError,
    Endpoint,
    Identity,
    Node,
    NodeConfig,
    Pipe,
    PipeError,
    Trace,
    TraceEvent,
    auto_connect,
)
from warpgate_core.net.system import SystemEdge

__all__ = ["Program", "contents", "main"]

CHUNK = 1_000  # bytes of a file in one message: with our four, fits every path (RFC 9000 section 14)
WINDOW = 64  # messages under way
AGAIN = 0.25  # s without an acknowledgement until the window is sent again; three round trips of the lab
WIND_UP = 2.0  # s; sessions allow their strategies half a second
HEADER = struct.Struct("!4sII")  # FILE, number of the message, and how many there are
ACK = struct.Struct("!4sI")
FILE, GOT = b"file", b"got "  # what a late copy of another message does not begin with


def contents(size: int, seed: int) -> bytes:
    """The file that is sent: the same bytes for the same seed at both ends, and no pattern in them."""
    return random.Random(seed).randbytes(size)


class Program:
    """The nodes and pipes of this process, and what can be done with them.

    Every public coroutine method is an order; its keyword arguments are the order's, its result the answer.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pipes: dict[int, Pipe] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- nodes -----------------------------------------------------------------------------------

    async def start(self, node: str, seed: str, **config: Any) -> dict[str, Any]:
        """Start a node whose key follows from `seed`; "" is the identity file's. The rest is `NodeConfig`."""
        if node in self._nodes:
            raise ValueError(f"there is a node {node!r} already; stop it first")
        if seed:
            config["identity"] = Identity.from_secret(hashlib.sha256(seed.encode()).digest())
        made = Node(NodeConfig(**config))
        began = time.perf_counter()
        await made.start()
        took = time.perf_counter() - began
        self._nodes[node] = made
        return {"seconds": took} | await self.show(node)

    async def stop(self, node: str) -> dict[str, float]:
        """Close a node, and say how long that took."""
        made = self._nodes.pop(node)
        began = time.perf_counter()
        await made.close()
        for number in [number for number, pipe in self._pipes.items() if pipe.closed]:
            del self._pipes[number]
        return {"seconds": time.perf_counter() - began}

    async def show(self, node: str) -> dict[str, Any]:
        """The node's address, as text and in parts."""
        made = self._nodes[node]
        address = made.address
        return {
            "address": str(address),
            "key": address.public_key.hex(),
            "node_id": address.node_id,
            "interfaces": [
                {
                    "nic": face.nic,
                    "internal": str(face.internal),
                    "external": None if face.external is None else str(face.external),
                    "nat": face.nat.label,
                }
                for face in address.interfaces
            ],
            "hints": [f"{hint.host}:{hint.port}" for hint in address.hints],
        }

    async def settle(self, node: str, timeout: float = 10.0) -> dict[str, Any]:
        """Wait until the NATs in front of the node are known, and show it."""
        edge = self._nodes[node].edge
        if not isinstance(edge, SystemEdge):
            raise TypeError(f"{edge!r} knows nothing of NATs")
        async with asyncio.timeout(timeout):
            await edge.ready_nat.wait()
        return await self.show(node)

    async def busy(self, node: str) -> dict[str, int]:
        """What the node holds: sessions under way, strategies left behind, pipes that nobody has accepted.

        Sessions that have given their result may still be closing what they opened: those are waited for.
        """
        closing = [task for task in asyncio.all_tasks() if task.get_name().startswith("session ")]
        if closing:
            await asyncio.wait(closing, timeout=WIND_UP)
        made = self._nodes[node]
        return {
            "sessions": made.parts.engine.sessions,
            "abandoned": made.parts.engine.abandoned,
            "waiting": len(made._backlog),
        }

    async def resources(self) -> dict[str, int]:
        """What the process holds: tasks (this one and `main` included), descriptors, resident bytes."""
        return {
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "resident": _resident(),
        }

    # -- pipes -----------------------------------------------------------------------------------

    async def connect(self, node: str, dest: str, tell: bool = False, **options: Any) -> dict[str, Any]:
        """`auto_connect`; with `tell`, every step of the race is an event line."""
        began = time.perf_counter()
        traces: list[Trace] = []

        def watch(trace: Trace) -> None:
            traces.append(trace)
            if tell:
                trace.watch(_tell_step)

        try:
            pipe, plugin = await auto_connect(self._nodes[node], dest, watch=watch, **options)
        except ConnectError as error:
            took = time.perf_counter() - began
            raise Failed(error, seconds=took, trace=_steps(traces[0])) from error
        took = time.perf_counter() - began
        return self._entered(pipe) | {"seconds": took, "plugin": plugin.name}

    async def accept(self, node: str, timeout: float = 20.0) -> dict[str, Any]:
        """Wait for a pipe that a peer opens."""
        began = time.perf_counter()
        async with asyncio.timeout(timeout):
            pipe = await self._nodes[node].accept()
        return self._entered(pipe) | {"seconds": time.perf_counter() - began}

    def _entered(self, pipe: Pipe) -> dict[str, Any]:
        number = len(self._pipes) + 1
        while number in self._pipes:
            number += 1
        self._pipes[number] = pipe
        return {
            "pipe": number,
            "peer": pipe.peer.hex(),
            "strategy": pipe.strategy,
            "transport": pipe.path.transport,
            "kind": pipe.path.kind,
            "local": pipe.path.local,
            "remote": pipe.path.remote,
            "trace": _steps(pipe.trace),
        }

    async def trace(self, pipe: int) -> list[dict[str, Any]]:
        """The pipe's trace as of now."""
        return _steps(self._pipes[pipe].trace)

    async def send(self, pipe: int, text: str) -> None:
        """Send one message."""
        await self._pipes[pipe].send(text.encode())

    async def receive(self, pipe: int, timeout: float = 10.0) -> str:
        """Receive what comes first."""
        return (await self._pipes[pipe].recv(SUB_ALL, timeout=timeout)).decode()

    async def ending(self, pipe: int, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the pipe's end, and say how it came: the error's name, "" if it was orderly."""
        began = time.perf_counter()
        kind = ""
        async with asyncio.timeout(timeout):
            try:
                async for _ in self._pipes[pipe]:
                    pass
            except PipeError as error:
                kind = type(error).__name__
        return {"error": kind, "seconds": time.perf_counter() - began}

    async def close(self, pipe: int) -> dict[str, float]:
        """Close the pipe, and say how long that took."""
        began = time.perf_counter()
        await self._pipes.pop(pipe).close()
        return {"seconds": time.perf_counter() - began}

    # -- a file ----------------------------------------------------------------------------------

    async def send_file(self, pipe: int, size: int, seed: int) -> str:
        """Send the file `contents(size, seed)` and return its SHA-256. Over UDP, until all arrived."""
        data = contents(size, seed)
        made = self._pipes[pipe]
        if made.path.transport == "tcp":
            await made.send(data)
        else:
            await _send_datagrams(made, data)
        return hashlib.sha256(data).hexdigest()

    async def receive_file(self, pipe: int, size: int, timeout: float = 60.0) -> str:
        """Receive a file of this size and return its SHA-256; of a UDP pipe nothing else is received then."""
        made = self._pipes[pipe]
        async with asyncio.timeout(timeout):
            if made.path.transport == "udp":
                return hashlib.sha256(await self._receive_datagrams(made)).hexdigest()
            got = bytearray()
            while len(got) < size:
                got += await made.recv(SUB_ALL)
        return hashlib.sha256(got).hexdigest()

    async def _receive_datagrams(self, pipe: Pipe) -> bytes:
        """All chunks, in whatever order; goes on acknowledging until the pipe ends, as acks get lost too."""
        chunks: dict[int, bytes] = {}
        whole = asyncio.Event()

        async def take() -> None:
            with contextlib.suppress(PipeError):
                async for message in pipe:
                    if not message.startswith(FILE):
                        continue
                    _, number, count = HEADER.unpack_from(message)
                    chunks[number] = message[HEADER.size :]
                    await pipe.send(ACK.pack(GOT, number))
                    if len(chunks) == count:
                        whole.set()

        task = asyncio.create_task(take())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await whole.wait()
        return b"".join(chunks[number] for number in sorted(chunks))

    # -- the end ---------------------------------------------------------------------------------

    async def shut(self) -> None:
        """Close every node."""
        for node in tuple(self._nodes):
            await self.stop(node)
        for task in tuple(self._tasks):
            task.cancel()


class Failed(Exception):  # noqa: N818 - carries an answer, is none of the library's errors
    """A connection that did not come about, with what is known of it."""

    def __init__(self, error: ConnectError, **more: Any) -> None:
        super().__init__(str(error))
        self.error = error
        self.more = more


def _resident() -> int:
    """Bytes (man proc, ``VmRSS``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def _steps(trace: Trace) -> list[dict[str, Any]]:
    return [dataclasses.asdict(event) for event in trace]


def _tell_step(event: TraceEvent) -> None:
    say({"event": f"{event.step} {event.phase}", "detail": event.detail})


async def _send_datagrams(pipe: Pipe, data: bytes) -> None:
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    missing = dict(enumerate(parts))
    while missing:
        for number in list(missing)[:WINDOW]:
            await pipe.send(HEADER.pack(FILE, number, len(parts)) + missing[number])
        wanted = set(list(missing)[:WINDOW])
        with contextlib.suppress(TimeoutError):
            while wanted:
                message = await pipe.recv(SUB_ALL, timeout=AGAIN)
                if message.startswith(GOT):
                    _, number = ACK.unpack(message)
                    wanted.discard(number)
                    missing.pop(number, None)


def say(answer: dict[str, Any]) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps(answer, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    if isinstance(value, Endpoint):
        return [value.host, value.port]
    raise TypeError(f"{value!r} is in no answer")


async def obey(program: Program, order: dict[str, Any]) -> None:
    """Carry out one order and answer it."""
    number, do = order.pop("id"), order.pop("do")
    try:
        say({"id": number, "value": await getattr(program, do)(**order)})
    except Failed as failed:
        say({"id": number, "error": _told(failed.error), **failed.more})
    except Exception as error:  # noqa: BLE001 - the test decides whether this error was wanted
        say({"id": number, "error": _told(error)})


def _told(error: BaseException) -> dict[str, Any]:
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    text = error.message if isinstance(error, BaseExceptionGroup) else str(error)
    return {"type": type(error).__name__, "text": text, "inner": [_told(one) for one in inner]}


async def main() -> None:
    """Obey until standard input ends, then close every node."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    program = Program()
    say({"event": "ready", **await program.resources()})
    async with asyncio.TaskGroup() as group:
        running: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            task = group.create_task(obey(program, json.loads(line)))
            running.add(task)
            task.add_done_callback(running.discard)
        for task in running:
            task.cancel()
    await program.shut()
    say({"event": "closed", **await program.resources()})


if __name__ == "__main__":
    asyncio.run(main())
