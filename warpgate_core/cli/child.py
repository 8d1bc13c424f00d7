"""One of our own commands in a process of its own, as a person would start it, watched by its JSON lines.

It ends with us whatever happens: by SIGTERM, then SIGKILL, when this object is left; and by itself when
this process dies without a word, because it watches a pipe whose other end only we hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from warpgate_core.cli.subprocesses import has_ended, release
from warpgate_core.errors import NetworkError

__all__ = ["Child"]

_GRACE: Final = 3.0  # s for an orderly end after SIGTERM; a node's own close takes less


class Child:
    """A running command; an async context manager.

    Args:
        words: command and options; ``--json`` is added.
        home: its WARPGATE_HOME. No other WARPGATE_ variable of ours reaches it.
    """

    def __init__(self, *words: str, home: Path) -> None:
        self.words = words
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WARPGATE_")}
        self._environment = kept | {"WARPGATE_HOME": str(home)}
        self._running: asyncio.subprocess.Process | None = None
        self._lifeline = -1

    async def __aenter__(self) -> Self:
        theirs, self._lifeline = os.pipe()
        try:
            self._running = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "warpgate_core", *self.words, "--json", f"--until-eof-of={theirs}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._lifeline)
        self.input.close()
        process = self._process
        try:
            for end in (process.terminate, process.kill):
                if process.returncode is None:
                    end()
                    await asyncio.shield(has_ended(process, _GRACE))
        finally:
            release(process)

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self._running is not None, "not entered"
        return self._running

    @property
    def input(self) -> asyncio.StreamWriter:
        """Its standard input."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> asyncio.StreamReader:
        """Its standard output."""
        assert self._process.stdout is not None
        return self._process.stdout

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it tells, to its end.

        Raises:
            NetworkError: it has failed; with its own words.
        """
        assert self._process.stderr is not None
        async for row in self._process.stderr:
            try:
                event = json.loads(row)
            except ValueError as error:
                raise NetworkError(
                    f"`warpgate {self.words[0]}` said: {row.decode(errors='replace')}"
                ) from error
            if event["event"] == "result" and event["exit_code"]:
                raise NetworkError(f"`warpgate {self.words[0]}`: {event.get('error') or 'ended early'}")
            yield event

    async def until(self, name: str) -> dict[str, Any]:
        """Its next event of this name.

        Raises:
            NetworkError: it has failed, or ended without.
        """
        async for event in self.events():
            if event["event"] == name:
                return event
        raise NetworkError(f"`warpgate {self.words[0]}` ended before it was {name}")

    async def wait(self) -> None:
        """Its end.

        Raises:
            NetworkError: it has failed.
        """
        async for _ in self.events():
            pass
        code = await self._process.wait()
        if code:
            raise NetworkError(f"`warpgate {self.words[0]}` ended with exit code {code}")
