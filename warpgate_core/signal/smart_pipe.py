"""A virtual pipe to a key: a queue id, a counter, and what is known of where the destination listens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from warpgate_core.errors import InputError, NodeClosedError
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT

if TYPE_CHECKING:
    from warpgate_core.signal.router import Router

__all__ = ["SmartPipe"]


class SmartPipe:
    """Sends messages to one destination, in order. Made by `Router.pipe`; cheap to throw away.

    Attributes:
        dest: 33-byte key of the destination.
        queue: 8 random bytes, which handlers there see as `queue_id`.
    """

    def __init__(
        self, router: Router, dest: bytes, hints: Sequence[Broker], use_cache: bool, expiry: float
    ) -> None:
        self._router = router
        self._hints = hints
        self._use_cache = use_cache
        self._expiry = expiry
        self._sequence = 0
        self._closed = False
        self.dest = dest
        self.queue = os.urandom(8)

    async def send(self, data: bytes, timeout: float = DELIVERY_TIMEOUT) -> int:
        """Send one message and wait until the destination has it.

        Args:
            data: at most `MAX_PAYLOAD` bytes.
            timeout: seconds; beyond 120 s the message is stale and nobody takes it.

        Returns:
            The number of bytes in `data` once the first acknowledgement is here, or 0 if there was none in
            time, or the destination refused (its clock is wrong: see `Router.skew`).

        Raises:
            InputError: too long, or not bytes.
            NodeClosedError: the pipe or the router is closed.
        """
        if self._closed:
            raise NodeClosedError("this pipe is closed; take another from router.pipe()")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputError(f"a message is bytes, not {type(data).__name__}")
        payload = bytes(data)
        sealed = self._router.codec.seal(self.dest, payload, queue=self.queue, sequence=self._sequence + 1)
        self._sequence += 1
        outcome = await self._router.deliver_by(
            self.dest, sealed, self._hints, timeout, self._use_cache, self._expiry
        )
        return len(payload) if outcome.accepted else 0

    async def close(self) -> None:
        """Forget where the destination listens. Connections stay: they are the router's."""
        self._closed = True
        self._router.forget(self.dest)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<SmartPipe to {self.dest.hex()[:12]}>"
