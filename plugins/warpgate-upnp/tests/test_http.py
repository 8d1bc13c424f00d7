"""HTTP: answers however they are cut up, every bound, and URLs that lead nowhere else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import Endpoint, ProtocolError
from warpgate_upnp import http
from warpgate_upnp.http import Response, ResponseReader, Url, parse_url, request, resolve_url

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
BASE = Url(Endpoint("192.168.1.1", 5000), "/dir/root.xml")


def read(data: bytes, step: int = 0, *, end: bool = True) -> Response | None:
    """Feed it in pieces of `step` bytes (0: at once)."""
    reader = ResponseReader()
    for at in range(0, len(data), step or max(1, len(data))):
        reader.feed(data[at : at + (step or len(data))])
    if end:
        reader.end()
    return reader.response


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_framing(step: int) -> None:
    plain = read(PLAIN, step)
    assert plain == Response(200, {"content-length": "5", "x": "y"}, b"hello")
    chunked = read(CHUNKED, step)
    assert chunked is not None
    assert chunked.body == b"hello"
    until_end = read(b"HTTP/1.0 500 Bad\r\n\r\nhello", step)
    assert until_end == Response(500, {}, b"hello")
    empty = read(b"HTTP/1.1 204 No Content\r\n\r\nignored", step, end=False)
    assert empty == Response(204, {}, b"")
    assert read(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", step, end=False) == Response(
        200, {"content-length": "0"}, b""
    )


def test_an_interim_answer_is_passed_over() -> None:
    found = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + PLAIN)
    assert found is not None
    assert (found.status, found.body) == (200, b"hello")


def test_what_comes_after_the_answer_is_not_read() -> None:
    found = read(PLAIN + b"HTTP/1.1 302 Evil\r\n\r\n" + b"x" * 100_000)
    assert found is not None
    assert found.body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 999 No\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 6,
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (http.MAX_HEADERS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * http.MAX_HEAD,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * http.MAX_HEAD + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (http.MAX_BODY + 1),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b"x" * 256,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 17,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (http.MAX_BODY + 1),
        PLAIN[:-1],
        CHUNKED[:-20],
        PLAIN[:20],
    ],
)
@pytest.mark.parametrize("step", [0, 1_000])
def test_what_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(ProtocolError):
        read(data, step)


@given(st.binary(max_size=200), st.integers(1, 9))
def test_any_bytes_are_read_or_refused(data: bytes, step: int) -> None:
    with contextlib.suppress(ProtocolError):
        read(data, step)


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), max_size=20),
    st.integers(1, 50),
)
def test_chunked_bodies_come_out_as_they_went_in(body: bytes, sizes: list[int], step: int) -> None:
    wire, rest = b"", body
    for size in sizes:
        if rest:
            wire += b"%x\r\n%s\r\n" % (len(rest[:size]), rest[:size])
            rest = rest[size:]
    if rest:
        wire += b"%X\r\n%s\r\n" % (len(rest), rest)
    found = read(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + wire + b"0\r\n\r\n", step, end=False
    )
    assert found is not None
    assert found.body == body


def test_every_cut_of_a_recorded_answer(recorded: dict[str, bytes]) -> None:
    answers = {name: data for name, data in recorded.items() if name.endswith(".http")}
    assert len(answers) > 10
    for name, data in answers.items():
        whole = read(data)
        assert whole is not None, name
        for end in range(0, len(data) - 1, 13):
            with pytest.raises(ProtocolError):
                read(data[:end])


def test_urls() -> None:
    assert parse_url("http://192.168.1.1:46797/rootDesc.xml") == Url(
        Endpoint("192.168.1.1", 46797), "/rootDesc.xml"
    )
    assert parse_url("HTTP://192.168.1.1/a?b=c#d") == Url(Endpoint("192.168.1.1", 80), "/a?b=c")
    assert parse_url("http://192.168.1.1").target == "/"
    assert parse_url("http://[2001:DB8::1]:5/x") == Url(Endpoint("2001:db8::1", 5), "/x")
    assert parse_url("http://[fe80::1%25eth0]:5/x") == Url(Endpoint("fe80::1", 5), "/x")
    assert str(parse_url("http://[2001:db8::1]:5/x")) == "http://[2001:db8::1]:5/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rootDesc.xml",
        "https://192.168.1.1/",
        "file:///etc/passwd",
        "http://router.local/",
        "http://192.168.1.1:99999/",
        "http://192.168.1.1:0/",
        "http://user:pw@192.168.1.1/",
        "http://192.168.1.1@203.0.113.5/",
        "http://192.168.1.1/a b",
        "http://192.168.1.1/\r\nX: y",
        "http://192.168.1.1/\x00",
        "http://192.168.1.1/ä",
        "http://010.0.0.1/",
        "http://0x7f.1/",
        "http://[::1",
        "http://" + "1" * 2_000,
    ],
)
def test_urls_that_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "target", "port"),
    [
        ("/ctl/IPConn", "/ctl/IPConn", 5000),
        ("ctl/IPConn", "/dir/ctl/IPConn", 5000),
        ("http://192.168.1.1:5001/x", "/x", 5001),
        ("?a=b", "/dir/root.xml?a=b", 5000),
    ],
)
def test_control_urls(text: str, target: str, port: int) -> None:
    assert resolve_url(BASE, text) == Url(Endpoint("192.168.1.1", port), target)


@pytest.mark.parametrize(
    "text",
    [
        "http://203.0.113.5/ctl",
        "//203.0.113.5/ctl",
        "http://192.168.1.1.evil.example/ctl",
        "http://192.168.1.1:5000@203.0.113.5/ctl",
        "http://127.0.0.1:22/",
        "javascript:alert(1)",
        "\\\\203.0.113.5\\x",
        "",
        "/a\r\nHost: x",
        "http://[::ffff:192.168.1.1]/x",
    ],
)
def test_control_urls_that_are_refused(text: str) -> None:
    try:
        assert resolve_url(BASE, text).endpoint.host == BASE.endpoint.host
    except ProtocolError:
        return
    assert text.startswith("\\\\"), "this one is but an odd path on the same host"


@given(st.text(max_size=40))
def test_whatever_a_control_url_says_it_stays_on_its_host(text: str) -> None:
    try:
        url = resolve_url(BASE, text)
    except ProtocolError:
        return
    assert url.endpoint.host == BASE.endpoint.host
    line = request("GET", url).split(b"\r\n")[0]
    assert line.count(b" ") == 2


def test_requests() -> None:
    assert request("GET", BASE) == (
        b"GET /dir/root.xml HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nConnection: close\r\n\r\n"
    )
    posted = request("POST", Url(Endpoint("2001:db8::1", 5), "/c"), {"A": "b"}, b"body")
    assert posted.startswith(b"POST /c HTTP/1.1\r\nHost: [2001:db8::1]:5\r\n")
    assert posted.endswith(b"A: b\r\nContent-Length: 4\r\n\r\nbody")


@pytest.mark.parametrize("value", ["x\r\nEvil: 1", "x\n", "x\0", "ä"])
def test_no_header_can_be_injected(value: str) -> None:
    with pytest.raises(ProtocolError):
        request("GET", BASE, {"A": value})
    with pytest.raises(ProtocolError):
        request("GET", Url(BASE.endpoint, f"/{value}"))
