"""The text form of a node address: one word that survives a chat, a mail and a line wrap.

``wg1`` and then the bytes in base32 (RFC 4648 section 6) in lower case without padding: one letter
case, no look-alikes of o, i, l and b among the digits, and double-clicking selects all of it. The
checksum is that of the bytes; it finds each run of up to six changed letters for certain. Rejected:
base64 (case matters, and people retype), base58 (no faster to read, slow and no fixed bit layout),
bech32 (its guarantee ends at 90 letters, these are 160 to 230), groups with hyphens (mail programs
wrap and chat programs format them).
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

from warpgate_core.address_codec import MAX_SIZE, MIN_SIZE
from warpgate_core.errors import AddressError

__all__ = ["PREFIX", "from_text", "to_text"]

PREFIX = "wg1"

_OTHER_VERSION = re.compile(r"wg[02-9]")
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_MIN_LETTERS = (MIN_SIZE * 8 + 4) // 5
_MAX_LETTERS = (MAX_SIZE * 8 + 4) // 5
_MAX_TEXT = 4 * _MAX_LETTERS  # room for quoting and wrapping; more is no address but a document

_QUOTING = frozenset(">|")  # how mail and chat programs mark quoted lines
_WRAPPING = "<>()[]{}\"'`*_~“”‘’„‚«»‹›.,;:!"  # noqa: RUF001 - what people and programs put around a word
_SILENT = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # spaces, line ends, zero-width, soft hyphen, marks


def to_text(data: bytes) -> str:
    """The text form of an encoded address."""
    return PREFIX + base64.b32encode(data).decode("ascii").rstrip("=").lower()


def from_text(text: str) -> bytes:
    """The bytes behind a text form, however a chat or mail program mangled its surroundings.

    Ignored: letter case, white space and line ends, zero-width and other invisible characters, soft
    hyphens, ``>`` and ``|`` of quoting, and quotes, brackets and punctuation around it.

    Args:
        text: at most 6,556 characters.

    Raises:
        AddressError: it does not begin as an address does, is too short or too long, or has a letter
            that cannot stand in one. Whether the checksum matches shows on decoding the bytes.
    """
    if len(text) > _MAX_TEXT:
        raise AddressError(f"a text of {len(text)} characters is no address")
    letters = _letters(text)
    word = "".join(letter for _, letter in letters)
    if _OTHER_VERSION.match(word):
        raise AddressError(
            f"this address is in the text form of another version ({word[:3]}), and this program reads "
            f"{PREFIX}; upgrade it"
        )
    if not word.startswith(PREFIX):
        raise AddressError(f"an address begins with {PREFIX!r}, this text with {word[:8]!a}; copy all of it")
    for position, letter in letters[len(PREFIX) :]:
        if letter not in _ALPHABET:
            raise AddressError(
                f"the character {letter!a} at position {position + 1} cannot stand in an address; "
                "copy it again"
            )
    count = len(word) - len(PREFIX)
    if count < _MIN_LETTERS:
        raise AddressError(
            f"the address is too short: {count} letters after {PREFIX!r}, where at least {_MIN_LETTERS} "
            "are needed; the end is missing, copy all of it"
        )
    if count > _MAX_LETTERS:
        raise AddressError(f"the address is too long: {count} letters, of at most {_MAX_LETTERS}")
    return _unpack(word[len(PREFIX) :])


def _letters(text: str) -> list[tuple[int, str]]:
    """What remains to be read, each with its position in the text."""
    kept = [
        (position, character.lower() if character.isascii() else character)
        for position, character in enumerate(text)
        if character not in _QUOTING and unicodedata.category(character) not in _SILENT
    ]
    first, last = 0, len(kept)
    while first < last and kept[first][1] in _WRAPPING:
        first += 1
    while first < last and kept[last - 1][1] in _WRAPPING:
        last -= 1
    return kept[first:last]


def _unpack(letters: str) -> bytes:
    padded = letters.upper() + "=" * (-len(letters) % 8)
    try:
        data = base64.b32decode(padded)
    except binascii.Error as error:
        raise AddressError(
            "a letter of the address is missing or doubled, or its end is cut off; copy all of it again"
        ) from error
    if to_text(data) != PREFIX + letters:  # bits that the last letter has too many are zero
        raise AddressError("the last letter of the address was changed or lost; copy it again")
    return data
