"""The card: one encoding per value, and nothing but a ProtocolError for anything else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import Endpoint, InputError, ProtocolError
from warpgate_core.strategy import MAX_SECTION
from warpgate_turn.card import MAX_ENDPOINTS, MAX_REASON, Card, State

PORTS = st.integers(1, 65_535)
IP4 = st.builds(lambda ip, port: Endpoint(str(ip), port), st.ip_addresses(v=4), PORTS)
IP6 = st.builds(
    lambda number, port: Endpoint(str(IPv6Address(number)), port),
    st.integers(0, 2**128 - 1).filter(lambda number: IPv6Address(number).ipv4_mapped is None),
    PORTS,
)
MANY = st.lists(st.one_of(IP4, IP6), max_size=MAX_ENDPOINTS).map(tuple)
SOME = st.lists(st.one_of(IP4, IP6), min_size=1, max_size=MAX_ENDPOINTS).map(tuple)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=MAX_REASON)
CARDS = st.one_of(
    st.builds(Card, st.sampled_from([State.STANDBY, State.COMING]), st.just(()), MANY),
    st.builds(Card, st.just(State.NONE), st.just(()), MANY, TEXT),
    st.builds(Card, st.just(State.READY), SOME, MANY),
)


@given(CARDS)
def test_what_is_written_is_read(card: Card) -> None:
    assert Card.decode(card.encode()) == card
    assert len(card.encode()) <= MAX_SECTION


@given(CARDS, st.data())
def test_every_truncation_and_every_addition_is_refused_or_shortens_the_reason(
    card: Card, data: st.DataObject
) -> None:
    raw = card.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    if cut < len(raw) - len(card.reason):
        with pytest.raises(ProtocolError):
            Card.decode(raw[:cut])
    else:
        assert replace(Card.decode(raw[:cut]), reason="") == replace(card, reason="")
    if card.state is not State.NONE:
        with pytest.raises(ProtocolError):
            Card.decode(raw + data.draw(st.binary(min_size=1, max_size=20)))


@given(st.binary(max_size=MAX_SECTION))
def test_rubbish_is_refused_or_is_the_one_encoding_of_a_card(raw: bytes) -> None:
    try:
        card = Card.decode(raw)
    except ProtocolError:
        return
    assert card.encode() == raw


@given(CARDS, st.data())
def test_a_changed_byte_never_goes_unnoticed(card: Card, data: st.DataObject) -> None:
    raw = bytearray(card.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):  # the usual outcome
        assert Card.decode(bytes(raw)) != card


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "too short"),
        (b"\x02\x00\x00\x00", "version 2"),
        (b"\x01\x04\x00\x00", "unknown state"),
        (b"\x01\x00\x05\x00", "too many"),
        (b"\x01\x03\x00\x00", "do not fit"),  # READY without a relay
        (b"\x01\x01\x01\x00\x04\x12\x34\xc6\x33\x64\x01", "do not fit"),  # a relay while standing by
        (b"\x01\x03\x01\x00\x04\x00\x00\xc6\x33\x64\x01", "is none"),  # port 0
        (b"\x01\x03\x01\x00\x05\x12\x34\xc6\x33\x64\x01", "is none"),  # no such family
        (b"\x01\x00\x00\x00\x1b[1mred", "do not fit"),  # terminal control in the reason
        (b"\x01\x00\x00\x00\xff", "do not fit"),
        (b"\x01\x00\x00\x00" + b"x" * 201, "do not fit"),
        (b"\x01\x03\x01\x00\x06\x12\x34" + bytes(10) + b"\xff\xff\xc6\x33\x64\x01", "clothes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(raw: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        Card.decode(raw)


@pytest.mark.parametrize(
    "card",
    [
        Card(State.READY),
        Card(State.NONE, (Endpoint("198.51.100.1", 5),)),
        Card(State.STANDBY, reason="none of your business"),
        Card(State.NONE, reason="x" * (MAX_REASON + 1)),
        Card(State.NONE, reason="line\nbreak"),
        Card(State.NONE, reason="\u00fc"),
        Card(State.READY, tuple(Endpoint("198.51.100.1", port) for port in range(1, 6))),
    ],
)
def test_a_senseless_card_is_not_written(card: Card) -> None:
    with pytest.raises(InputError):
        card.encode()
