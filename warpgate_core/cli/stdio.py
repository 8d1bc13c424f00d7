"""Standard input and output for an event loop, whatever they are: pipe, terminal, file, device.

Input that the loop can wait for (pipes, terminals, sockets) is read when it is readable. The descriptor
stays blocking: it is often shared with the shell and with standard output, and whoever sets it
non-blocking and is killed leaves them a broken terminal. That is why `loop.connect_read_pipe` is rejected.
What the loop cannot wait for (files, /dev/null) is read by a thread. Output is written by a thread, because
a write to a full pipe blocks and there is no portable way to know how much room it has.

The threads are daemons that read and write the bare descriptor: one that hangs holds up neither the
event loop nor the end of the process. Both directions are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from warpgate_core.cli.exits import OutputGone
from warpgate_core.errors import InputError, NetworkError

__all__ = ["CHUNK", "Sink", "Source"]

CHUNK: Final = 128 * 1024  # bytes read at once: two full pipes of Linux (64 KiB each)
_AHEAD: Final = 4  # chunks that a thread reads ahead, or that wait to be written


T = TypeVar("T")


class Source:
    """Standard input as chunks of bytes. One reader at a time; cancelling a read loses nothing.

    Args:
        fd: file descriptor, open for reading.
    """

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._kept: deque[bytes] = deque()
        self._ended = False
        self._feeder: _Feeder | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person types here."""
        return os.isatty(self._fd)

    @property
    def ends_pipe(self) -> bool:
        """See `pump.Input`."""
        return False

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, and ever after.

        Raises:
            InputError: it cannot be read.
        """
        if self._kept:
            return self._kept.popleft()
        while not self._ended:
            try:
                data = await (self._feeder.get() if self._feeder else self._when_ready())
            except BlockingIOError:  # somebody else who shares the descriptor was faster
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: the terminal went away
                    raise InputError(f"standard input cannot be read: {error.strerror}") from error
                data = b""
            self._ended = not data
            return data
        return b""

    async def read_line(self, limit: int = 65_536) -> str:
        """The first line, without its end; what follows is left for `read`.

        Args:
            limit: bytes after which it is no line.
        """
        found = b""
        while b"\n" not in found and len(found) < limit and (data := await self.read()):
            found += data
        first, _, rest = found.partition(b"\n")
        if rest:
            self._kept.appendleft(rest)
        return first.decode("utf-8", "replace")

    def close(self) -> None:
        """Read no more."""
        self._ended = True
        if self._feeder is not None:
            self._feeder.stop()

    async def _when_ready(self) -> bytes:
        ready: asyncio.Future[None] = self._loop.create_future()
        try:
            self._loop.add_reader(self._fd, _settle, ready)
        except (OSError, ValueError, NotImplementedError):  # a file, a device, or no such loop (Windows)
            self._feeder = _Feeder(self._fd, self._loop)
            return await self._feeder.get()
        try:
            await ready
        finally:
            self._loop.remove_reader(self._fd)
        return os.read(self._fd, CHUNK)


class _Feeder:
    """A thread that reads a descriptor, a few chunks ahead."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        threading.Thread(target=self._read, name="warpgate: standard input", daemon=True).start()

    async def get(self) -> bytes:
        found = await self._chunks.get()
        self._room.release()
        if isinstance(found, OSError):
            raise found
        return found

    def stop(self) -> None:
        self._stopped = True
        self._room.release()

    def _read(self) -> None:
        found: bytes | OSError = b"-"
        while found and not isinstance(found, OSError):
            self._room.acquire()
            if self._stopped:
                return
            try:
                found = os.read(self._fd, CHUNK)
            except OSError as error:
                found = error
            if not _tell(self._loop, self._chunks.put_nowait, found):
                return


class Sink:
    """Standard output. Writes are queued, in order, and waited for when too many are.

    Args:
        fd: file descriptor, open for writing.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting = 0
        self._progress = asyncio.Event()
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None

    async def write(self, data: bytes) -> None:
        """Queue bytes; waits while there are many.

        Raises:
            OutputGone: nobody reads it any more.
            NetworkError: it cannot be written (the disk is full).
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="warpgate: standard output", daemon=True)
            self._thread.start()
        await self._until(_AHEAD - 1)
        self._waiting += 1
        self._queue.put(data)

    async def flush(self) -> None:
        """Wait until all of it is written.

        Raises:
            OutputGone, NetworkError: see `write`.
        """
        await self._until(0)

    async def end(self) -> None:
        """Write all, then let the reader see the end, though the process lives on.

        Raises:
            OutputGone, NetworkError: see `write`.
        """
        await self.flush()
        if stat.S_ISSOCK(os.fstat(self._fd).st_mode):  # other processes may hold copies of it
            with socket.socket(fileno=os.dup(self._fd)) as sock, contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)  # OSError: the other end has gone before
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._fd)
        os.close(nothing)

    def close(self) -> None:
        """Write no more; what is under way is not waited for."""
        self._queue.put(None)

    async def _until(self, waiting: int) -> None:
        while self._error is None and self._waiting > waiting:
            self._progress.clear()
            await self._progress.wait()
        if isinstance(self._error, BrokenPipeError):
            raise OutputGone from self._error
        if self._error is not None:
            raise NetworkError(f"standard output cannot be written: {self._error.strerror}") from self._error

    def _work(self) -> None:
        while (data := self._queue.get()) is not None:
            error: OSError | None = None
            try:
                _write_all(self._fd, data)
            except OSError as failure:
                error = failure
            if not _tell(self._loop, self._written, error) or error is not None:
                return

    def _written(self, error: OSError | None) -> None:
        self._waiting -= 1
        self._error = error
        self._progress.set()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
            select.select((), (fd,), ())


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[T], object], value: T) -> bool:
    """Call `call(value)` in the loop; False if the loop has gone."""
    with contextlib.suppress(RuntimeError):  # closed meanwhile: nobody is left to hear of it
        loop.call_soon_threadsafe(call, value)
        return True
    return False
