"""``warpgate connect ADDRESS``: race to the peer, then join the pipe to standard input and output.

UDP pipes lose data by nature. Between two terminals that is a missing line that one sees; in a file it is
damage that nobody sees. So without ``--transport`` a connection whose input or output is redirected takes
TCP or nothing. Rejected: TCP only, always (two people behind strict NATs would get nothing where they could
have talked), and UDP everywhere with a warning (a warning in a script is read by nobody).
"""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace

from warpgate_core.address import NodeAddress
from warpgate_core.cli.exits import UsageError
from warpgate_core.cli.nodes import (
    attended,
    opened_line,
    pipe_fields,
    warn_about_brokers,
    warn_about_datagrams,
)
from warpgate_core.cli.pump import join
from warpgate_core.cli.settings import node_config, read_address
from warpgate_core.cli.stdio import Sink, Source
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.views import make_view
from warpgate_core.errors import ConnectError, PluginError
from warpgate_core.node import Node
from warpgate_core.pipe import Pipe

__all__ = ["run"]

_ONLY_TCP = (
    "only TCP was tried, because standard input or output is no terminal; --transport any takes UDP as well, "
    "which may lose data"
)


async def run(args: Namespace, terminal: Terminal) -> int:
    """Connect, pass bytes until both ends have ended, and leave."""
    config = node_config(args, accept=())
    source, sink = Source(), Sink()
    try:
        if args.address == ["-"] and source.is_terminal:
            terminal.say("the address, please, and then Enter:")
        elif args.address == ["-"]:
            terminal.note("reading the address from standard input")
        dest = await read_address(args.address, source)
        terminal.event("starting")
        async with Node(config) as node:
            pipe = await _connect(node, dest, args, terminal)
            patience = 0.0 if source.is_terminal else None
            async with attended(pipe, terminal) as totals:
                await join(pipe, source, sink, linger=args.linger, totals=totals, patience=patience)
    finally:
        source.close()
        sink.close()
    return 0


async def _connect(node: Node, dest: NodeAddress | str, args: Namespace, terminal: Terminal) -> Pipe:
    transport = _transport(args.transport)
    warn_about_brokers(node, terminal)
    name = dest.node_id if isinstance(dest, NodeAddress) else dest
    loop = asyncio.get_running_loop()
    try:
        names = [cls.spec.name for cls in node.registry.select(args.plugin)]
    except PluginError as error:
        raise UsageError(f"--plugin: {error}" if args.plugin else str(error)) from error
    began = loop.time()
    try:
        with make_view(terminal, f"connecting to {name}", names) as view:
            pipe, _ = await node.connect(
                dest, plugins=args.plugin, timeout=args.timeout, transport=transport, watch=view.watch
            )
    except ConnectError as error:
        if args.transport == "auto" and transport == "tcp":
            error.add_note(_ONLY_TCP)
        raise
    took = loop.time() - began
    terminal.event("connected", **pipe_fields(pipe), seconds=round(took, 6))
    terminal.say(opened_line(pipe, "connected to", took))
    warn_about_datagrams(pipe, terminal)
    return pipe


def _transport(wish: str) -> str | None:
    """What `auto_connect` is to accept; None for either."""
    if wish == "auto":
        return None if os.isatty(0) and os.isatty(1) else "tcp"
    return None if wish == "any" else wish
