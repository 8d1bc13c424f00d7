"""``warpgate broker``: an MQTT broker in this process, until Ctrl-C."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from warpgate_core.cli.exits import UsageError
from warpgate_core.cli.terminal import Terminal
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import InputError
from warpgate_core.signal.embedded import EmbeddedBroker

__all__ = ["run"]


async def run(args: Namespace, terminal: Terminal) -> int:
    """Run the broker; its URL is the one line on standard output."""
    try:
        host = Endpoint.parse(f"[{args.host}]:1" if ":" in args.host else f"{args.host}:1").host
    except InputError as error:
        text = f"--host: {args.host!r} is no numeric address; write 127.0.0.1, 0.0.0.0 or ::"
        raise UsageError(text, "warpgate broker") from error
    async with EmbeddedBroker(host, args.port) as broker:
        if terminal.json:
            terminal.event("broker", url=broker.url, host=host, port=broker.port)
        terminal.say("a broker for a few tens of nodes, without passwords; Ctrl-C ends it", "dim")
        terminal.result(broker.url)
        await asyncio.get_running_loop().create_future()
    return 0
