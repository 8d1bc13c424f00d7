"""Reach a TCP service on the other machine through a pipe, with plain asyncio streams.

On the machine with the service (it listens on its own port 8000):

    uv run python examples/reach_a_service.py serve 8000

which prints an address. On the other machine, which then has the service on its own port 9000:

    uv run python examples/reach_a_service.py open wg1... 9000

Both need the same brokers in WARPGATE_BROKERS. Port forwarding as a finished command is planned; this is what
a pipe gives you today in forty lines.
"""

import asyncio
import sys
from contextlib import suppress

from warpgate_core import Node, Pipe, StreamPipe, auto_connect


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, and end the other side's reading."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def join(pipe: Pipe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both directions between a pipe and a connection."""
    assert isinstance(pipe, StreamPipe)
    far_reader, far_writer = pipe.streams()
    async with asyncio.TaskGroup() as group:
        group.create_task(copy(reader, far_writer))
        group.create_task(copy(far_reader, writer))
    writer.close()


async def serve(port: int) -> None:
    """Let peers reach a port of this machine."""
    async with Node() as node:

        @node.on_pipe
        async def forward(pipe: Pipe) -> None:
            await join(pipe, *await asyncio.open_connection("127.0.0.1", port))

        print(node.address, flush=True)
        await asyncio.Event().wait()


async def reach(address: str, port: int) -> None:
    """Have the peer's service on a port of this machine."""
    async with Node() as node:

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pipe, _ = await auto_connect(node, address, transport="tcp")
            async with pipe:
                await join(pipe, reader, writer)

        async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
            print("listening on", server.sockets[0].getsockname()[1], flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(
            serve(int(sys.argv[2])) if sys.argv[1] == "serve" else reach(sys.argv[2], int(sys.argv[3]))
        )
