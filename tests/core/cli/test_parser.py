"""What can be typed, and what is said to the rest."""

from __future__ import annotations

import pytest

from warpgate_core.cli.exits import MEANING, Exit, UsageError
from warpgate_core.cli.parser import COMMANDS, build_parser, is_json

WRONG = [
    ([], "COMMAND"),
    (["nonsense"], "'nonsense'"),
    (["connect"], "ADDRESS"),
    (["connect", "a", "--port", "65536"], "--port: '65536' is no whole number from 0 to 65535"),
    (["connect", "a", "--port", "-1"], "--port"),
    (["connect", "a", "--port", "\u0661"], "--port"),
    (["connect", "a", "--timeout", "0"], "--timeout: '0' is no number of seconds"),
    (["connect", "a", "--timeout", "nan"], "--timeout"),
    (["connect", "a", "--timeout", "inf"], "--timeout"),
    (["connect", "a", "--timeout", "soon"], "--timeout"),
    (["connect", "a", "--linger", "-1"], "--linger"),
    (["connect", "a", "--transport", "sctp"], "--transport: invalid choice: 'sctp'"),
    (["connect", "a", "--plug", "turn"], "--plug"),
    (["connect", "a", "-4", "-6"], "not allowed with"),
    (["connect", "a", "--broker"], "--broker: expected one argument"),
    (["connect", "a", "--nonsense"], "--nonsense"),
    (["listen", "--echo", "--exec", "cat"], "not allowed with"),
    (["listen", "extra"], "extra"),
    (["broker", "--port", "x"], "--port"),
    (["demo", "--size", "0"], "--size: '0' is no whole number from 1 to 1000"),
    (["id", "--port", "1"], "--port"),
]


@pytest.mark.parametrize(("words", "text"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_input_is_told_by_its_option(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_parser().parse_args(words)
    assert text in str(caught.value)
    assert caught.value.command.startswith("warpgate")


def test_common_options_stand_before_or_after_the_command() -> None:
    parse = build_parser().parse_args
    for words in (["--json", "-v", "id"], ["id", "--json", "-v"], ["-v", "id", "--json"]):
        found = parse(words)
        assert (found.json, found.verbose, found.no_color) == (True, 1, False)
    assert parse(["id", "-vv"]).verbose == 2
    assert parse(["id"]).until_eof_of is None


def test_repeatable_options_and_defaults() -> None:
    found = build_parser().parse_args(
        ["connect", "wg1", "abc", "--broker", "a", "--broker", "b", "--plugin", "x", "-6"]
    )
    assert (found.address, found.broker, found.plugin, found.family) == (["wg1", "abc"], ["a", "b"], ["x"], 6)
    assert (found.transport, found.linger, found.timeout, found.port) == ("auto", 1.0, None, None)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_eighty_columns_and_tells_the_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*command.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert max(len(row) for row in shown.splitlines()) <= 80
    for code, text in MEANING.items():
        assert f"{code.value:>3}  {text}" in shown
    assert "until-eof" not in shown


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANING) == set(Exit)


def test_json_is_seen_before_anything_is_parsed() -> None:
    assert is_json(["connect", "--json"])
    assert not is_json(["connect", "--", "--json"])
    assert not is_json([])
