"""What the commands that run a node have in common: waiting until it knows itself, and telling about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from warpgate_core.address import NodeAddress
from warpgate_core.cli.pump import Totals
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import Line, clean, line, mask, milliseconds, size
from warpgate_core.net.system import SystemEdge
from warpgate_core.node import Node
from warpgate_core.pipe import Pipe

__all__ = ["attended", "opened_line", "pipe_fields", "settle", "warn_about_brokers", "warn_about_datagrams"]

NAT_WAIT: Final = 3.0  # s; discovery takes three round trips, and lost packets are repeated meanwhile
INTERRUPT_WAIT: Final = 0.5  # s that Ctrl-C leaves for a goodbye: a slow round trip


async def settle(node: Node) -> None:
    """Wait until the node knows what its NAT does, so that its address is complete; not for long."""
    edge = node.edge
    if isinstance(edge, SystemEdge):
        try:
            async with asyncio.timeout(NAT_WAIT):
                await edge.ready_nat.wait()
        except TimeoutError:
            return  # the address says "unknown" then, which orders attempts and forbids none


def warn_about_brokers(node: Node, terminal: Terminal) -> None:
    """Say so if nobody can be signalled to, and why."""
    if node.router is None:
        terminal.say(
            "no broker is configured, so only direct connections can work; "
            "set WARPGATE_BROKERS or --broker URL",
            "yellow",
        )
        return
    rows = node.router.brokers
    if rows and not any(row.state == "up" for row in rows):
        why = "; ".join(f"{row.name}: {row.error or row.state}" for row in rows[:3])
        terminal.say(f"no broker answers, so only direct connections can work now ({why})", "yellow")


def pipe_fields(pipe: Pipe) -> dict[str, Any]:
    """A pipe for programs."""
    return {
        "peer": pipe.peer.hex(),
        "node_id": NodeAddress(pipe.peer).node_id,
        "strategy": pipe.strategy,
        "transport": pipe.path.transport,
        "local": str(pipe.path.local),
        "remote": str(pipe.path.remote),
        "kind": pipe.path.kind,
    }


def opened_line(pipe: Pipe, verb: str, seconds: float | None = None) -> Line:
    """A pipe for people: "connected to 7kf3... by direct, tcp 10.0.0.2:4000 (host), in 38 ms"."""
    took = "" if seconds is None else f", in {milliseconds(seconds)}"
    path = f"{pipe.path.transport} {pipe.path.remote} ({pipe.path.kind})"
    return line(
        (f"{verb} ", "bold green"),
        (NodeAddress(pipe.peer).node_id, "bold"),
        f" by {pipe.strategy}, {path}{took}",
    )


def warn_about_datagrams(pipe: Pipe, terminal: Terminal) -> None:
    """Say once what a pipe over UDP does not promise."""
    if pipe.path.transport == "udp":
        terminal.say(
            "this pipe is UDP: each line is a datagram, and may be lost, doubled or come out of order",
            "yellow",
        )


@asynccontextmanager
async def attended(pipe: Pipe, terminal: Terminal) -> AsyncIterator[Totals]:
    """Close the pipe with the block, whatever ends it, and tell what has passed.

    Yields:
        Counters that the block is to count up.
    """
    totals = Totals()
    loop = asyncio.get_running_loop()
    began = loop.time()
    failure: str | None = None
    try:
        yield totals
        await pipe.close()
    except asyncio.CancelledError:
        await _close_soon(pipe)
        raise
    except Exception as error:
        failure = mask(clean(str(error)))
        await pipe.close()
        raise
    finally:
        took = loop.time() - began
        terminal.event(
            "closed",
            peer=pipe.peer.hex(),
            sent=totals.sent,
            received=totals.received,
            seconds=round(took, 6),
            error=failure,
        )
        terminal.note(
            f"sent {size(totals.sent)} and received {size(totals.received)} in {milliseconds(took)}"
        )


async def _close_soon(pipe: Pipe) -> None:
    """Close a pipe for somebody who has pressed Ctrl-C: a short goodbye, then the end."""
    try:
        async with asyncio.timeout(INTERRUPT_WAIT):
            await pipe.close()
    except TimeoutError:
        return  # cancelled, `close` has released everything at once
