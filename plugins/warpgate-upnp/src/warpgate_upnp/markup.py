"""XML from a device on the LAN, read as if it were hostile: bounded in size, depth and count, no DTD at all.

Device descriptions and SOAP answers need elements and text and nothing else, so everything that XML attacks
are made of (entities, DTDs, external references) is refused the moment expat sees the DOCTYPE. Rejected:
`xml.etree` (expands internal entities, and has no bound on depth), defusedxml (a distribution for what are
six lines here), and regular expressions (comments and CDATA make them find what is not there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from warpgate_core import ProtocolError

__all__ = ["MAX_BYTES", "Element", "parse"]

MAX_BYTES = 256 * 1024  # of a document; the largest description seen in the wild (a FRITZ!Box) has 30 KiB
MAX_DEPTH = 32  # levels; root to controlURL of a nested WANConnectionDevice is 10
MAX_ELEMENTS = 4_096  # a description with ten services has some 150
MAX_TEXT = 2_048  # characters in one element; URLs and names are far shorter


@dataclass(slots=True)
class Element:
    """One element: its name without namespace, its own text, and its children in order."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def child(self, name: str) -> Element | None:
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str:
        """Text of the first child of that name, without white space around it; "" if there is none."""
        found = self.child(name)
        return "" if found is None else found.text.strip()

    def every(self, name: str) -> list[Element]:
        """Every element of that name below this one, in the order of the document."""
        found, waiting = [], [*reversed(self.children)]
        while waiting:
            element = waiting.pop()
            if element.name == name:
                found.append(element)
            waiting += reversed(element.children)
        return found


def parse(data: bytes) -> Element:
    """Read a whole document.

    Args:
        data: at most `MAX_BYTES`, UTF-8. What is not UTF-8 is replaced: names of people's routers are, what
            matters here is ASCII.

    Returns:
        The root element.

    Raises:
        ProtocolError: not well-formed, or it has what only attacks have.
    """
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"an XML document of {len(data)} bytes, more than {MAX_BYTES}")
    builder = _Builder()
    parser = expat.ParserCreate("utf-8", " ")  # overrides what the document says of its encoding
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.SkippedEntityHandler = _refuse
    try:
        parser.Parse(data.decode("utf-8", "replace").encode("utf-8"), True)
    except expat.ExpatError as error:
        raise ProtocolError(f"XML that cannot be read: {error}") from error
    return builder.root()


class _Builder:
    """Builds the tree from expat's events."""

    def __init__(self) -> None:
        self._top = Element("")
        self._open = [self._top]
        self._count = 0

    def start(self, name: str, _attributes: object) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise ProtocolError(f"XML with more than {MAX_ELEMENTS} elements")
        if len(self._open) > MAX_DEPTH:
            raise ProtocolError(f"XML nested more than {MAX_DEPTH} deep")
        element = Element(name.rpartition(" ")[2])
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _name: str) -> None:
        self._open.pop()

    def characters(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) + len(text) > MAX_TEXT:
            raise ProtocolError(f"XML with more than {MAX_TEXT} characters in <{element.name[:40]}>")
        element.text += text

    def root(self) -> Element:
        return self._top.children[0]


def _refuse(*_arguments: object) -> NoReturn:
    raise ProtocolError("XML with a DOCTYPE or entities, which no device needs and attacks are made of")
