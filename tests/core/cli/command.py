"""Run the real ``warpgate`` in a process of its own, and watch what it says.

Nothing here waits for time to pass: a test waits for a line, an event or the end, and fails with all that was
said if it does not come.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 30.0  # s until a test gives up; a busy machine is slow, a hanging program never ends
ADDRESS = re.compile(r"wg1[a-z2-7]{50,}")
LOOPBACK = ("--nic", "127.0.0.1")  # every node of these tests stays there


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard error as JSON lines, all of them."""
        return [json.loads(row) for row in self.err.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """The one event of this name."""
        (found,) = [event for event in self.events if event["event"] == name]
        return found


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with this home and no other setting of warpgate."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARPGATE_")}
    return kept | {"WARPGATE_HOME": str(home)} | dict(more or {})


class Warpgate:
    """A running command; an async context manager that kills it if the test fails.

    Args:
        words: command and options.
        home: its WARPGATE_HOME.
        stdin: what `asyncio.create_subprocess_exec` takes; by default a pipe.
        stdout: the same.
        env: further environment.
        wrapper: words before, e.g. a shell that redirects.
    """

    def __init__(
        self,
        *words: str,
        home: Path,
        stdin: Any = asyncio.subprocess.PIPE,
        stdout: Any = asyncio.subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._argv = [*wrapper, sys.executable, "-m", "warpgate_core", *words]
        self._streams = {"stdin": stdin, "stdout": stdout, "stderr": asyncio.subprocess.PIPE}
        self._env = environment(home, env)
        self._lines: list[str] = []
        self._news = asyncio.Condition()
        self._over = False

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(*self._argv, **self._streams, env=self._env)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        self.process._transport.close()  # type: ignore[attr-defined]  # with output that nobody has read
        await self.process.wait()  # which would else wait for that
        self._reader.cancel()
        await asyncio.wait([self._reader])
        if error is not None:
            error.add_note(f"{' '.join(self._argv[3:])} said:\n{self.said}")

    @property
    def said(self) -> str:
        """Standard error so far."""
        return "".join(self._lines)

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for row in self.process.stderr:
            async with self._news:
                self._lines.append(row.decode("utf-8", "replace"))
                self._news.notify_all()
        async with self._news:
            self._over = True
            self._news.notify_all()

    async def line(self, pattern: str) -> str:
        """The first line on standard error, said or yet to be said, that matches."""
        async with asyncio.timeout(PATIENCE), self._news:
            seen = 0
            while True:
                for row in self._lines[seen:]:
                    if re.search(pattern, row):
                        return row
                seen = len(self._lines)
                assert not self._over, f"it ended without {pattern!r}"
                await self._news.wait()

    async def event(self, name: str) -> dict[str, Any]:
        """The first event of this name; for a command with ``--json``."""
        found: dict[str, Any] = json.loads(await self.line(rf'"event": "{name}"'))
        return found

    async def address(self) -> str:
        """The address that it listens at."""
        found = ADDRESS.search(await self.line(ADDRESS.pattern))
        assert found is not None
        return found.group()

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """To its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()
        if end:
            self.process.stdin.close()

    async def read_line(self) -> bytes:
        """From its standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return await self.process.stdout.readline()

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def gone(self) -> None:
        """Wait until the process has ended, whether or not anybody has read its output."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self._reader)

    async def end(self, data: bytes | None = None) -> Ended:
        """Give it the rest of its input, wait for its end, and insist that it shows no traceback."""
        async with asyncio.timeout(PATIENCE):
            feeding = asyncio.create_task(self._feed(data))
            out = b"" if self.process.stdout is None else await self.process.stdout.read()
            code = await self.process.wait()
            await feeding
            await self._reader
        assert "Traceback" not in self.said, self.said
        return Ended(code, out, self.said)

    async def _feed(self, data: bytes | None) -> None:
        stdin = self.process.stdin
        if stdin is None or stdin.is_closing():
            return
        try:
            if data:
                stdin.write(data)
                await stdin.drain()
            if data is not None:
                stdin.close()
        except ConnectionError:  # it has ended before it read all of it, as some of these tests want
            return


async def run(
    *words: str,
    home: Path,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> Ended:
    """Run a command to its end."""
    async with Warpgate(*words, home=home, env=env, wrapper=wrapper) as command:
        return await command.end(data)
