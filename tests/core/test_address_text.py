"""The text form, as chats, mails and people mangle it."""

from __future__ import annotations

import quopri
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.address_strategies import addresses, public_key
from warpgate_core.address import BrokerHint, InterfaceAddress, NodeAddress
from warpgate_core.address_text import from_text, to_text
from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import AddressError

ADDRESS = NodeAddress(
    public_key(3),
    (InterfaceAddress(0, Endpoint("192.168.1.5", 40001), Endpoint("203.0.113.7", 41000)),),
    (BrokerHint("broker.example.org", 1883),),
)
TEXT = str(ADDRESS)
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def _refused(text: str, says: str) -> None:
    with pytest.raises(AddressError, match=says):
        NodeAddress.parse(text)


def test_it_is_one_word_of_letters_and_digits() -> None:
    assert TEXT.startswith("wg1")
    assert TEXT.isascii()
    assert TEXT.isalnum()
    assert TEXT.lower() == TEXT
    assert from_text(TEXT) == ADDRESS.encode()
    assert to_text(ADDRESS.encode()) == TEXT


@pytest.mark.parametrize(
    "mangled",
    [
        TEXT.upper(),
        TEXT.capitalize(),
        TEXT.swapcase(),
        f"  {TEXT}\r\n",
        f"\ufeff{TEXT}",
        f"<{TEXT}>",
        f"`{TEXT}`",
        f"```\n{TEXT}\n```",
        f'"{TEXT}"',
        f"'{TEXT}',",
        f"“{TEXT}”",
        f"„{TEXT}“",
        f"«{TEXT}»",
        f"({TEXT}).",
        f"**{TEXT}**",
        f"{TEXT}!",
        "\n".join(textwrap.wrap(TEXT, 20)),
        "\r\n".join(textwrap.wrap(TEXT, 7)),
        "> " + "\n> ".join(textwrap.wrap(TEXT, 30)),
        ">> " + "\n>> > ".join(textwrap.wrap(TEXT, 30)),
        "| " + "\n| ".join(textwrap.wrap(TEXT, 30)),
        "\u200b".join(TEXT),
        "\u00ad".join(TEXT),
        "\u2060".join(TEXT),
        "\u200d\u200e\u202a".join(textwrap.wrap(TEXT, 10)),
        "\u00a0".join(TEXT),
        "\u3000\t\x0b\x0c\u2028\u2029\x85".join(textwrap.wrap(TEXT, 9)),
        f"> <\u201c`{TEXT[:50].upper()}\u00ad\r\n> {TEXT[50:]}`\u201d>\u200b\n",
    ],
)
def test_what_chats_and_mails_do_to_it(mangled: str) -> None:
    assert mangled != TEXT
    assert NodeAddress.parse(mangled) == ADDRESS


def test_mail_encoded_and_decoded_again() -> None:
    folded = quopri.encodestring(TEXT.encode()).decode()
    assert "=\n" in folded
    assert NodeAddress.parse(quopri.decodestring(folded.encode()).decode()) == ADDRESS


@settings(max_examples=200, deadline=None)
@given(addresses, st.data())
def test_any_address_survives_any_mangling(address: NodeAddress, data: st.DataObject) -> None:
    noise = st.sampled_from(["", "", "", " ", "\n", "\r\n> ", "\u200b", "\u00ad", "\t", "\u2028"])
    text = "".join(
        data.draw(noise) + data.draw(st.sampled_from([piece, piece.upper()]))
        for piece in textwrap.wrap(str(address), data.draw(st.integers(5, 80)))
    )
    wrap = data.draw(st.sampled_from([("", ""), ("<", ">"), ("`", "`"), ("“", "”."), ("> ", "\n")]))
    assert NodeAddress.parse(wrap[0] + text + wrap[1]) == address


def test_every_changed_letter_is_noticed() -> None:
    for at in range(3, len(TEXT)):
        for letter in ALPHABET:
            if letter != TEXT[at]:
                with pytest.raises(AddressError):
                    NodeAddress.parse(TEXT[:at] + letter + TEXT[at + 1 :])


def test_every_missing_doubled_and_swapped_letter_is_noticed() -> None:
    for at in range(len(TEXT)):
        with pytest.raises(AddressError):
            NodeAddress.parse(TEXT[:at] + TEXT[at + 1 :])
        with pytest.raises(AddressError):
            NodeAddress.parse(TEXT[:at] + TEXT[at] + TEXT[at:])
        with pytest.raises(AddressError):
            NodeAddress.parse(TEXT[:at])
        if at and TEXT[at] != TEXT[at - 1]:
            with pytest.raises(AddressError):
                NodeAddress.parse(TEXT[: at - 1] + TEXT[at] + TEXT[at - 1] + TEXT[at + 1 :])


def test_every_text_has_one_canonical_form() -> None:
    """The last letter carries bits that belong to no byte; setting one is damage, not another spelling."""
    spare = {0: 0, 2: 2, 4: 4, 5: 1, 7: 3}
    seen = set()
    for size in range(5):
        address = NodeAddress(public_key(3), extensions=((1, bytes(size)),))
        text = str(address)
        bits = spare[(len(text) - 3) % 8]
        seen.add(bits)
        for value in range(1, 1 << bits):
            other = ALPHABET[ALPHABET.index(text[-1]) | value]
            assert other != text[-1]
            _refused(text[:-1] + other, "last letter")
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with 'wg1', this text with ''"),
        ("hello", "begins with 'wg1', this text with 'hello'"),
        ("wg", "begins with 'wg1'"),
        ("my address is " + TEXT, "begins with 'wg1'.*copy all of it"),
        ("wg2" + TEXT[3:], r"another version \(wg2\).*upgrade"),
        (TEXT[1:], "begins with 'wg1'"),
        ("wg1", "too short: 0 letters"),
        (TEXT[:40], "too short: 37 letters.*at least 64"),
        (TEXT[:-1], "last letter"),
        (TEXT[:100], "cut off"),
        (TEXT[: 3 + 8 * 10], "too short: it ends after 50 bytes"),
        (TEXT + "a" * 1600, "too long"),
        (TEXT[:20] + "0" + TEXT[21:], "character '0' at position 21"),
        ("  \n" + TEXT[:20] + "!" + TEXT[21:], "character '!' at position 24"),
        (TEXT[:50] + "é" + TEXT[51:], r"character '\\xe9' at position 51"),
        (TEXT[:50] + "\u212a" + TEXT[51:], r"'\\u212a' at position 51"),  # the Kelvin sign lowers to k
        (TEXT[:50] + "=" + TEXT[51:], "character '=' at position 51"),
        (TEXT[:50] + ("a" if TEXT[50] != "a" else "b") + TEXT[51:], "changed or lost"),
        (TEXT + TEXT, "position|too many|changed or lost|missing"),
    ],
)
def test_the_error_says_what_is_wrong(text: str, says: str) -> None:
    _refused(text, says)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=300), st.text(ALPHABET + ALPHABET.upper() + " \n>", max_size=400)))
def test_any_text_only_ever_gives_the_typed_error(text: str) -> None:
    for bad in (text, "wg1" + text, TEXT[:40] + text):
        with pytest.raises(AddressError):
            NodeAddress.parse(bad)
