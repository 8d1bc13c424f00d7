"""Sequence numbers to order: hold what came early, a bounded time, and never go back. Pure."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["HELD", "REORDER_WAIT", "Reorder"]

# Seconds that a message waits for the one before it: the first retransmission of that one (1 s without any
# measurement, RFC 6298), its way, and as much again.
REORDER_WAIT: Final = 2.0
HELD: Final = (
    64  # messages held at once; a sender waits for acknowledgements, so more is no honest reordering
)

T = TypeVar("T")


class Reorder(Generic[T]):
    """The order of one queue, beginning at sequence 1.

    Attributes:
        deadline: when `skip` is due, on the clock given to `push`; None while nothing is held.
    """

    __slots__ = ("_held", "_next", "deadline")

    def __init__(self) -> None:
        self._next = 1
        self._held: dict[int, T] = {}
        self.deadline: float | None = None

    def __len__(self) -> int:
        return len(self._held)

    def push(self, sequence: int, item: T, now: float) -> list[T] | None:
        """Take a message.

        Args:
            sequence: from 1.
            item: what to hand out in its turn.
            now: monotonic seconds.

        Returns:
            What is in turn now, in order; perhaps nothing. None if the item is refused: its place has
            passed, is taken, or too much is held already.
        """
        if sequence < self._next or sequence in self._held:
            return None
        if sequence != self._next and len(self._held) >= HELD:
            return None
        self._held[sequence] = item
        ready = self._take()
        if not self._held:
            self.deadline = None
        elif ready or self.deadline is None:
            self.deadline = now + REORDER_WAIT
        return ready

    def skip(self, now: float) -> list[T]:
        """Give up on what is missing: hand out from the earliest that is held."""
        if self._held:
            self._next = min(self._held)
        ready = self._take()
        self.deadline = now + REORDER_WAIT if self._held else None
        return ready

    def _take(self) -> list[T]:
        ready = []
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next += 1
        return ready
