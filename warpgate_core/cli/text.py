"""Text for a terminal: spans of plain words with a style, tables, and what must never be shown.

One layout for all terminals, so that what rich shows is what a log file gets, less the colours. A peer's
words may hold escape sequences, and an error may quote a URL with its password: `clean` and `mask` stand
between them and the screen. Rejected: rich's own tables, which need rich, and its markup, which a peer
could write as well.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

__all__ = [
    "Line",
    "Span",
    "clean",
    "joined",
    "line",
    "mask",
    "milliseconds",
    "plain",
    "size",
    "table",
    "wrapped",
]

Span = tuple[str, str]  # text and style; the style is a word that rich understands, "" for none
Line = tuple[Span, ...]

_CREDENTIALS = re.compile(r"\b([a-z][a-z0-9+.-]*:(?://)?)[^\s@/'\"]+(?:/[^\s@'\"]*)?@", re.IGNORECASE)
_GAP = 2  # columns between two cells
_NARROWEST = 16  # columns; a last cell narrower than this goes to a line of its own


def clean(text: str) -> str:
    """One line without anything that a terminal would obey or hide."""
    text = " ".join(text.split())
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def mask(text: str) -> str:
    """The text with user and password of every URL in it replaced by stars."""
    return _CREDENTIALS.sub(r"\1***@", text)


def line(*spans: str | Span) -> Line:
    """A line; a bare string has no style."""
    return tuple((span, "") if isinstance(span, str) else span for span in spans)


def plain(text: Line) -> str:
    """The words alone."""
    return "".join(span for span, _ in text).rstrip()


def wrapped(text: str, width: int | None, indent: str = "", style: str = "") -> list[Line]:
    """A paragraph, broken to `width` columns; each further line begins with `indent`."""
    if width is None:
        return [line((text, style))]
    rows = textwrap.wrap(text, max(width, 20), subsequent_indent=indent, break_on_hyphens=False)
    return [line((row, style)) for row in rows or [""]]


def table(rows: Sequence[Sequence[str | Span]], width: int | None, header: Sequence[str] = ()) -> list[Line]:
    """Columns, each as wide as its widest cell; the last one is broken to what is left.

    Args:
        rows: cells; all rows have the same number.
        width: columns of the terminal; None: nothing is broken.
        header: words above the columns.
    """
    cells = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    if header:
        cells.insert(0, [(word, "bold") for word in header])
    if not cells:
        return []
    widths = [max(len(row[i][0]) for row in cells) for i in range(len(cells[0]) - 1)]
    indent = sum(widths) + _GAP * len(widths)
    found: list[Line] = []
    for row in cells:
        left = [(text.ljust(wide + _GAP), style) for (text, style), wide in zip(row, widths, strict=False)]
        last, style = row[-1]
        if width is None or indent + len(last) < width:
            found.append((*left, (last, style)))
        elif width - indent < _NARROWEST:
            found.append(tuple(left))
            found += wrapped("    " + last, width - 1, "    ", style)
        else:
            parts = textwrap.wrap(last, width - indent - 1, break_on_hyphens=False)
            found.append((*left, (parts[0], style)))
            found += [line(" " * indent, (part, style)) for part in parts[1:]]
    return found


def size(count: int) -> str:
    """A number of bytes for people: "812 bytes", "10.5 MB" (powers of ten)."""
    if count < 10_000:
        return f"{count} byte{'' if count == 1 else 's'}"
    units = ("kB", "MB", "GB", "TB")
    power = next((i for i in (1, 2, 3) if count < 1000 ** (i + 1)), 4)
    return f"{count / 1000**power:.1f} {units[power - 1]}"


def milliseconds(seconds: float) -> str:
    """A duration for people: "0.4 ms", "38 ms", "2.31 s"."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def joined(words: Iterable[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    found = list(words)
    return f" {last} ".join([", ".join(found[:-1]), found[-1]]) if len(found) > 1 else "".join(found)
