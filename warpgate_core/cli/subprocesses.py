"""Ending a process that was started here, completely: asyncio's part of it too.

asyncio takes a process for ended when its pipes have ended as well. So whoever waits for the end has to
read what is still in them, and a process of somebody else that inherited one may hold them open.
"""

from __future__ import annotations

import asyncio

__all__ = ["has_ended", "release"]


async def has_ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait for its end, at most `seconds` long; what it still writes is discarded."""
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    group.create_task(_discard(stream))
            group.create_task(process.wait())
    except TimeoutError:
        return process.returncode is not None
    return True


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        continue


def release(process: asyncio.subprocess.Process) -> None:
    """Close its pipes, whoever else may hold them; a process that still runs is killed."""
    # There is no public way, and without it asyncio complains at the exit of the program.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
