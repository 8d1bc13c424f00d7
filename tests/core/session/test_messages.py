"""Offer, answer, refusal, message, end: one encoding per value, and nothing else is read."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.session.damage import flips, read, refused_when_cut
from tests.core.session.vectors import EPHEMERAL_I, SESSION, answer, offer
from warpgate_core.errors import InputError, ProtocolError
from warpgate_core.session.messages import (
    MAX_SECTIONS,
    Answer,
    End,
    Message,
    MessageUse,
    Offer,
    Refusal,
    RefusalCode,
    SessionMessage,
    decode,
)
from warpgate_core.signal.envelope import MAX_PAYLOAD
from warpgate_core.strategy import MAX_SECTION

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,6}){0,2}", fullmatch=True)
LINES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
IDS = st.binary(min_size=16, max_size=16)
KEYS = st.binary(min_size=32, max_size=32)
SECTIONS = st.dictionaries(NAMES, st.none() | st.binary(max_size=40), max_size=MAX_SECTIONS)
TRANSPORTS = st.sampled_from([frozenset({"tcp"}), frozenset({"udp"}), frozenset({"tcp", "udp"})])
TIMEOUTS = st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000)
ADDRESSES = st.binary(max_size=60)
USES = st.sampled_from([MessageUse.DATA, MessageUse.SECTION])
MESSAGES: st.SearchStrategy[SessionMessage] = st.one_of(
    st.builds(Offer, IDS, KEYS, TRANSPORTS, TIMEOUTS, ADDRESSES, SECTIONS),
    st.builds(Answer, IDS, KEYS, KEYS, ADDRESSES, SECTIONS),
    st.builds(Refusal, IDS, KEYS, st.sampled_from(RefusalCode), LINES),
    st.builds(Message, IDS, NAMES, st.binary(max_size=MAX_SECTION), USES),
    st.builds(Message, IDS, NAMES, LINES.map(str.encode), st.just(MessageUse.FAILED)),
    st.builds(End, IDS, LINES, st.lists(st.tuples(NAMES, LINES), max_size=MAX_SECTIONS).map(tuple)),
)
ONE_OF_EACH: tuple[SessionMessage, ...] = (
    offer(),
    answer(),
    Refusal(SESSION, bytes(32), RefusalCode.BUSY, "too many"),
    Message(SESSION, "turn", b"data", MessageUse.DATA),
    Message(SESSION, "turn", b"no relay", MessageUse.FAILED),
    End(SESSION, "given up", (("direct", "nobody there"), ("turn", "401"))),
)


@given(MESSAGES)
def test_what_was_written_is_read(message: SessionMessage) -> None:
    assert decode(message.encode()) == message


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda m: type(m).__name__)
def test_truncations_and_flips(message: SessionMessage) -> None:
    data = message.encode()
    refused_when_cut(data, decode)
    for damaged in flips(data):
        value = read(damaged, decode)
        assert value != message
        if isinstance(value, Refusal) and value.code is RefusalCode.OTHER:
            continue  # the one place where a reader takes what it does not know
        assert value is None or value.encode() == damaged  # type: ignore[attr-defined]


@given(st.binary(max_size=120) | st.binary(max_size=100).map(lambda data: b"\1\1" + data))
def test_noise_is_refused_or_canonical(data: bytes) -> None:
    value = read(data, decode)
    assert value is None or isinstance(value, Refusal) or value.encode() == data  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda m: type(m).__name__)
def test_nothing_may_follow(message: SessionMessage) -> None:
    with pytest.raises(ProtocolError, match="too many"):
        decode(message.encode() + b"\0")


def test_another_version_says_who_must_update() -> None:
    for version in (0, 2, 255):
        data = bytes((1, version)) + offer().encode()[2:]
        with pytest.raises(ProtocolError, match=rf"version {version}, this node speaks 1; update"):
            decode(data)


def test_an_unknown_kind_is_refused() -> None:
    for kind in (0, 6, 255):
        with pytest.raises(ProtocolError, match=f"unknown kind of session message: {kind}"):
            decode(bytes((kind,)) + offer().encode()[1:])


TRANSPORTS_AT = 2 + 16 + 32


@pytest.mark.parametrize("bits", [0, 4, 5, 7, 128, 255])
def test_transports_are_tcp_udp_or_both(bits: int) -> None:
    data = bytearray(offer().encode())
    data[TRANSPORTS_AT] = bits
    with pytest.raises(ProtocolError, match="transports"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("seconds", "read_as"),
    [
        (0.0, 0.0),
        (-3.0, 0.0),
        (0.0004, 0.0),
        (1.5, 1.5),
        (20, 20.0),
        (1e9, (2**32 - 1) / 1000),
        (math.inf, (2**32 - 1) / 1000),
    ],
)
def test_a_timeout_is_bounded_and_kept_to_the_millisecond(seconds: float, read_as: float) -> None:
    made = dataclasses.replace(offer(), timeout=seconds)
    again = decode(made.encode())
    assert isinstance(again, Offer)
    assert again.timeout == read_as


def _with_sections(count: int, sections: bytes) -> bytes:
    bare = dataclasses.replace(offer(), sections={}).encode()
    return bare[:-1] + bytes((count,)) + sections


def _section(name: bytes, present: int, data: bytes = b"") -> bytes:
    body = len(data).to_bytes(2, "big") + data if present else b""
    return bytes((len(name),)) + name + bytes((present,)) + body


def test_the_hand_made_sections_are_right() -> None:
    read_back = decode(_with_sections(2, _section(b"a", 1, b"x") + _section(b"b", 0)))
    assert isinstance(read_back, Offer)
    assert read_back.sections == {"a": b"x", "b": None}


@pytest.mark.parametrize(
    ("count", "sections", "why"),
    [
        (2, _section(b"b", 0) + _section(b"a", 0), "in order of name"),
        (2, _section(b"a", 0) + _section(b"a", 1, b"x"), "come once"),
        (1, _section(b"a", 2, b""), "not 2"),
        (1, _section(b"", 0), "cannot be the name"),
        (1, _section(b"A", 0), "cannot be the name"),
        (1, _section(b"a b", 0), "cannot be the name"),
        (1, _section(b"a\n", 0), "printable"),
        (1, _section(b"a" * 25, 0), "25 bytes, at most 24"),
        (1, _section(b"a", 1, bytes(MAX_SECTION + 1)), "513 bytes, at most 512"),
        (25, b"".join(_section(b"a%02d" % n, 0) for n in range(25)), "25 sections or lines, at most 24"),
        (1, b"", "ends inside"),
        (0, _section(b"a", 0), "too many"),
    ],
)
def test_sections_out_of_form_are_refused(count: int, sections: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode(_with_sections(count, sections))


def test_the_largest_offer_is_read_and_one_section_more_is_not_written() -> None:
    full: dict[str, bytes | None] = {f"s{n:023d}": bytes(MAX_SECTION) for n in range(MAX_SECTIONS)}
    made = dataclasses.replace(offer(), sections=full, address=bytes(1024))
    assert decode(made.encode()) == made
    assert len(made.encode()) <= MAX_PAYLOAD, "an envelope must take it"
    for message in (offer(), answer()):
        too_many = dataclasses.replace(message, sections={**full, "one-more": b""})
        with pytest.raises(InputError, match="25 strategies do not fit"):
            too_many.encode()


def test_an_address_of_a_byte_too_many_is_refused() -> None:
    with pytest.raises(ProtocolError, match="1025 bytes, at most 1024"):
        decode(dataclasses.replace(offer(), address=bytes(1025)).encode())


def test_sections_are_written_in_order_of_name_whatever_the_order_they_came_in() -> None:
    forth = dataclasses.replace(offer(), sections={"a": b"1", "b": None, "b-a": b"2"})
    back = dataclasses.replace(offer(), sections={"b-a": b"2", "b": None, "a": b"1"})
    assert forth.encode() == back.encode()


def test_a_refusal_of_an_unknown_kind_is_read_as_other() -> None:
    data = bytearray(Refusal(SESSION, bytes(32), RefusalCode.POLICY, "no").encode())
    data[2 + 16 + 32] = 200
    assert decode(bytes(data)) == Refusal(SESSION, bytes(32), RefusalCode.OTHER, "no")


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "line\nline", "ümlaut", "x" * 201, "\x00", "\x7f"])
def test_no_text_of_a_peer_can_drive_a_terminal_or_fill_a_screen(text: str) -> None:
    for message in (
        Refusal(SESSION, bytes(32), RefusalCode.OTHER, text),
        End(SESSION, text, (("direct", text),)),
        Message(SESSION, "direct", text.encode("utf-8"), MessageUse.FAILED),
    ):
        again = decode(message.encode())
        texts = {
            Refusal: lambda m: [m.text],
            End: lambda m: [m.text, m.report[0][1]],
            Message: lambda m: [m.data.decode("ascii")],
        }[type(message)](again)
        assert all(len(line) <= 200 and line.isprintable() and line.isascii() for line in texts)


@pytest.mark.parametrize("data", [b"\x1b[2J", b"x" * 201, b"\xff"])
def test_a_failure_that_could_is_refused(data: bytes) -> None:
    sneaky = Message(SESSION, "direct", data, MessageUse.DATA).encode()
    at = 2 + 16
    with pytest.raises(ProtocolError, match="printable ASCII"):
        decode(sneaky[:at] + bytes((MessageUse.FAILED,)) + sneaky[at + 1 :])


def test_an_unknown_use_is_refused() -> None:
    data = bytearray(Message(SESSION, "direct", b"", MessageUse.DATA).encode())
    data[2 + 16] = 3
    with pytest.raises(ProtocolError, match="unknown use"):
        decode(bytes(data))


def test_an_end_reports_at_most_so_many_lines() -> None:
    made = End(SESSION, "no", tuple((f"s{n:02d}", "line") for n in range(40)))
    again = decode(made.encode())
    assert again == dataclasses.replace(made, report=made.report[:MAX_SECTIONS])


def test_kind_version_and_session_stand_first_in_every_message() -> None:
    for number, message in enumerate((ONE_OF_EACH[0], ONE_OF_EACH[1], ONE_OF_EACH[2]), 1):
        assert message.encode()[:18] == bytes((number, 1)) + SESSION
    assert ONE_OF_EACH[3].encode()[:18] == b"\4\1" + SESSION
    assert ONE_OF_EACH[5].encode()[:18] == b"\5\1" + SESSION
    assert offer().encode()[18:50] == EPHEMERAL_I.public
