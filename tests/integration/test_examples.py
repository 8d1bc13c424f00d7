"""Every example in README and `examples/` runs as it stands; only addresses of servers are filled in."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from warpgate_core import Identity, Node, NodeConfig, Pipe
from warpgate_core.signal.embedded import EmbeddedBroker

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # s for a whole example on a busy machine


@pytest.fixture(autouse=True)
def no_port_mappings(warpgate_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples use all network cards: a test asks nobody's router for anything."""
    monkeypatch.setenv("WARPGATE_DISABLE", "upnp")


@asynccontextmanager
async def python(*arguments: str, home: Path, brokers: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process of this interpreter; killed at the end if it still runs."""
    environment = {
        **os.environ,
        "WARPGATE_HOME": str(home),
        "WARPGATE_BROKERS": brokers,
        "PYTHONUNBUFFERED": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: asyncio.subprocess.Process) -> str:
    """The first line on standard output; fails with what is on standard error if there is none."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        line = (await process.stdout.readline()).decode().strip()
        assert line, (await process.stderr.read()).decode()
    return line


async def test_hello(tmp_path: Path) -> None:
    async with python("examples/hello.py", home=tmp_path) as process, asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert err == b""
    assert out.decode().splitlines()[1:] == ["bob received: hello", "alice received: good to see you"]


async def test_the_readme_example(tmp_path: Path) -> None:
    (source,) = re.findall(
        r"<!-- example: .*?-->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    async with EmbeddedBroker() as broker:
        filled = source.replace('"203.0.113.10:1883"', repr(broker.url)).replace('"203.0.113.20:3478"', "")
        assert filled.count(broker.url) == 1
        peer = Node(NodeConfig(identity=Identity.generate(), brokers=[broker.url]))
        async with peer, python("-c", filled, home=tmp_path) as process, asyncio.timeout(PATIENCE):

            @peer.on_pipe
            async def answer(pipe: Pipe) -> None:
                await pipe.send((await pipe.recv()).upper())

            out, err = await process.communicate(f"{peer.address}\n".encode())
    assert process.returncode == 0, err.decode()
    assert "my address: wg1" in out.decode()
    assert "HELLO BY DIRECT" in out.decode()


async def test_reach_a_service(tmp_path: Path) -> None:
    script = "examples/reach_a_service.py"

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    async with EmbeddedBroker() as broker, await asyncio.start_server(shout, "127.0.0.1", 0) as service:
        port = str(service.sockets[0].getsockname()[1])
        async with python(script, "serve", port, home=tmp_path / "a", brokers=broker.url) as serving:
            address = await first_line(serving)
            async with python(
                script, "open", address, "0", home=tmp_path / "b", brokers=broker.url
            ) as opening:
                near = int((await first_line(opening)).split()[-1])
                reader, writer = await asyncio.open_connection("127.0.0.1", near)
                payload = b"through the gate " * 20_000
                async with asyncio.timeout(PATIENCE):
                    writer.write(payload)
                    writer.write_eof()
                    assert await reader.read() == payload.upper()
                writer.close()
                await writer.wait_closed()
