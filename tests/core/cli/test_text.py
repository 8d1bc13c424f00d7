"""Text for terminals: what must never be shown, and layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.cli.text import clean, joined, line, mask, milliseconds, plain, size, table, wrapped


@given(st.text())
def test_clean_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert clean(shown) == shown


def test_clean_shows_what_it_disarmed() -> None:
    assert clean("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb c\x202ed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtts://user:pa55@host:1 is down", "mqtts://***@host:1 is down"),
        ("turn:user:pa55@host:3478", "turn:***@host:3478"),
        ("two: ws://a:b@c and mqtt://d:e@f", "two: ws://***@c and mqtt://***@f"),
        ("mqtt://user:with/slash@host", "mqtt://***@host"),
        ("203.0.113.1:1883 has none", "203.0.113.1:1883 has none"),
        ("[2001:db8::1]:1883", "[2001:db8::1]:1883"),
    ],
)
def test_mask_hides_credentials_and_nothing_else(text: str, shown: str) -> None:
    assert mask(text) == shown


CELLS = st.lists(st.tuples(*[st.text("abc ", max_size=30)] * 3), min_size=1, max_size=5)


@given(CELLS, st.integers(40, 120))
def test_a_table_fits_and_loses_no_word(rows: list[tuple[str, str, str]], width: int) -> None:
    made = table(rows, width)
    text = "\n".join(plain(row) for row in made)
    last_column_starts = sum(max(len(row[i]) for row in rows) + 2 for i in range(2))
    if last_column_starts < width - 16:
        assert all(len(plain(row)) <= width for row in made)
    assert sorted(text.split()) == sorted(" ".join(cell for row in rows for cell in row).split())


def test_a_table_without_a_terminal_is_one_line_per_row() -> None:
    rows = [("a", "x" * 500), ("bb", "y")]
    assert [plain(row) for row in table(rows, None)] == ["a   " + "x" * 500, "bb  y"]


def test_a_table_in_a_narrow_terminal_puts_the_last_cell_below() -> None:
    rows = [("a" * 20, "some words that do not fit beside it")]
    found = [plain(row) for row in table(rows, 30)]
    assert found[0] == "a" * 20
    assert " ".join(found[1:]).split() == rows[0][1].split()
    assert all(len(row) <= 30 for row in found)


def test_header_and_no_rows() -> None:
    assert table([], 80) == []
    assert plain(table([("a", "b")], 80, ("one", "two"))[0]) == "one  two"


def test_wrapped_indents_what_follows() -> None:
    found = [plain(row) for row in wrapped("one two three four five six", 20, "  ")]
    assert found == ["one two three four", "  five six"]
    assert wrapped("", 40) == [line("")]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (9_999, "9999 bytes"), (10_000, "10.0 kB"), (10_500_000, "10.5 MB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers_and_lists_for_people() -> None:
    assert [milliseconds(s) for s in (0.0004, 0.0384, 2.314)] == ["0.4 ms", "38 ms", "2.31 s"]
    assert [joined(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
