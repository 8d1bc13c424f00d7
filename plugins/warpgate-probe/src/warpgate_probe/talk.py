"""The messages of one attempt, read in the order that the reader wants them."""

from __future__ import annotations

from warpgate_core import Attempt, ProtocolError
from warpgate_probe.messages import Kind, Message

__all__ = ["Talk"]

MAX_KEPT = 16  # messages that came before they were asked for; an attempt has nine at most


class Talk:
    """What the peer's same strategy says."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._kept: list[Message] = []

    async def say(self, message: Message) -> None:
        """Send one. Raises StrategyError if it was not delivered."""
        await self._attempt.send(message.encode())

    async def hear(self, kind: Kind, number: int = 0) -> Message:
        """Wait for one of this kind and round.

        Raises:
            ProtocolError: the peer says what makes no sense.
        """
        while True:
            for message in self._kept:
                if (message.kind, message.number) == (kind, number):
                    self._kept.remove(message)
                    return message
            if len(self._kept) >= MAX_KEPT:
                raise ProtocolError(f"the peer sent {MAX_KEPT} messages that nobody asked for")
            self._kept.append(Message.decode(await self._attempt.receive()))
