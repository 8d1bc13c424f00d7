"""One HTTP exchange with one address: connect, send, read the answer, close, all within one bound of time."""

from __future__ import annotations

import asyncio
import contextlib

from warpgate_core import Endpoint, NetworkError
from warpgate_upnp.http import Response, ResponseReader
from warpgate_upnp.sockets import open_stream, sockaddr

__all__ = ["fetch"]

READ = 16 * 1024  # bytes at a time


async def fetch(local_host: str, remote: Endpoint, data: bytes, within: float) -> Response:
    """Send one request and return its answer, whatever its status.

    Args:
        local_host: own address to leave from; routers map ports for who asks only.
        remote: whom to connect to. Never taken from the answer: there are no redirects.
        data: the whole request.
        within: seconds for all of it.

    Raises:
        NetworkError: nobody is there, or it took too long.
        ProtocolError: the answer is no HTTP, or beyond a bound.
    """
    try:
        async with asyncio.timeout(within):
            return await _exchange(local_host, remote, data)
    except TimeoutError as error:
        raise NetworkError(f"{remote} did not answer over HTTP within {within:g} s") from error
    except OSError as error:
        raise NetworkError(f"{remote} cannot be asked over HTTP: {error}") from error


async def _exchange(local_host: str, remote: Endpoint, data: bytes) -> Response:
    sock = open_stream(local_host, remote.family)
    try:
        await asyncio.get_running_loop().sock_connect(sock, sockaddr(remote))
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(data)
        answer = ResponseReader()
        while answer.response is None:
            part = await reader.read(READ)
            if part:
                answer.feed(part)
            else:
                answer.end()
        return answer.response
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
