"""STUN over TCP from the listener's own port (RFC 8489 section 6.2.2): how a NAT maps our TCP.

A NAT maps TCP apart from UDP, and forgets the mapping when the last connection through it ends. So this
is a context that holds the connection while the mapping is of use, as for simultaneous open. It ends
with a reset, because the same port must be able to dial the same server again at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, PipeError, ProtocolError
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.stun import HEADER_LENGTH, encode_request, parse_reply, reply_length, transaction_of
from warpgate_core.net.tcp import reset

__all__ = ["ask_over_tcp", "tcp_binding"]


async def ask_over_tcp(link: StreamLink) -> Endpoint:
    """One binding request on an open connection.

    Returns:
        Our endpoint as the server saw it.

    Raises:
        NetworkError: the server hung up.
        ProtocolError: the answer is not one, or not ours.
    """
    transaction = os.urandom(12)
    try:
        link.write(encode_request(transaction))
        header = await link.read_exactly(HEADER_LENGTH)
        body = await link.read_exactly(reply_length(header))
    except PipeError as error:
        raise NetworkError(f"STUN server {link.remote} hung up without an answer") from error
    except ProtocolError as error:
        raise ProtocolError(f"STUN server {link.remote}: {error}") from error
    if transaction_of(header) != transaction:
        raise ProtocolError(f"STUN server {link.remote} answered a request that we did not make")
    return parse_reply(header + body).mapped


@asynccontextmanager
async def tcp_binding(
    dial: Callable[[Endpoint], Awaitable[StreamLink]],
    servers: Sequence[Callable[[], Awaitable[Endpoint]]],
) -> AsyncIterator[Endpoint]:
    """Learn the mapped TCP endpoint from the first server that answers, and hold the mapping meanwhile.

    Args:
        dial: opens a connection from the port in question.
        servers: each looks up the address of one server; all are asked at once.

    Yields:
        Our endpoint as that server saw it.

    Raises:
        NetworkError: none of them answered; bound the wait with `asyncio.timeout`.
    """
    links: list[StreamLink] = []

    async def ask(lookup: Callable[[], Awaitable[Endpoint]]) -> tuple[StreamLink, Endpoint]:
        link = await dial(await lookup())
        links.append(link)
        return link, await ask_over_tcp(link)

    tasks = [asyncio.create_task(ask(lookup)) for lookup in servers]
    try:
        winner, mapped = await _first(tasks)
        await _cancel(tasks)
        for link in links:
            if link is not winner:
                reset(link)
        yield mapped
    finally:
        await _cancel(tasks)
        for link in links:
            reset(link)
        for link in links:
            await link.wait_closed()


async def _first(tasks: list[asyncio.Task[tuple[StreamLink, Endpoint]]]) -> tuple[StreamLink, Endpoint]:
    problems: list[str] = []
    for finished in asyncio.as_completed(tasks):
        try:
            return await finished
        except (NetworkError, ProtocolError) as error:
            problems.append(str(error))
    raise NetworkError("no STUN server answered over TCP: " + ("; ".join(problems) or "none is configured"))


async def _cancel(tasks: list[asyncio.Task[tuple[StreamLink, Endpoint]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
