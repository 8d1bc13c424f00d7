"""How a race is followed: a live picture, plain lines, or JSON lines.

The live picture is repainted at each event and ten times a second in between, by a timer of the event
loop; rich's own refresh thread would paint while the loop writes. When the race is over it vanishes
and one line stays, unless ``-v`` was typed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from warpgate_core.cli.race import Race, draw
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import clean, line, mask, milliseconds
from warpgate_core.trace import Phase, Trace, TraceEvent

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["JsonView", "LiveView", "PlainView", "RaceView", "event_line", "make_view"]

_REPAINT = 0.1  # s; fast enough for a running bar, slow enough for a serial line
_WIDTH = 80  # columns where there is no terminal
_NARROWEST = 50  # columns; a bar and a word side by side need as much


class RaceView(ABC):
    """Follows one race. A context manager, which puts the terminal in order at the end.

    Args:
        terminal: where to.
        title: what is going on, e.g. "connecting to 7kf3".
        strategies: names of those that take part.
        keep: leave the picture on the screen when the race is over.
    """

    def __init__(
        self, terminal: Terminal, title: str, strategies: Iterable[str], *, keep: bool = False
    ) -> None:
        self.terminal = terminal
        self.title = title
        self.keep = keep or bool(terminal.verbose)
        self.race = Race(tuple(strategies))
        self._unwatch: Callable[[], object] | None = None

    def watch(self, trace: Trace) -> None:
        """Follow this trace from its beginning."""
        for event in trace:
            self.update(event)
        self._unwatch = trace.watch(self.update)

    def update(self, event: TraceEvent) -> None:
        """One event has happened."""
        self.race.feed(event)
        self.show(event)

    @abstractmethod
    def show(self, event: TraceEvent) -> None:
        """Show it; it is in `race` already."""

    def start(self) -> None:  # noqa: B027 - optional
        """Begin to show."""

    def stop(self) -> None:  # noqa: B027 - optional
        """Leave the terminal in order."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._unwatch is not None:
            self._unwatch()
        self.stop()


class JsonView(RaceView):
    """One JSON object per event."""

    def show(self, event: TraceEvent) -> None:
        """See `RaceView`."""
        fields: dict[str, Any] = dataclasses.asdict(event)
        fields["at"] = round(event.at, 6)
        fields["detail"] = mask(clean(event.detail))
        self.terminal.event("trace", **fields)


class PlainView(RaceView):
    """One line per event: all of them with ``-v``, else those that matter."""

    _last = 0.0

    def start(self) -> None:
        """See `RaceView`."""
        self.terminal.say(self.title)

    def show(self, event: TraceEvent) -> None:
        """See `RaceView`."""
        if self.terminal.verbose or _matters(event):
            self.terminal.show([event_line(event)])
        self._last = event.at

    def stop(self) -> None:
        """See `RaceView`."""
        if self.keep and self._last:
            width = self.terminal.width or _WIDTH
            self.terminal.show(draw(self.race, self._last, width, has_unicode=self.terminal.has_unicode))


class LiveView(RaceView):
    """The picture of the race, repainted in place. Needs rich and a terminal."""

    def __init__(
        self, terminal: Terminal, title: str, strategies: Iterable[str], *, keep: bool = False
    ) -> None:
        super().__init__(terminal, title, strategies, keep=keep)
        self._loop = asyncio.get_running_loop()
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._ended = 0.0

    def start(self) -> None:
        """See `RaceView`."""
        from rich.live import Live

        self._began = self._loop.time()
        self._live = Live(
            console=self.terminal.console,
            auto_refresh=False,
            transient=not self.keep,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._tick()

    def watch(self, trace: Trace) -> None:
        """See `RaceView`."""
        self._began = self._loop.time() - trace.elapsed
        super().watch(trace)

    def show(self, event: TraceEvent) -> None:
        """See `RaceView`."""
        if self.race.is_over and not self._ended:
            self._ended = event.at
        if self.terminal.verbose:
            self.terminal.show([event_line(event)])
        self._paint()

    def stop(self) -> None:
        """See `RaceView`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._live is not None:
            self._paint()
            self._live.stop()

    def _tick(self) -> None:
        self._paint()
        self._timer = self._loop.call_later(_REPAINT, self._tick)

    def _paint(self) -> None:
        from rich.console import Group
        from rich.text import Text

        if self._live is None:
            return
        now = self._ended or self._loop.time() - self._began
        width = self.terminal.width or 80
        rows = [line((self.title, "bold"), (f"  {milliseconds(now)}", "dim"))]
        rows += draw(self.race, now, width, has_unicode=self.terminal.has_unicode)
        texts = [Text.assemble(*row, no_wrap=True, overflow="crop") for row in rows]
        self._live.update(Group(*texts), refresh=True)


def make_view(terminal: Terminal, title: str, strategies: Iterable[str], *, keep: bool = False) -> RaceView:
    """The view that fits this terminal. For the arguments see `RaceView`."""
    kind: type[RaceView] = PlainView
    if terminal.json:
        kind = JsonView
    elif terminal.console is not None and (terminal.width or 0) >= _NARROWEST:
        kind = LiveView
    return kind(terminal, title, strategies, keep=keep)


def event_line(event: TraceEvent) -> tuple[tuple[str, str], ...]:
    """One event as a line."""
    style = {"failed": "red", "complete": "green"}.get(event.phase, "dim")
    phase = "" if event.phase is Phase.NOTE else f" {event.phase}"
    who = "peer's " if event.remote else ""
    return line(
        (f"{event.at * 1000:7.0f} ms  ", "dim"),
        (f"{event.strategy or 'session':<10} ", "bold"),
        (f"{who}{event.step}{phase}", style),
        ("" if not event.detail else f"  {mask(clean(event.detail))}", ""),
    )


def _matters(event: TraceEvent) -> bool:
    """Whether it is shown without ``-v``."""
    if not event.strategy:
        return event.phase in (Phase.COMPLETE, Phase.FAILED) and event.step != "offer"
    if event.step == "strategy":
        return event.phase is Phase.FAILED and not event.remote
    return event.step == "nominate"
