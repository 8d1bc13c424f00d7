"""From the arguments to the exit code: the one place where errors become words."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Sequence

from warpgate_core.cli.exits import Exit, OutputGone, UsageError
from warpgate_core.cli.failure import report
from warpgate_core.cli.parser import build_parser, is_json
from warpgate_core.cli.process import ensure_standard_streams, silent_signals
from warpgate_core.cli.terminal import Terminal, point_at_nothing

__all__ = ["run"]

_MODULES = {"id": "identity"}  # where a command's module has another name


def run(argv: Sequence[str] | None) -> int:
    """See `warpgate_core.cli.main`."""
    with silent_signals(for_good=argv is None):
        if argv is None:
            ensure_standard_streams()
        words = sys.argv[1:] if argv is None else list(argv)
        try:
            args = build_parser().parse_args(words)
        except UsageError as error:
            return report(error, Terminal(json=is_json(words)))
        except (SystemExit, BrokenPipeError) as end:  # --help or --version
            return _helped(is_read=isinstance(end, SystemExit))
        terminal = Terminal(json=args.json, verbose=args.verbose, color=not args.no_color)
        code = _flushed(terminal, _command(args, terminal))
        if not terminal.has_result:
            terminal.event("result", exit_code=int(code))
        return code


def _command(args: Namespace, terminal: Terminal) -> int:
    import inspect

    from warpgate_core.cli.logs import log_to
    from warpgate_core.cli.loop import run_async

    name = _MODULES.get(args.command, args.command)
    try:
        with log_to(terminal):
            call = importlib.import_module(f"warpgate_core.cli.commands.{name}").run
            if inspect.iscoroutinefunction(call):
                return run_async(lambda: call(args, terminal), terminal, until_eof_of=args.until_eof_of)
            return int(call(args, terminal))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the person, with the right exit code
        return report(error, terminal)


def _helped(*, is_read: bool) -> int:
    """The end after ``--help``, whose reader may have gone before or during it."""
    try:
        if is_read:
            sys.stdout.flush()
            return Exit.OK
    except BrokenPipeError:
        is_read = False
    point_at_nothing(sys.stdout)
    return Exit.OUTPUT_GONE


def _flushed(terminal: Terminal, code: int) -> int:
    try:
        terminal.flush()
    except OutputGone:
        return Exit.OUTPUT_GONE
    return code
