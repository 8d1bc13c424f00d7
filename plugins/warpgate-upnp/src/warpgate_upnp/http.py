"""As much of HTTP/1.1 (RFC 9112) as a router on the LAN speaks: one request, one answer, then it is over.

Sans-I/O: `request` makes bytes, `ResponseReader` takes them as they come and keeps every bound. There are
no redirects (a device that sends us elsewhere is refused), no cookies, no compression, no reuse. Rejected:
aiohttp and httpx (ten distributions and 200 ms of import), `http.client` (blocks, and reads endless headers
and chunks as long as somebody sends them).
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from warpgate_core import Endpoint, ProtocolError

__all__ = ["MAX_BODY", "Response", "ResponseReader", "Url", "parse_url", "request", "resolve_url"]

MAX_HEAD = 16 * 1024  # bytes of status line and headers; miniupnpd sends 200
MAX_HEADERS = 64
MAX_BODY = 256 * 1024  # bytes; see `markup.MAX_BYTES`
MAX_URL = 1_024  # characters; LOCATION headers of real devices stay below 100
MAX_INTERIM = 4  # answers of the 1xx kind before the real one (RFC 9110 section 15.2)
DEFAULT_PORT = 80

_PRINTABLE = re.compile(r"[\x21-\x7e]+")  # what may stand in a request line; no space, no line end
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: .*)?")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 5.6.2
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,6})[ \t]*(?:;.*)?")  # six digits are 16 MiB, far above MAX_BODY


class Url(NamedTuple):
    """Where a device says that something of it is.

    Args:
        endpoint: numeric address and port.
        target: path and query, what goes into the request line.
    """

    endpoint: Endpoint
    target: str

    def __str__(self) -> str:
        return f"http://{self.endpoint}{self.target}"


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_url(text: str) -> Url:
    """Read an absolute URL as devices give it.

    Raises:
        ProtocolError: not http, no numeric address, a user name in it, or characters that no URL has.
    """
    if len(text) > MAX_URL or not _PRINTABLE.fullmatch(text):
        raise ProtocolError(f"no usable URL: {text[:80]!r}")
    try:
        parts = urlsplit(text)
        port = DEFAULT_PORT if parts.port is None else parts.port
        host = str(ipaddress.ip_address((parts.hostname or "").partition("%")[0]))
    except ValueError as error:
        raise ProtocolError(f"no URL with a numeric address: {text[:80]!r}") from error
    if parts.scheme.lower() != "http" or "@" in parts.netloc or not port:
        raise ProtocolError(f"no plain http URL: {text[:80]!r}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.startswith("/"):
        raise ProtocolError(f"no path in the URL: {text[:80]!r}")
    return Url(Endpoint(host, port), target)


def resolve_url(base: Url, text: str) -> Url:
    """Read a URL that may be relative to `base`; it must be on the very same address.

    Raises:
        ProtocolError: no URL, or it leads to another host.
    """
    if len(text) > MAX_URL or not _PRINTABLE.fullmatch(text):
        raise ProtocolError(f"no usable URL: {text[:80]!r}")
    try:
        joined = urljoin(str(base), text)
    except ValueError as error:
        raise ProtocolError(f"no usable URL: {text[:80]!r}") from error
    url = parse_url(joined)
    if url.endpoint.host != base.endpoint.host:
        raise ProtocolError(f"the device at {base.endpoint.host} points to another host: {text[:80]!r}")
    return url


def request(method: str, url: Url, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """The bytes of one request.

    Args:
        method: "GET" or "POST".
        url: where to; its endpoint becomes the Host header.
        headers: further ones.
        body: for POST.

    Raises:
        ProtocolError: a header or the target would break the request in two.
    """
    fields = {"Host": str(url.endpoint), "Connection": "close", **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if not _PRINTABLE.fullmatch(url.target) or any(not _is_line(line) for line in lines):
        raise ProtocolError("a header would hold a line end or characters beyond ASCII")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _is_line(line: str) -> bool:
    return line.isascii() and line.isprintable()


class ResponseReader:
    """Takes the bytes of one answer as they come.

    Attributes:
        response: the whole answer once it is there.
    """

    def __init__(self) -> None:
        self.response: Response | None = None
        self._buffer = bytearray()
        self._body = bytearray()
        self._status = 0
        self._headers: dict[str, str] | None = None
        self._length: int | None = None  # of the body; None: chunked, or until the end
        self._chunked = False
        self._chunk_left: int | None = None  # bytes of the current chunk and its line end
        self._interim = 0

    def feed(self, data: bytes) -> None:
        """Take what was received; may complete `response`.

        Raises:
            ProtocolError: not HTTP, or beyond a bound.
        """
        if self.response is not None:
            return  # what comes after the answer is not read
        self._buffer += data
        if self._headers is None and not self._take_head():
            return
        if self._chunked:
            self._take_chunks()
            return
        self._take(len(self._buffer))
        if self._length is not None and len(self._body) >= self._length:
            del self._body[self._length :]
            self._finish()

    def end(self) -> None:
        """The connection was closed by the other end.

        Raises:
            ProtocolError: in the middle of the answer.
        """
        if self.response is not None:
            return
        if self._headers is None or self._chunked or self._length is not None:
            raise ProtocolError("the connection ended in the middle of an HTTP answer")
        self._finish()

    def _take_head(self) -> bool:
        """Status line and headers; True once they are complete and belong to the real answer."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise ProtocolError(f"an HTTP head of more than {MAX_HEAD} bytes")
            if end < 0:
                return False
            lines = bytes(self._buffer[:end]).split(b"\r\n")
            del self._buffer[: end + 4]
            found = _STATUS.fullmatch(lines[0])
            if found is None:
                raise ProtocolError(f"no HTTP answer: {bytes(lines[0][:40])!r}")
            status, headers = int(found[1]), _headers(lines[1:])
            if status >= 200:
                self._status, self._headers = status, headers
                self._choose_framing(headers)
                return True
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM:
                raise ProtocolError(f"HTTP status {status} instead of an answer")

    def _choose_framing(self, headers: dict[str, str]) -> None:
        """RFC 9112 section 6.3; both lengths at once is how requests are smuggled, so it is refused."""
        coding = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if coding:
            if coding != "chunked" or length is not None:
                raise ProtocolError(f"transfer encoding {coding[:40]!r} is not understood")
            self._chunked = True
        elif self._status in (204, 304):
            self._length = 0
        elif length is not None:
            if not re.fullmatch(r"\d{1,7}", length) or int(length) > MAX_BODY:
                raise ProtocolError(f"a body of {length[:20]!r} bytes, more than {MAX_BODY}")
            self._length = int(length)

    def _take_chunks(self) -> None:
        while self.response is None:
            if self._chunk_left is None:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    if len(self._buffer) > 256:
                        raise ProtocolError("a chunk size without end")
                    return
                found = _CHUNK.fullmatch(self._buffer[:end])
                if found is None:
                    raise ProtocolError(f"no chunk size: {bytes(self._buffer[: min(end, 20)])!r}")
                size = int(found[1], 16)
                del self._buffer[: end + 2]
                if size == 0:
                    self._finish()  # trailers are not read
                    return
                self._chunk_left = size
            took = self._take(self._chunk_left)
            self._chunk_left -= took
            if self._chunk_left:
                return
            if len(self._buffer) < 2:
                return
            if self._buffer[:2] != b"\r\n":
                raise ProtocolError("a chunk that is longer than its size")
            del self._buffer[:2]
            self._chunk_left = None

    def _take(self, count: int) -> int:
        """Move up to `count` bytes to the body; how many it were."""
        part = self._buffer[:count]
        if len(self._body) + len(part) > MAX_BODY:
            raise ProtocolError(f"an HTTP body of more than {MAX_BODY} bytes")
        self._body += part
        del self._buffer[: len(part)]
        return len(part)

    def _finish(self) -> None:
        self.response = Response(self._status, self._headers or {}, bytes(self._body))
        self._buffer.clear()


def _headers(lines: list[bytes]) -> dict[str, str]:
    """Names in lower case; of two of a name the first counts, except for what decides the length."""
    if len(lines) > MAX_HEADERS:
        raise ProtocolError(f"more than {MAX_HEADERS} HTTP headers")
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise ProtocolError(f"no HTTP header: {line[:40]!r}")
        key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        if key in ("content-length", "transfer-encoding") and found.get(key, text) != text:
            raise ProtocolError(f"two different values of {key}")
        found.setdefault(key, text)
    return found
