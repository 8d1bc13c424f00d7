"""Errors become words and exit codes."""

from __future__ import annotations

import json
import logging

import pytest

from warpgate_core import errors
from warpgate_core.cli.exits import Exit, OutputGone, UsageError, code_for, leaves
from warpgate_core.cli.failure import report
from warpgate_core.cli.logs import log_to
from warpgate_core.cli.terminal import Terminal

CODES = [
    (errors.ConnectError("x", [errors.NetworkError("y")]), Exit.NO_CONNECTION),
    (UsageError("x"), Exit.USAGE),
    (errors.AddressError("x"), Exit.USAGE),
    (errors.InputError("x"), Exit.USAGE),
    (errors.ConfigError("x"), Exit.SETUP),
    (errors.IdentityError("x"), Exit.SETUP),
    (errors.PluginError("x"), Exit.SETUP),
    (errors.NetworkError("x"), Exit.NETWORK),
    (errors.NoBrokerError("x"), Exit.NETWORK),
    (errors.PeerLostError("x"), Exit.BROKEN),
    (errors.PipeClosedError("x"), Exit.BROKEN),
    (errors.ProtocolError("x"), Exit.BROKEN),
    (OutputGone(), Exit.OUTPUT_GONE),
    (BrokenPipeError(), Exit.OUTPUT_GONE),
    (ZeroDivisionError("x"), Exit.DEFECT),
    (errors.NodeClosedError("x"), Exit.DEFECT),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=[type(error).__name__ for error, _ in CODES])
def test_exit_codes(error: Exception, code: Exit) -> None:
    assert code_for(error) is code


Captured = pytest.CaptureFixture[str]


FAILED = errors.ConnectError(
    "7kf3 answered, but no path came about",
    [
        errors.StrategyError("direct", "dialling", "refused \x1b[31m"),
        errors.StrategyError("turn", "allocating", "mqtt://user:secret@host said no"),
        errors.RefusedError("policy", "its policy"),
    ],
)


def test_a_failed_connection_is_a_sentence_and_a_table(capsys: Captured) -> None:
    assert report(FAILED, Terminal()) == Exit.NO_CONNECTION
    shown = capsys.readouterr()
    rows = shown.err.splitlines()
    assert rows[0] == "warpgate: 7kf3 answered, but no path came about"
    assert [row.split()[0] for row in rows[1:]] == ["direct", "turn", "session"]
    assert "secret" not in shown.err
    assert "\x1b" not in shown.err
    assert shown.out == ""


def test_a_failed_connection_for_programs(capsys: Captured) -> None:
    FAILED.__notes__ = ["try this"]
    report(FAILED, Terminal(json=True))
    (row,) = capsys.readouterr().err.splitlines()
    found = json.loads(row)
    assert found["event"] == "result"
    assert (found["exit_code"], found["kind"], found["notes"]) == (1, "ConnectError", ["try this"])
    assert [row["strategy"] for row in found["strategies"]] == ["direct", "turn", ""]
    assert found["strategies"][0]["stage"] == "dialling"
    assert "secret" not in row


def test_errors_in_a_task_group_are_told_as_what_they_are(capsys: Captured) -> None:
    inner = ExceptionGroup("x", [errors.NetworkError("port 80 is taken"), BrokenPipeError()])
    group = ExceptionGroup("unhandled errors in a TaskGroup", [inner])
    assert [type(leaf) for leaf in leaves(group)] == [errors.NetworkError, BrokenPipeError]
    assert report(group, Terminal()) == Exit.NETWORK
    assert capsys.readouterr().err == "warpgate: port 80 is taken\n"


def test_a_defect_says_so_and_shows_where_on_request(capsys: Captured) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("of mqtt://user:secret@host")
    assert report(caught.value, Terminal()) == Exit.DEFECT
    shown = capsys.readouterr().err
    assert "this is a defect: ZeroDivisionError" in shown
    assert "Traceback" not in shown
    report(caught.value, Terminal(verbose=2))
    more = capsys.readouterr().err
    assert "Traceback" in more
    assert "secret" not in shown + more


def test_the_log_is_warnings_more_with_v_and_tracebacks_with_vv(
    capsys: Captured,
) -> None:
    log = logging.getLogger("warpgate.somewhere")

    def speak() -> str:
        log.debug("fine")
        log.info("good")
        try:
            raise ValueError("inside")
        except ValueError:
            log.exception("bad \x07 of mqtt://u:secret@h")
        return capsys.readouterr().err

    for verbose, words in ((0, ["error"]), (1, ["info", "error"]), (2, ["debug", "info", "error"])):
        with log_to(Terminal(verbose=verbose)):
            said = speak()
        assert [row.split(":")[0] for row in said.splitlines() if row.split(":")[0] in words] == words
        assert ("Traceback" in said) is (verbose == 2)
        assert "secret" not in said
        assert "\x07" not in said
    with log_to(Terminal(json=True)):
        assert {json.loads(row)["event"] for row in speak().splitlines()} == {"log"}
    terminal = Terminal()
    terminal.mute(log.name)
    with log_to(terminal):
        assert speak() == ""
