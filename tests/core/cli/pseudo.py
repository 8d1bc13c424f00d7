"""A pseudo-terminal with a `warpgate` in it: what a person sees and types."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.core.cli.command import PATIENCE, environment

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Screen:
    """A command in a terminal of its own; an async context manager that kills it if the test fails.

    Args:
        words: command and options.
        home: its WARPGATE_HOME.
        columns: of the terminal.
        env: further environment.

    Attributes:
        raw: everything written to the terminal.
    """

    def __init__(
        self, *words: str, home: Path, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
        self._words = words
        self._env = environment(home, {"TERM": "xterm-256color", "COLUMNS": ""} | dict(env or {}))
        self._columns = columns
        self._news = asyncio.Event()
        self._over = False
        self.raw = ""

    async def __aenter__(self) -> Self:
        self._master, slave = pty.openpty()
        self._slave = slave
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self._columns, 0, 0))
        self._before = termios.tcgetattr(slave)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "warpgate_core", *self._words),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)
        if error is not None:
            error.add_note(f"the screen of {' '.join(self._words)}:\n{self.text}")

    def _read(self) -> None:
        self.raw += os.read(self._master, 65_536).decode("utf-8", "replace")
        self._news.set()

    @property
    def text(self) -> str:
        """What was written, without escape sequences."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    async def until(self, pattern: str) -> str:
        """Wait until the text matches; what matched."""
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(pattern, self.text, re.DOTALL)):
                self._news.clear()
                await self._news.wait()
        return found.group()

    def type(self, text: str) -> None:
        """Press keys; "\\x03" is Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._master, text.encode())

    async def end(self) -> int:
        """Wait for its end; insist that the terminal is as it was and shows no traceback."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        self._drain()
        assert "Traceback" not in self.raw, self.text
        assert self.raw.rfind("\x1b[?25h") >= self.raw.rfind("\x1b[?25l"), "the cursor is still hidden"
        print("T", termios.tcgetattr(self._slave), self._before)
        assert termios.tcgetattr(self._slave) == self._before
        assert os.get_blocking(self._slave)
        return code

    def _drain(self) -> None:
        os.set_blocking(self._master, False)
        try:
            while True:
                self._read()
        except OSError:  # EAGAIN: that was all
            return


def without(folder: Path, *modules: str) -> dict[str, str]:
    """An environment in which these modules are not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in modules)]
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")
    return {"PYTHONPATH": str(folder)}
