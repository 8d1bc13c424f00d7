"""The terminal commands: ``warpgate`` and ``python -m warpgate_core``.

Only this package prints, and nothing in the library imports it. Nothing heavy is imported before a command
needs it: ``--help`` and a wrong option answer with argparse alone. Rejected: click and typer (7 and 13 ms
of import against 2, and nothing here needs them).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None: those of the process, which then also gets
            signal handlers and standard streams fit for a program that ends with this call.

    Returns:
        The exit code, see `warpgate_core.cli.exits.Exit`.
    """
    if argv is None:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of the next import either
    from warpgate_core.cli.app import run

    return run(argv)
