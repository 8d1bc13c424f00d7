"""``warpgate listen``: wait for peers, and join what they open to standard input and output, or to a command.

One pipe and the end, as netcat does, unless ``--keep``. While one pipe has standard input and output the
next ones wait; echo and commands serve many at once.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Final

from warpgate_core.cli.exits import OutputGone
from warpgate_core.cli.nodes import (
    attended,
    opened_line,
    pipe_fields,
    settle,
    warn_about_brokers,
    warn_about_datagrams,
)
from warpgate_core.cli.pump import Totals, echo, join
from warpgate_core.cli.settings import accepted_keys, node_config
from warpgate_core.cli.shell import Command
from warpgate_core.cli.stdio import Sink, Source
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import clean, line, mask
from warpgate_core.cli.views import event_line
from warpgate_core.errors import NodeClosedError, WarpgateError
from warpgate_core.node import Node
from warpgate_core.pipe import Pipe

__all__ = ["run"]

MAX_SERVED: Final = 64  # pipes at once for --echo and --exec; a process and six descriptors each
TELL_AFTER: Final = 1.0  # s without a further change until the new address is told


async def run(args: Namespace, terminal: Terminal) -> int:
    """Serve one pipe, or many."""
    door = _Door(accepted_keys(args.accept))
    config = node_config(args, accept=door)
    terminal.event("starting")
    async with Node(config) as node:
        await settle(node)
        warn_about_brokers(node, terminal)
        if args.exec and door.keys is None:
            terminal.say(
                "whoever has this address can run that command; --accept KEY limits it to a key", "yellow"
            )
        notice = _Notice(node, terminal)
        try:
            await _Listener(node, door, args, terminal).run()
        finally:
            notice.close()
    return 0


class _Door:
    """Who may come in, and whether anybody may any more.

    Args:
        keys: public keys; None: everybody.
    """

    def __init__(self, keys: frozenset[bytes] | None) -> None:
        self.keys = keys
        self.is_open = True

    def __call__(self, key: bytes) -> bool:
        return self.is_open and (self.keys is None or key in self.keys)


class _Notice:
    """Tells the node's address, and again when it has changed."""

    def __init__(self, node: Node, terminal: Terminal) -> None:
        self._node = node
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._told = str(node.address)
        terminal.event("listening", address=self._told, node_id=node.identity.node_id)
        terminal.say(line("listening as ", (node.identity.node_id, "bold"), "; the peer types:"))
        self._show()
        self._unwatch = node.on_change(self._changed)

    def close(self) -> None:
        """Watch no longer."""
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()

    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(TELL_AFTER, self._tell)

    def _tell(self) -> None:
        now = str(self._node.address)
        if now != self._told:
            self._told = now
            self._terminal.event("address", address=now)
            self._terminal.say("the address has changed; the peer types now:")
            self._show()

    def _show(self) -> None:
        self._terminal.say(line("warpgate connect ", (self._told, "bold cyan")))


class _Listener:
    """Takes pipes and serves them."""

    def __init__(self, node: Node, door: _Door, args: Namespace, terminal: Terminal) -> None:
        self._node, self._door, self._args, self._terminal = node, door, args, terminal
        self._source, self._sink = Source(), Sink()

    async def run(self) -> None:
        """Serve one, or one after the other, or many at once."""
        try:
            if not self._args.keep:
                pipe = await self._node.accept()
                self._door.is_open = False
                await self._one(pipe)
            elif self._args.echo or self._args.exec:
                await self._many()
            else:
                async for pipe in self._node:
                    await self._tolerant(pipe)
        finally:
            self._source.close()
            self._sink.close()

    async def _many(self) -> None:
        room = asyncio.Semaphore(MAX_SERVED)

        async def serve(pipe: Pipe) -> None:
            try:
                await self._tolerant(pipe)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    group.create_task(serve(await self._node.accept()))
                except NodeClosedError:
                    return

    async def _tolerant(self, pipe: Pipe) -> None:
        """Serve one of many: what goes wrong with it is told, and is not the end."""
        try:
            await self._one(pipe)
        except OutputGone:
            raise
        except WarpgateError as error:
            self._terminal.say(f"warning: {mask(clean(str(error)))}", "yellow")

    async def _one(self, pipe: Pipe) -> None:
        terminal = self._terminal
        terminal.event("pipe", **pipe_fields(pipe))
        if terminal.verbose and not terminal.json:
            terminal.show(map(event_line, pipe.trace))
        terminal.say(opened_line(pipe, "a pipe from"))
        if not (self._args.echo or self._args.exec):
            warn_about_datagrams(pipe, terminal)
        async with attended(pipe, terminal) as totals:
            await self._serve(pipe, totals)

    async def _serve(self, pipe: Pipe, totals: Totals) -> None:
        args = self._args
        if args.echo:
            await echo(pipe, totals)
        elif args.exec:
            async with Command(args.exec, pipe) as command:
                await join(pipe, command, command, linger=args.linger, totals=totals)
            if command.status:
                self._terminal.say(f"warning: the command ended with status {command.status}", "yellow")
        else:
            patience = 0.0 if self._source.is_terminal else args.linger if args.keep else None
            await join(
                pipe,
                self._source,
                self._sink,
                linger=args.linger,
                totals=totals,
                last=not args.keep,
                patience=patience,
            )
