"""The reader that cannot run over the end, and its writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.errors import ProtocolError
from warpgate_core.session.wire import Reader, Writer

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1), st.binary(max_size=300), PRINTABLE, st.binary())
def test_what_was_written_is_read(raw: bytes, number: int, blob: bytes, text: str, rest: bytes) -> None:
    data = bytes(Writer().raw(raw).uint(number, 4).blob(blob, 2).blob(text.encode(), 1).raw(rest))
    reader = Reader(data, "thing")
    assert reader.raw(len(raw), "raw") == raw
    assert reader.uint(4, "number") == number
    assert reader.blob(2, "blob", 300) == blob
    assert reader.text("text", 200) == text
    assert reader.rest() == rest
    reader.end()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("raw", (3, "colour")), ("uint", (3, "colour")), ("blob", (2, "colour", 10)), ("text", ("colour", 10))],
)
def test_the_error_names_the_structure_and_the_field(method: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(ProtocolError, match=r"paint ends inside its field 'colour'"):
        getattr(Reader(b"\1" if method == "text" else b"\0\1", "paint"), method)(*arguments)


def test_a_length_over_the_limit_is_refused_before_the_bytes_are_looked_for() -> None:
    with pytest.raises(ProtocolError, match="has 300 bytes, at most 299 are allowed"):
        Reader(b"\x01\x2c", "paint").blob(2, "colour", 299)
    assert Reader(b"\x01\x2c" + bytes(300), "paint").blob(2, "colour", 300) == bytes(300)


@pytest.mark.parametrize("byte", [0, 10, 27, 31, 127, 128, 255])
def test_text_is_printable_ascii(byte: int) -> None:
    with pytest.raises(ProtocolError, match="printable"):
        Reader(bytes((2, 65, byte)), "paint").text("colour", 10)


def test_nothing_may_be_left() -> None:
    reader = Reader(b"abc", "paint")
    reader.raw(1, "colour")
    with pytest.raises(ProtocolError, match="2 bytes too many"):
        reader.end()
    assert reader.rest() == b"bc"
    reader.end()


def test_a_failed_read_takes_nothing() -> None:
    reader = Reader(b"abc", "paint")
    with pytest.raises(ProtocolError):
        reader.raw(4, "colour")
    assert reader.rest() == b"abc"


@pytest.mark.parametrize(("value", "size"), [(256, 1), (1 << 32, 4), (-1, 2)])
def test_a_number_that_does_not_fit_is_our_own_defect(value: int, size: int) -> None:
    with pytest.raises(OverflowError):
        Writer().uint(value, size)
