"""netcat: a pipe joined to a source and a sink of bytes.

A stream ends in two halves, as TCP does: the end of our input ends our direction, and what the peer still
has to say comes through. The peer's end closes our output, and not our input: there may be megabytes of
it left. Whether the peer has ended one direction or closed, TCP does not say, so the commands choose how
long input may be silent then: at a terminal not at all, since nobody would know what to type next.

Datagrams have no half close. So the side whose input ends closes the pipe after some silence, in which an
answer to the last message may come; an input that was empty from the beginning (/dev/null) closes
nothing, so that one can only receive, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from warpgate_core.errors import PeerLostError, PipeClosedError, PipeError
from warpgate_core.pipe import DatagramPipe, Pipe, StreamPipe
from warpgate_core.pipe.stream import LINGER

__all__ = ["MESSAGE", "Input", "Output", "Silence", "Totals", "echo", "join", "messages"]

MESSAGE: Final = 1200  # bytes per datagram; fits every path (RFC 9000 section 14)
_READ: Final = 256 * 1024  # bytes; what asyncio takes from a socket at once


class Input(Protocol):
    """Where bytes come from; see `Source`."""

    @property
    def ends_pipe(self) -> bool:
        """Whether its end is the end of the whole pipe, and not of our direction only."""

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""


class Output(Protocol):
    """Where bytes go; see `Sink`."""

    async def write(self, data: bytes) -> None:
        """Take some."""

    async def flush(self) -> None:
        """All of them have gone out."""

    async def end(self) -> None:
        """There are no more."""


@dataclass(slots=True)
class Totals:
    """Bytes that passed."""

    sent: int = 0
    received: int = 0


async def join(
    pipe: Pipe,
    source: Input,
    sink: Output,
    *,
    linger: float,
    totals: Totals,
    last: bool = True,
    patience: float | None = None,
) -> None:
    """Pass bytes both ways until both are done. The caller closes the pipe.

    Args:
        pipe: fresh, nobody else uses it.
        source: what is sent.
        sink: gets what is received.
        linger: seconds of silence after the end of input, for a pipe of datagrams.
        totals: is counted up as bytes pass.
        last: end the sink with the peer's direction; False leaves it open for the next pipe.
        patience: seconds for which the source may be silent after the peer has ended its direction of a
            stream; None: as long as it likes.

    Raises:
        PipeError: the pipe broke before it was done.
        OutputGone, NetworkError, InputError: the sink or the source failed.
    """
    if isinstance(pipe, StreamPipe):
        await _Stream(pipe, source, sink, totals, last=last, patience=patience).run()
    elif isinstance(pipe, DatagramPipe):
        await _Datagrams(pipe, source, sink, totals, linger).run()
    else:
        raise PipeError(f"{type(pipe).__name__} is a kind of pipe that the terminal does not know")
    await sink.flush()


async def echo(pipe: Pipe, totals: Totals) -> None:
    """Send back what comes, until the peer has ended.

    Raises:
        PipeError: the pipe broke before.
    """
    if isinstance(pipe, StreamPipe):
        reader, writer = pipe.streams(_READ)
        try:
            while data := await reader.read(_READ):
                totals.received += len(data)
                writer.write(data)
                await writer.drain()
                totals.sent += len(data)
            writer.transport.set_write_buffer_limits(0)
            await writer.drain()
        except OSError as error:
            raise PeerLostError(f"the connection to {pipe.path.remote} broke: {error}") from error
        finally:
            writer.close()
        return
    async for message in pipe:
        totals.received += len(message)
        await pipe.send(message)
        totals.sent += len(message)


async def _both(up: Coroutine[Any, Any, bool], down: Coroutine[Any, Any, bool]) -> None:
    """Run both directions. Each says at its end whether the other may go on."""
    tasks = [asyncio.ensure_future(up), asyncio.ensure_future(down)]
    try:
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if all(task.result() for task in done):
            for task in rest:
                await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # the one that counts was raised above; the other is its consequence


class _Stream:
    """A pipe of bytes, through asyncio's own streams on the bare connection."""

    def __init__(
        self,
        pipe: StreamPipe,
        source: Input,
        sink: Output,
        totals: Totals,
        *,
        last: bool,
        patience: float | None,
    ) -> None:
        self._source, self._sink, self._totals = source, sink, totals
        self._last, self._patience = last, patience
        self._remote = pipe.path.remote
        self._reader, self._writer = pipe.streams(_READ)
        self._peer_ended = False
        self._silence = Silence()

    async def run(self) -> None:
        try:
            await _both(self._up(), self._down())
            if not self._peer_ended:
                await self._discard()
        finally:
            self._writer.close()

    async def _discard(self) -> None:
        """Read what nobody wants, for a moment: closing now would reset the connection (RFC 2525 section
        2.17), and the peer would lose the last that we sent."""
        with contextlib.suppress(TimeoutError, OSError):  # then it is over in another way
            async with asyncio.timeout(LINGER):
                while await self._reader.read(_READ):
                    pass

    async def _up(self) -> bool:
        try:
            while data := await self._read():
                self._writer.write(data)
                await self._writer.drain()
                self._totals.sent += len(data)
            self._writer.transport.set_write_buffer_limits(0)
            await self._writer.drain()  # now that means: until all of it has gone out
            self._writer.write_eof()
        except OSError as error:
            raise self._lost(error) from error
        self._silence.give_up()
        return not self._source.ends_pipe

    async def _read(self) -> bytes:
        self._silence.begin()
        try:
            return await self._source.read()
        finally:
            self._silence.end()

    async def _down(self) -> bool:
        try:
            while data := await self._reader.read(_READ):
                self._totals.received += len(data)
                await self._sink.write(data)
        except OSError as error:
            raise self._lost(error) from error
        self._peer_ended = True
        if self._last:
            await self._sink.end()
        if self._patience is None:
            return True
        await self._silence.last(self._patience)
        return False

    def _lost(self, error: BaseException) -> PeerLostError:
        if self._peer_ended:
            return PeerLostError(
                f"the peer at {self._remote} closed the pipe before it had taken all we sent"
            )
        return PeerLostError(f"the connection to {self._remote} broke: {error}")


class _Datagrams:
    """A pipe of messages."""

    def __init__(
        self, pipe: DatagramPipe, source: Input, sink: Output, totals: Totals, linger: float
    ) -> None:
        self._pipe, self._source, self._sink, self._totals = pipe, source, sink, totals
        self._linger = linger
        self._silence = Silence()

    async def run(self) -> None:
        await _both(self._up(), self._down())

    async def _up(self) -> bool:
        try:
            async for message in messages(self._source):
                await self._pipe.send(message)
                self._totals.sent += len(message)
        except PipeClosedError:
            return True  # the peer closed: `_down` sees it too, when it has read what came before
        if not (self._totals.sent or self._source.ends_pipe):
            return True
        await self._silence.last(self._linger)
        return False

    async def _down(self) -> bool:
        while True:
            self._silence.begin()
            try:
                message = await self._pipe.recv()
            except PipeClosedError:
                return False
            finally:
                self._silence.end()
            self._totals.received += len(message)
            await self._sink.write(message)


class Silence:
    """Notices when a wait for bytes has lasted for too long, once that matters."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._allowed: float | None = None
        self._is_waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A wait begins."""
        self._is_waiting = True
        self._follow()

    def end(self) -> None:
        """That wait has ended."""
        self._is_waiting = False
        self._follow()

    async def last(self, seconds: float) -> None:
        """Return when a wait has lasted `seconds`, counted from now at the earliest, or on `give_up`."""
        self._allowed = seconds
        self._follow()
        try:
            await self._over.wait()
        finally:
            self._allowed = None
            self._follow()

    def give_up(self) -> None:
        """There will be no further wait."""
        self._over.set()

    def _follow(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_waiting and self._allowed is not None:
            self._timer = self._loop.call_later(self._allowed, self._over.set)


async def messages(source: Input) -> AsyncIterator[bytes]:
    """What comes in as messages: each line one, long ones cut at `MESSAGE` bytes; nothing is held back."""
    while data := await source.read():
        for row in io.BytesIO(data):
            for start in range(0, len(row), MESSAGE):
                yield row[start : start + MESSAGE]
