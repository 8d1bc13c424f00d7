"""A real coturn with two addresses and two ports (RFC 5780), started and stopped by a test."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from warpgate_core.endpoint import Endpoint
from warpgate_core.net.stun_client import StunClient

HAVE_COTURN = shutil.which("turnserver") is not None


@asynccontextmanager
async def coturn(
    folder: Path,
    hosts: Sequence[str] = ("127.0.0.1", "127.0.0.2"),
    *,
    ports: tuple[int, int] | None = None,
    prefix: Sequence[str] = (),
    options: Sequence[str] = (),
) -> AsyncIterator[Endpoint]:
    """Yields its first endpoint once it listens; it has ended when the block is left.

    Args:
        folder: for its files.
        hosts: two addresses for RFC 5780, or one.
        ports: first and other; None for two that are free.
        prefix: what goes before the command, to run it in a namespace.
        options: further ones.
    """
    first, other = ports or _free_ports(hosts)
    command = [*prefix, "turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls"]
    command += ["--no-software-attribute", "--log-file", "stdout", "--simple-log", "--log-binding"]
    command += ["--pidfile", str(folder / "turnserver.pid"), "--userdb", str(folder / "turndb")]
    command += [f"--listening-port={first}", f"--alt-listening-port={other}", *options]
    command += [f"--listening-ip={host}" for host in hosts]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    drain: asyncio.Task[bytes] | None = None
    try:
        assert process.stdout is not None
        await _wait_until_it_listens(process.stdout)
        drain = asyncio.create_task(process.stdout.read())
        yield Endpoint(hosts[0], first)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if drain is not None:
            await drain


async def until_it_answers(client: StunClient, server: Endpoint) -> None:
    """coturn says that it listens a little before it does."""
    await client.binding(server)


async def _wait_until_it_listens(output: asyncio.StreamReader) -> None:
    said: list[str] = []
    async with asyncio.timeout(20):
        while line := await output.readline():
            said.append(line.decode(errors="replace").rstrip())
            # the last line of the start, in 4.5 and 4.6
            if "IO method (auth thread)" in said[-1] or "DB connection success" in said[-1]:
                return
    raise AssertionError("turnserver ended: " + "\n".join(said[-20:]))


def _free_ports(hosts: Sequence[str]) -> tuple[int, int]:
    """Two ports that are free on all of them, for UDP and TCP."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < 2:
            port = 0
            try:
                for host in hosts:
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        family = socket.AF_INET6 if ":" in host else socket.AF_INET
                        sock = stack.enter_context(socket.socket(family, kind))
                        sock.bind((host, port))
                        port = sock.getsockname()[1]
            except OSError:
                continue
            found.append(port)
    return found[0], found[1]
