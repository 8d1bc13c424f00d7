"""A shell command at the end of a pipe: what the peer sends is its input, its output goes to the peer.

The command runs in a process group of its own, which ends with the pipe: first by SIGTERM, then by
SIGKILL, so that nothing of a pipeline stays behind. What it must know of the peer is in its environment.
Rejected: giving it the socket itself (a UDP pipe has none of its own, and a command that does not shut
its output down would keep the peer waiting).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from types import TracebackType
from typing import Final, Self

from warpgate_core.cli.pump import MESSAGE
from warpgate_core.cli.subprocesses import has_ended, release
from warpgate_core.errors import ConfigError
from warpgate_core.pipe import Pipe

__all__ = ["Command"]

_READ: Final = 128 * 1024  # bytes; two full pipes of Linux
_GRACE: Final = 2.0  # s to end by itself, and again after SIGTERM


class Command:
    """One run of a command; an async context manager, and `Input` and `Output` of a pump.

    Args:
        text: for /bin/sh (cmd.exe on Windows).
        pipe: of whom it is told in WARPGATE_PEER, WARPGATE_TRANSPORT and WARPGATE_REMOTE.

    Raises (on entering):
        ConfigError: it cannot be started.
    """

    def __init__(self, text: str, pipe: Pipe) -> None:
        self._text = text
        self._limit = _READ if pipe.path.transport == "tcp" else MESSAGE
        self._environment = os.environ | {
            "WARPGATE_PEER": pipe.peer.hex(),
            "WARPGATE_TRANSPORT": pipe.path.transport,
            "WARPGATE_REMOTE": str(pipe.path.remote),
        }
        self._running: asyncio.subprocess.Process | None = None

    @property
    def ends_pipe(self) -> bool:
        """See `pump.Input`: who closes its output has ended."""
        return True

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self._running is not None, "not entered"
        return self._running

    @property
    def _input(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None
        return self._process.stdin

    async def __aenter__(self) -> Self:
        try:
            self._running = await asyncio.create_subprocess_shell(
                self._text,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(f"--exec: {self._text!r} cannot be started: {error.strerror}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process = self._process
        self._input.close()
        steps = (signal.SIGTERM, signal.SIGKILL) if os.name == "posix" else (signal.SIGTERM,)
        try:
            if kind is None and await has_ended(process, _GRACE):
                return
        finally:
            for number in steps:
                if process.returncode is None:
                    _signal_group(process.pid, number)
                    await asyncio.shield(has_ended(process, _GRACE))
            release(process)

    async def read(self) -> bytes:
        """What it wrote."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(self._limit)

    async def write(self, data: bytes) -> None:
        """Hand it what the peer sent; nothing happens if it reads no more."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has read all it wanted
            self._input.write(data)
            await self._input.drain()

    async def flush(self) -> None:
        """All that was written is in its input already."""

    async def end(self) -> None:
        """The peer has ended."""
        self._input.close()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        if os.name == "posix":
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
