"""Ending a process that was started here, completely: asyncio's part of it too."""

from __future__ import annotations

import asyncio

__all__ = ["discard_output", "has_ended"]


async def has_ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait for its end, but no longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def discard_output(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Read what a process that has ended left in its pipes, at most `seconds` long.

    asyncio closes a pipe only when it has been read to its end, and complains about others at the exit.
    A process that inherited the pipe may hold it open, hence the limit.
    """
    try:
        async with asyncio.timeout(seconds):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(65_536):
                    continue
    except TimeoutError:
        return
