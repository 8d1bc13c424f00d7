"""What a race looks like: a pure picture of a connection attempt, from its trace events.

`Race` takes events in, `draw` gives lines out, at any moment; who paints them, and where, is in `views`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from warpgate_core.cli.text import Line, clean, line, milliseconds
from warpgate_core.trace import Phase, TraceEvent

__all__ = ["Race", "Row", "draw"]

SIGNAL = "signal"  # the row of offer and answer; no strategy can have a better claim to the word

_UNICODE = {"bar": "━", "failed": "✗", "won": "✓", "lost": "╸", "proven": "●", "running": "╸"}
_ASCII = {"bar": "=", "failed": "x", "won": "#", "lost": "-", "proven": "o", "running": ">"}
_STYLE = {
    "waiting": "dim",
    "running": "cyan",
    "proven": "cyan",
    "won": "bold green",
    "failed": "red",
    "lost": "dim",
}
_LEAST_BAR, _MOST_BAR = 8, 28  # columns


@dataclass(slots=True)
class Row:
    """One strategy, or the signalling.

    Args:
        name: as in the events.
        state: "waiting", "running", "proven" (a path of it stands), "won", "failed" or "lost".
        start: seconds when it began; None before.
        end: seconds when it ended; None before.
        text: the latest that it said.
    """

    name: str
    state: str = "waiting"
    start: float | None = None
    end: float | None = None
    text: str = ""

    def begin(self, at: float) -> None:
        """It has begun, if it had not."""
        if self.start is None:
            self.start = at
        if self.state == "waiting":
            self.state = "running"

    def finish(self, state: str, at: float) -> None:
        """It has ended."""
        self.begin(at)
        self.state, self.end = state, at


@dataclass(slots=True)
class Race:
    """One attempt.

    Args:
        strategies: names of those that take part, as far as known.
    """

    strategies: Iterable[str] = ()
    rows: dict[str, Row] = field(default_factory=dict)
    is_over: bool = False

    def __post_init__(self) -> None:
        for name in (SIGNAL, *self.strategies):
            self.rows[name] = Row(name)

    def feed(self, event: TraceEvent) -> None:
        """Take one event in."""
        row = self.rows.setdefault(event.strategy or SIGNAL, Row(event.strategy or SIGNAL))
        if event.step == "nominate" and event.phase is Phase.COMPLETE:
            self._won(row, event)
        elif event.strategy:
            self._of_strategy(row, event)
        else:
            self._of_session(row, event)

    def _won(self, row: Row, event: TraceEvent) -> None:
        row.finish("won", event.at)
        row.text = clean(event.detail)
        self.over(event.at)

    def _of_strategy(self, row: Row, event: TraceEvent) -> None:
        detail = clean(event.detail)
        if event.step == "strategy" and event.phase is Phase.FAILED and not event.remote:
            row.finish("failed", event.at)
            row.text = detail
        elif row.end is None:
            row.begin(event.at)
            if event.step == "prove" and event.phase is Phase.COMPLETE:
                row.state = "proven"
            who = "peer: " if event.remote else ""
            row.text = who + (detail if event.phase is Phase.FAILED else f"{event.step} {detail}".rstrip())

    def _of_session(self, row: Row, event: TraceEvent) -> None:
        detail = clean(event.detail)
        if event.phase is Phase.FAILED:
            row.finish("failed", event.at)
            row.text = detail
        elif event.step == "answer" and event.phase is Phase.COMPLETE:
            row.finish("proven", event.at)
            row.text = f"the peer answered after {milliseconds(event.at)}"
        elif event.step in ("offer", "signal") and row.end is None:
            row.begin(event.at)
            row.text = f"offer {detail}" if event.phase is Phase.COMPLETE else "sending the offer"

    def over(self, at: float) -> None:
        """The attempt has ended: who is still running has lost."""
        self.is_over = True
        for row in self.rows.values():
            if row.end is None and row.start is not None:
                row.finish("lost" if row.name != SIGNAL else "proven", at)


def draw(race: Race, now: float, width: int, *, has_unicode: bool) -> list[Line]:
    """The race as lines, one per strategy: name, bar over time, latest words.

    Args:
        race: the picture so far.
        now: seconds since it began; the right end of every bar.
        width: columns.
        has_unicode: whether more than ASCII can be shown.
    """
    glyphs = _UNICODE if has_unicode else _ASCII
    rows = [row for row in race.rows.values() if row.start is not None or not race.is_over]
    names = max((len(row.name) for row in rows), default=0)
    columns = min(max((width - names) // 3, _LEAST_BAR), _MOST_BAR)
    room = width - names - columns - 5
    found = []
    for row in rows:
        text = row.text or ("waiting" if row.state == "waiting" else "")
        style = _STYLE[row.state]
        found.append(
            line(
                (f" {row.name:<{names}} ", "bold" if row.state == "won" else ""),
                (_bar(row, now, columns, glyphs), style),
                (" " + _cut(text, room, has_unicode=has_unicode), "" if row.state == "won" else style),
            )
        )
    return found


def _bar(row: Row, now: float, columns: int, glyphs: dict[str, str]) -> str:
    if row.start is None:
        return " " * (columns + 1)
    scale = columns / now if now > 0 else 0.0
    first = min(int(row.start * scale), columns - 1)
    last = max(min(int((now if row.end is None else row.end) * scale), columns), first + 1)
    return (" " * first + glyphs["bar"] * (last - first) + glyphs[row.state]).ljust(columns + 1)


def _cut(text: str, room: int, *, has_unicode: bool) -> str:
    if len(text) <= room:
        return text
    dots = "…" if has_unicode else "..."
    return text[: max(room - len(dots), 0)] + dots if room > len(dots) else ""
