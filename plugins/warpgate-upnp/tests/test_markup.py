"""XML: what devices send is read, what attacks are made of is refused, whatever it is made of."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import ProtocolError
from warpgate_upnp import markup
from warpgate_upnp.markup import Element, parse

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">]><root>&lol3;</root>"""


def test_elements_text_and_namespaces() -> None:
    root = parse(
        b'<a xmlns="urn:x" xmlns:y="urn:y">'
        b"<b> one </b><y:b>two<!-- no --><![CDATA[<&>]]></y:b><c><b/></c></a>"
    )
    assert root.name == "a"
    assert [child.name for child in root.children] == ["b", "b", "c"]
    assert root.text_of("b") == "one"
    assert root.children[1].text == "two<&>"
    assert root.text_of("nothing") == ""
    assert root.child("c") == Element("c", children=[Element("b")])
    assert [b.text for b in root.every("b")] == [" one ", "two<&>", ""]


def test_what_is_not_utf8_is_replaced() -> None:
    assert parse(b'<?xml version="1.0" encoding="gb2312"?><a>\xc4\xe3</a>').text == "\ufffd\ufffd"
    assert parse("<a>Gerät</a>".encode()).text == "Gerät"


@pytest.mark.parametrize(
    "document",
    [
        BOMB,
        b'<!DOCTYPE a SYSTEM "http://192.0.2.1/evil.dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://192.0.2.1/p"> %p;]><a/>',
        b"<!DOCTYPE a><a/>",
        b"<a>&undefined;</a>",
        b"",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"just text",
        b"\0",
        b"<a>" * (markup.MAX_DEPTH + 1) + b"</a>" * (markup.MAX_DEPTH + 1),
        b"<a>" + b"<b/>" * markup.MAX_ELEMENTS + b"</a>",
        b"<a>" + b"x" * (markup.MAX_TEXT + 1) + b"</a>",
        b"<a>" + b"<b>x</b>" * (markup.MAX_BYTES // 8) + b"</a>",
    ],
)
def test_attacks_and_rubbish(document: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(ProtocolError):
        parse(document)
    assert time.perf_counter() - began < 0.5


def test_the_bounds_themselves_are_allowed() -> None:
    deep = markup.MAX_DEPTH
    assert parse(b"<a>" * deep + b"</a>" * deep).name == "a"
    assert len(parse(b"<a>" + b"<b/>" * (markup.MAX_ELEMENTS - 1) + b"</a>").children) > 4_000
    assert len(parse(b"<a>" + b"x" * markup.MAX_TEXT + b"</a>").text) == markup.MAX_TEXT


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(document: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert parse(document).name


@given(st.text(alphabet="<>/ab&;![]-CDATA?\"'=x: ", max_size=60))
def test_anything_that_looks_like_xml_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        parse(b"<r>" + text.encode() + b"</r>")


def test_every_cut_of_a_real_description_is_refused(recorded: dict[str, bytes]) -> None:
    document = recorded["igd2-description.http"].partition(b"\r\n\r\n")[2]
    assert parse(document).name == "root"
    whole = document.rstrip()
    for end in range(0, len(whole), 7):
        with pytest.raises(ProtocolError):
            parse(whole[:end])
