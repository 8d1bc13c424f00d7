"""The library's log on the terminal: warnings always, more with ``-v``, tracebacks with ``-vv`` only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import clean, mask

__all__ = ["log_to"]

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Handler(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        terminal = self._terminal
        if terminal.is_muted(record.name):
            return
        text = mask(clean(record.getMessage()))
        terminal.event("log", level=record.levelname.lower(), logger=record.name, message=text)
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        terminal.say(f"{record.levelname.lower()}: {text}", style)
        if record.exc_info and terminal.verbose > 1:
            for row in logging.Formatter().formatException(record.exc_info).splitlines():
                terminal.say(mask(row), "dim")


@contextmanager
def log_to(terminal: Terminal) -> Iterator[None]:
    """Send all logging to the terminal for the time of one command."""
    handler = _Handler(terminal)
    root, own = logging.getLogger(), logging.getLogger("warpgate")
    before = own.level
    root.addHandler(handler)
    own.setLevel(LEVELS[min(terminal.verbose, 2)])
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(before)
