"""The process around a command: standard streams and signals.

Before the event loop runs and after it there is nothing to close, so there a signal ends the process
without a word: Python's own KeyboardInterrupt would show a traceback wherever it happens to strike, deep
in an import or in the interpreter's shutdown. While the loop runs, `loop` handles them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from warpgate_core.cli.exits import of_signal

__all__ = ["SIGNALS", "end_now", "ensure_standard_streams", "silent_signals"]

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)


def ensure_standard_streams() -> None:
    """Open /dev/null in place of a standard stream that was closed (``<&-``).

    Else the next socket would get its number, and be taken for standard output.
    """
    for fd, mode, name in ((0, os.O_RDONLY, "stdin"), (1, os.O_WRONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def silent_signals(*, for_good: bool) -> Iterator[None]:
    """Let signals end the process without a traceback.

    Args:
        for_good: leave it so; else the handlers that were there come back.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP: leave that so
                before[number] = signal.signal(number, end_now)
    try:
        yield
    finally:
        if not for_good:
            for number, handler in before.items():
                signal.signal(number, handler)


def end_now(number: int, _frame: FrameType | None) -> None:
    """A signal handler: the exit code of the signal, and nothing else."""
    os._exit(of_signal(number))
