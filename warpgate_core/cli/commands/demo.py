"""``warpgate demo``: two nodes in two processes on this machine, from nothing to a checked file.

The two nodes are the commands that a person would type, `listen` and `connect`, each with an identity of
its own in a temporary directory. Everything stays on the loopback, so it works without a network.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from warpgate_core.cli.child import Child
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import line, milliseconds, size
from warpgate_core.cli.views import RaceView, make_view
from warpgate_core.errors import NetworkError
from warpgate_core.net.threads import in_thread
from warpgate_core.signal.embedded import EmbeddedBroker
from warpgate_core.trace import Phase, TraceEvent

__all__ = ["Transfer", "run"]

TIMEOUT: Final = 60.0  # s for all of it; it takes two, and a busy machine is ten times slower
QUESTION, ANSWER = b"hello, this is A\n", b"hello A, this is B\n"
_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 256 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Transfer:
    """The file on its way from A to B."""

    bytes: int
    sha256: str
    seconds: float

    @property
    def speed(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds


async def run(args: Namespace, terminal: Terminal) -> int:
    """Show it all."""
    data = await in_thread("random data", lambda: os.urandom(args.size * 1_000_000))
    try:
        async with asyncio.timeout(TIMEOUT), EmbeddedBroker() as broker:
            with tempfile.TemporaryDirectory(prefix="warpgate-demo-") as folder:
                report = await _show(broker.url, Path(folder), data, terminal)
    except TimeoutError as error:
        raise NetworkError(f"the demo did not come to its end within {TIMEOUT:g} s") from error
    if terminal.json:
        terminal.result_json({"broker": broker.url} | report)
    return 0


async def _show(broker: str, folder: Path, data: bytes, terminal: Terminal) -> dict[str, Any]:
    node = ("--nic", _LOOPBACK, "--broker", broker)
    terminal.say(line("1  a broker for signalling      ", (f"{broker} (in this process)", "dim")))
    async with Child("listen", *node, home=folder / "b") as b:
        listening = await b.until("listening")
        terminal.say(line("2  node B waits for peers       ", ("$ warpgate listen", "dim")))
        terminal.say(line("3  node A connects to B         ", ("$ warpgate connect wg1...", "dim")))
        async with Child("connect", listening["address"], *node, home=folder / "a") as a:
            connected, trace = await _race(a, terminal)
            opened = await b.until("pipe")
            terminal.say(
                line(
                    "   connected in ",
                    (milliseconds(connected["seconds"]), "bold green"),
                    f" by {connected['strategy']}, {connected['transport']} {connected['remote']};"
                    " each proved its key",
                )
            )
            round_trip = await _message(a, b)
            terminal.say(f"4  a message there and back     {milliseconds(round_trip)}")
            transfer = await _file(a, b, data)
            terminal.say(
                f"5  {size(transfer.bytes)} from A to B          {milliseconds(transfer.seconds)}, "
                f"{size(int(transfer.speed))}/s"
            )
            terminal.say(line("   SHA-256 at both ends         ", (f"{transfer.sha256[:32]}...", "dim")))
            b.input.close()
            await asyncio.gather(a.wait(), b.wait())
    terminal.say(line(("done: both nodes have ended, nothing is left behind", "green")))
    return {
        "node_a": opened["node_id"],
        "node_b": listening["node_id"],
        "address_b": listening["address"],
        "connected": {key: connected[key] for key in ("strategy", "transport", "remote", "kind", "seconds")},
        "message_seconds": round(round_trip, 6),
        "file": asdict(transfer) | {"bytes_per_second": round(transfer.speed)},
        "trace": trace,
    }


async def _race(a: Child, terminal: Terminal) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Follow A's race; the event that ended it, and those before."""
    trace: list[dict[str, Any]] = []
    with make_view(terminal, "   the race", ("direct", "reverse"), keep=True) as view:
        async for event in a.events():
            if event["event"] == "connected":
                return event, trace
            if event["event"] == "trace":
                trace.append({key: value for key, value in event.items() if key != "event"})
                _feed(view, event)
    raise NetworkError("`warpgate connect` ended before it was connected")


def _feed(view: RaceView, event: dict[str, Any]) -> None:
    phase = Phase(event["phase"])
    view.update(
        TraceEvent(
            event["at"], event["strategy"], event["step"], phase, event["detail"], remote=event["remote"]
        )
    )


async def _message(a: Child, b: Child) -> float:
    """A line from A to B and one back; the seconds it took."""
    now = asyncio.get_running_loop().time
    began = now()
    a.input.write(QUESTION)
    if await b.output.readline() != QUESTION:
        raise NetworkError("the message arrived damaged at B")
    b.input.write(ANSWER)
    if await a.output.readline() != ANSWER:
        raise NetworkError("the answer arrived damaged at A")
    return now() - began


async def _file(a: Child, b: Child, data: bytes) -> Transfer:
    """All of `data` from A to B, whose end A then says, and the checksum at both ends."""
    now = asyncio.get_running_loop().time
    began = now()

    async def send() -> str:
        digest = hashlib.sha256()
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            digest.update(chunk)
            a.input.write(chunk)
            await a.input.drain()
        a.input.close()
        return digest.hexdigest()

    async def receive() -> tuple[str, int]:
        digest, count = hashlib.sha256(), 0
        while chunk := await b.output.read(_CHUNK):
            digest.update(chunk)
            count += len(chunk)
        return digest.hexdigest(), count

    sent, (received, count) = await asyncio.gather(send(), receive())
    if (sent, len(data)) != (received, count):
        raise NetworkError(f"the file arrived damaged: {count} of {len(data)} bytes, or another checksum")
    return Transfer(count, received, now() - began)
