"""How an error is told: one or two sentences, what to do, and for a failed connection a line per strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from warpgate_core.cli.exits import Exit, UsageError, code_for, leaves
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import Line, clean, line, mask, table
from warpgate_core.errors import ConnectError, RefusedError, StrategyError

__all__ = ["report", "strategy_rows"]


def report(error: BaseException, terminal: Terminal) -> int:
    """Tell an error that ends the program.

    Returns:
        The exit code.
    """
    one = min(leaves(error), key=lambda leaf: _weight(code_for(leaf)))
    code = code_for(one)
    if code is Exit.OUTPUT_GONE:
        return code
    text = _sentence(one, code)
    notes = [mask(clean(note)) for note in getattr(one, "__notes__", ())]
    kind = type(one).__name__
    terminal.event("result", exit_code=code.value, kind=kind, error=text, notes=notes, **_details(one))
    terminal.complain(text)
    if isinstance(one, ConnectError):
        terminal.show([] if terminal.json else strategy_rows(one, terminal.width))
    for note in notes:
        terminal.say(note)
    if isinstance(one, UsageError) and one.command:
        terminal.say(f"`{one.command} --help` shows what can be typed")
    if terminal.verbose > 1:
        import traceback  # 8 ms, and mostly not needed

        for row in "".join(traceback.format_exception(error)).splitlines():
            terminal.say(line((mask(row), "dim")))
    return code


def strategy_rows(error: ConnectError, width: int | None) -> list[Line]:
    """How far each strategy came, as a table."""
    rows = [
        ((f"  {item['strategy'] or 'session'}", "bold"), item["detail"] or item["stage"])
        for item in _strategies(error.exceptions)
    ]
    return table(rows, width)


def _weight(code: Exit) -> tuple[bool, bool, int]:
    """Of several errors the one to tell: a defect first, the reader of our output that has gone last."""
    return (code is Exit.OUTPUT_GONE, code is not Exit.DEFECT, code.value)


def _sentence(error: BaseException, code: Exit) -> str:
    if isinstance(error, ConnectError):
        return mask(clean(error.message))
    text = mask(clean(str(error)))
    if code is Exit.DEFECT:
        return f"this is a defect: {type(error).__name__}: {text or 'no text'} (-vv shows where)"
    return text or type(error).__name__


def _details(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, ConnectError):
        return {}
    return {"strategies": _strategies(error.exceptions)}


def _strategies(errors: Iterable[Exception]) -> list[dict[str, str]]:
    found = []
    for error in errors:
        name = stage = ""
        text = str(error)
        if isinstance(error, StrategyError):
            name, stage, text = error.strategy, error.stage, error.detail
        elif isinstance(error, RefusedError):
            stage = "refused"
        row = {"strategy": name, "stage": stage, "detail": text}
        found.append({key: mask(clean(value)) for key, value in row.items()})
    return found
