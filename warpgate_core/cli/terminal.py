"""Where the commands write: people's words to standard error, results to standard output.

Standard output belongs to results and to the pipe's bytes, so that it can be piped; all else goes to
standard error: text for people, or one JSON object per line for programs. rich adds colours and the live
view where it is installed and standard error is a terminal; without it the words are the same.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from warpgate_core.cli.exits import OutputGone
from warpgate_core.cli.text import Line, line, mask, plain, wrapped

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Terminal", "point_at_nothing"]


class Terminal:
    """The two output streams of one run of the program.

    Args:
        json: whether the reader is a program.
        verbose: 0 to 2, how often ``-v`` was typed.
        color: False: no colours, whatever the terminal can do.
    """

    def __init__(self, *, json: bool = False, verbose: int = 0, color: bool = True) -> None:
        self.json = json
        self.verbose = verbose
        self._color = color and not os.environ.get("NO_COLOR")
        self._out, self._err = sys.stdout, sys.stderr
        self.has_result = False  # the last event was sent
        self._muted: set[str] = set()
        self._deaf = False  # nobody reads standard error any more
        for stream in (self._out, self._err):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="backslashreplace")

    # -- what the terminal can do ----------------------------------------------------------------

    @property
    def width(self) -> int | None:
        """Columns of the terminal at standard error; None if it is none."""
        return _columns(self._err)

    @property
    def out_width(self) -> int | None:
        """Columns of the terminal at standard output; None if it is none."""
        return _columns(self._out)

    @property
    def has_unicode(self) -> bool:
        """Whether standard error takes more than ASCII."""
        return (self._err.encoding or "").lower().replace("-", "").startswith("utf")

    @functools.cached_property
    def console(self) -> Console | None:
        """rich's view of standard error, None where words alone have to do."""
        return None if self.json else self._console(self._err)

    def _console(self, stream: TextIO) -> Console | None:
        if not stream.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
            return None
        try:
            from rich.console import Console
        except ImportError:
            return None
        return Console(file=stream, no_color=not self._color, highlight=False, emoji=False, markup=False)

    # -- for people ------------------------------------------------------------------------------

    def say(self, text: str | Line = "", style: str = "") -> None:
        """One line or paragraph on standard error; nothing where a program reads."""
        if self.json:
            return
        rows = wrapped(text, self.width, style=style) if isinstance(text, str) else [text]
        self.show(rows)

    def complain(self, text: str) -> None:
        """What went wrong, on standard error; nothing where a program reads."""
        mark = "warpgate: "
        first, *rest = wrapped(mark + text, self.width, style="bold")
        words = first[0][0].removeprefix(mark)
        self.show([] if self.json else [line((mark, "bold red"), (words, "bold")), *rest])

    def note(self, text: str) -> None:
        """A line that only ``-v`` shows."""
        if self.verbose:
            self.say(text, "dim")

    def mute(self, logger: str) -> None:
        """Show no warnings of this logger: the command tells the same in its own way."""
        self._muted.add(logger)

    def is_muted(self, logger: str) -> bool:
        """Whether its warnings are told otherwise."""
        return logger in self._muted and not self.verbose

    def show(self, rows: Iterable[Line]) -> None:
        """Lines on standard error."""
        for row in rows:
            self._write_line(row)

    def _write_line(self, row: Line) -> None:
        if self._deaf:
            return
        try:
            if self.console is not None:
                self.console.print(_rich(row), soft_wrap=True)
            else:
                self._err.write(mask(plain(row)) + "\n")
            self._err.flush()
        except BrokenPipeError:  # the bytes of the pipe still have a reader: go on without a word
            self._deaf = True
            point_at_nothing(self._err)

    # -- results ---------------------------------------------------------------------------------

    def result(self, text: str) -> None:
        """One line on standard output.

        Raises:
            OutputGone: nobody reads it.
        """
        try:
            self._out.write(text + "\n")
            self._out.flush()
        except BrokenPipeError as error:
            point_at_nothing(self._out)
            raise OutputGone from error

    def result_rows(self, rows: Iterable[Line]) -> None:
        """Lines on standard output, with colours if it is a terminal."""
        console = self._console(self._out)
        for row in rows:
            if console is None:
                self.result(plain(row))
            else:
                console.print(_rich(row), soft_wrap=True)

    def result_json(self, value: object) -> None:
        """One JSON value on standard output."""
        self.result(json.dumps(value, indent=2))

    # -- for programs ----------------------------------------------------------------------------

    def event(self, event: str, **fields: Any) -> None:
        """One JSON object in one line on standard error, where a program reads."""
        self.has_result = self.has_result or event == "result"
        if self.json and not self._deaf:
            try:
                self._err.write(json.dumps({"event": event} | fields) + "\n")
                self._err.flush()
            except BrokenPipeError:
                self._deaf = True
                point_at_nothing(self._err)

    # -- the end ---------------------------------------------------------------------------------

    def restore(self) -> None:
        """Show the cursor again: the last thing before a process ends at once."""
        if self.console is not None:
            self.console.show_cursor(True)

    def flush(self) -> None:
        """Write out what is buffered.

        Raises:
            OutputGone: nobody reads standard output.
        """
        try:
            self._out.flush()
        except BrokenPipeError as error:
            point_at_nothing(self._out)
            raise OutputGone from error


def _rich(row: Line) -> Any:
    from rich.text import Text

    return Text.assemble(*((mask(text), style) for text, style in row))


def _columns(stream: TextIO) -> int | None:
    if not stream.isatty():
        return None
    try:
        columns = int(os.environ.get("COLUMNS", "")) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = shutil.get_terminal_size().columns
    return max(columns, 20)


def point_at_nothing(stream: TextIO) -> None:
    """Let what is still buffered for a reader that has gone vanish, instead of failing at the exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
