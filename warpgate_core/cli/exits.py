"""Exit codes, and which error leads to which: scripts rely on them, docs/cli.md lists them.

0 to 5 are our own, small and in the order in which a person asks: did it connect, did I type it right, is
it set up right, is it the network, did it break later. 70 is EX_SOFTWARE of sysexits.h; 128 plus the
number of the signal is what shells report for a program that a signal ended.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterator

from warpgate_core.errors import (
    AddressError,
    ConfigError,
    ConnectError,
    IdentityError,
    InputError,
    NetworkError,
    PipeError,
    PluginError,
    RemoteError,
)

__all__ = ["MEANING", "Exit", "OutputGone", "UsageError", "code_for", "leaves", "of_signal"]


class Exit(enum.IntEnum):
    """What the process says at its end."""

    OK = 0
    NO_CONNECTION = 1
    USAGE = 2
    SETUP = 3
    NETWORK = 4
    BROKEN = 5
    DEFECT = 70
    HANGUP = 129
    INTERRUPTED = 130
    OUTPUT_GONE = 141
    TERMINATED = 143


MEANING = {
    Exit.OK: "done",
    Exit.NO_CONNECTION: "no connection came about",
    Exit.USAGE: "a command, option or address is wrong",
    Exit.SETUP: "identity, environment variable, plugin or a missing extra",
    Exit.NETWORK: "the network, a broker, or a port that is taken",
    Exit.BROKEN: "the connection broke before its end",
    Exit.DEFECT: "a defect in warpgate; -vv shows where",
    Exit.HANGUP: "the terminal went away",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
    Exit.OUTPUT_GONE: "whoever read standard output has gone",
    Exit.TERMINATED: "ended by SIGTERM",
}


class UsageError(InputError):
    """What was typed cannot be used.

    Args:
        text: what is wrong.
        command: whose ``--help`` tells more, e.g. "warpgate connect"; "" if it would not help.
    """

    def __init__(self, text: str, command: str = "") -> None:
        super().__init__(text)
        self.command = command


class OutputGone(Exception):  # noqa: N818 - no error of anybody: the reader had enough
    """The reader of our standard output has closed it."""


_BY_ERROR: tuple[tuple[type[BaseException], Exit], ...] = (
    (ConnectError, Exit.NO_CONNECTION),
    (UsageError, Exit.USAGE),
    (AddressError, Exit.USAGE),
    (ConfigError, Exit.SETUP),
    (IdentityError, Exit.SETUP),
    (PluginError, Exit.SETUP),
    (InputError, Exit.USAGE),
    (PipeError, Exit.BROKEN),
    (RemoteError, Exit.BROKEN),
    (NetworkError, Exit.NETWORK),
    (OutputGone, Exit.OUTPUT_GONE),
    (BrokenPipeError, Exit.OUTPUT_GONE),
)


def code_for(error: BaseException) -> Exit:
    """The exit code of a program that ends with this error."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return Exit.DEFECT


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside an exception group, which a task group may have put around them.

    A `ConnectError` is one error: its text says what a person needs.
    """
    if isinstance(error, BaseExceptionGroup) and not isinstance(error, ConnectError):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def of_signal(number: int) -> Exit:
    """The exit code of a program that a signal ended."""
    return Exit(128 + signal.Signals(number))
