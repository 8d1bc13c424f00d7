"""Credentials from a web service (draft-uberti-behave-turn-rest-00): one GET, one JSON object.

On asyncio's own streams with the standard library's parser, because a thread cannot be cancelled and would
hold up the end of the program, and an HTTP library would be the largest dependency of a hundred lines'
need. No redirect is followed: it would carry the key to a place that nobody configured. Texts of errors
never quote the address, which holds the key.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from warpgate_core import NetworkError, TurnServer
from warpgate_turn.credentials import Login
from warpgate_turn.reasons import system_words

__all__ = ["DEFAULT_TTL", "FETCH_BOUND", "fetch_login", "read_login"]

FETCH_BOUND = 5.0  # s for the whole of it; a dozen round trips half around the world
MAX_ANSWER = 64 * 1024  # bytes; a login is some 300
MAX_TEXT = 508  # bytes; RFC 8489 section 14.3: USERNAME is shorter than 509
DEFAULT_TTL = 3_600.0  # s, where the service does not say; half of what the draft's example has
LEAST_TTL, MOST_TTL = 1.0, 7 * 86_400.0  # s; a service that says nonsense is not taken at its word


async def fetch_login(
    server: TurnServer,
    now: float,
    make_tls: Callable[[], Awaitable[ssl.SSLContext]],
    bound: float = FETCH_BOUND,
) -> Login:
    """Ask the service.

    Args:
        server: with `credential_url`; its username and credential are sent along, if there are any.
        now: wall clock, seconds.
        make_tls: awaited for an `ssl.SSLContext` if the address is https.
        bound: seconds for all of it.

    Raises:
        NetworkError: not reached, not in time, or not a login; the text says which, without secrets.
    """
    where = ""
    try:
        parts = urlsplit(server.credential_url or "")
        where = f"the credential service at {parts.hostname}"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        context = await make_tls() if parts.scheme == "https" else None
        async with asyncio.timeout(bound):
            status, body = await _get(parts.hostname or "", port, context, _request(server))
    except TimeoutError:
        raise NetworkError(f"{where} did not answer within {bound:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise NetworkError(f"{where} has a certificate that is not valid: {error.verify_message}") from None
    except (OSError, ValueError, http.client.HTTPException, asyncio.LimitOverrunError) as error:
        raise NetworkError(f"{where or 'the credential service'} cannot be used: {_name(error)}") from None
    if status != 200:
        hint = "; redirects are not followed" if 300 <= status < 400 else ""
        raise NetworkError(f"{where} answered with status {status}{hint}")
    return read_login(body, now, where)


def read_login(body: bytes, now: float, where: str) -> Login:
    """Read the service's JSON: ``username``, ``password`` or ``credential``, and ``ttl`` if given.

    A list of ICE servers with such an object in it, as some services give, is understood too. ``uris`` are
    not used: which servers there are is configured.

    Raises:
        NetworkError: it is something else.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise NetworkError(f"{where} answered with something that is not JSON") from None
    for candidate in _objects(told):
        username = candidate.get("username")
        password = candidate.get("password", candidate.get("credential"))
        if _is_text(username) and _is_text(password):
            return Login(username, password, now + _lifetime(candidate.get("ttl")))
    raise NetworkError(f"{where} gave no username with a password or credential")


def _objects(told: object) -> list[dict[str, Any]]:
    """The object itself, and those of an ICE server list in it or in its place."""
    inner = told.get("iceServers", told.get("ice_servers")) if isinstance(told, dict) else told
    found = [told] if isinstance(told, dict) else []
    found += [inner] if isinstance(inner, dict) else []
    found += [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= MAX_TEXT


def _lifetime(ttl: object) -> float:
    if not isinstance(ttl, int | float) or isinstance(ttl, bool) or not ttl > 0:
        return DEFAULT_TTL
    return float(min(max(ttl, LEAST_TTL), MOST_TTL))


def _request(server: TurnServer) -> bytes:
    parts = urlsplit(server.credential_url or "")
    query = [*parse_qsl(parts.query, keep_blank_values=True)]
    given = {name for name, _ in query}
    extra = (("service", "turn"), ("username", server.username), ("key", server.credential))
    query += [(name, value) for name, value in extra if value and name not in given]
    target = f"{quote(parts.path or '/', safe='/%:@!$&()*+,;=~')}?{urlencode(query)}"
    host = parts.netloc.rpartition("@")[2]
    lines = (f"GET {target} HTTP/1.1", f"Host: {host}", "Accept: application/json", "Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _get(host: str, port: int, context: ssl.SSLContext | None, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(request)
        raw = await _read_all(reader)
    finally:
        writer.transport.abort()  # nothing is pending, and a TLS farewell may take 30 s
    response = http.client.HTTPResponse(_Recorded(raw))  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read(MAX_ANSWER)


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    """Until the end, or as many bytes as were announced."""
    raw = bytearray()
    while not _is_whole(raw):
        part = await reader.read(4096)
        if not part:
            break
        raw += part
        if len(raw) > MAX_ANSWER:
            raise ValueError("the answer is too long")
    return bytes(raw)


def _is_whole(raw: bytearray) -> bool:
    head, gap, body = bytes(raw).partition(b"\r\n\r\n")
    if not gap:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = line.partition(b":")[2].strip()
            return size.isdigit() and len(body) >= int(size)
        if line.startswith(b"transfer-encoding:"):
            return body.endswith(b"0\r\n\r\n")
    return False


class _Recorded:
    """What `HTTPResponse` wants of a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        """The answer as a file."""
        return io.BytesIO(self._raw)


def _name(error: Exception) -> str:
    """What went wrong, in words that quote nothing of the request."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    if isinstance(error, OSError):
        return system_words(error)
    return type(error).__name__
