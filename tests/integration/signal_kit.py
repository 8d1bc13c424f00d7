"""What the signalling tests share: a handler that collects, and a look at sockets left open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import aiomqtt

from warpgate_core.identity import Identity
from warpgate_core.signal.rendezvous import inbox_topic

WAIT = 10.0  # s; only how long a failing test takes


class Received:
    """A message handler that keeps what it gets."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.calls: list[tuple[bytes, bytes, bytes, Any]] = []

    async def __call__(self, msg: bytes, src_pk: bytes, queue_id: bytes, client: Any) -> None:
        self.calls.append((msg, src_pk, queue_id, client))
        self._queue.put_nowait(msg)

    async def get(self) -> bytes:
        """The next message."""
        async with asyncio.timeout(WAIT):
            return await self._queue.get()

    @property
    def messages(self) -> list[bytes]:
        """All so far."""
        return [call[0] for call in self.calls]


class Snoop:
    """An ordinary MQTT client at the inbox of a key, as anybody on a public broker may be one."""

    def __init__(self, port: int, victim: Identity) -> None:
        self._client = aiomqtt.Client("127.0.0.1", port)
        self.topic = inbox_topic(victim.public_key)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._client.subscribe(self.topic)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def overhear(self) -> bytes:
        """The next message to that inbox."""
        async with asyncio.timeout(WAIT):
            message = await self._client.messages.__anext__()
            assert isinstance(message.payload, bytes)
            return message.payload

    async def inject(self, data: bytes) -> None:
        """Publish to that inbox."""
        await self._client.publish(self.topic, data)


@contextmanager
def no_socket_is_left() -> Iterator[None]:
    """Fail if the block leaves a socket open that it did not find."""
    before = _sockets()
    yield
    left = _sockets() - before
    assert not left, f"sockets were left open: {left}"


def _sockets() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the listing's own
        if target.startswith("socket:"):
            found.add(target)
    return found
