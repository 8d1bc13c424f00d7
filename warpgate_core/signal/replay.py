"""Every message is accepted once: the bounded memory behind that promise.

A message id is remembered for as long as its envelope could still pass as fresh, not longer. When the
memory is full, the oldest stamps are forgotten first, and from then on everything stamped at or before
what was forgotten is refused: bounded memory never turns into a second delivery.

Rejected: a set that is emptied when full (all of it could be replayed at once), an LRU (a flood of new ids
lets an old one back in), and remembering by arrival time (a clock that is set back would re-open the past).
"""

from __future__ import annotations

import heapq
from typing import Final

from warpgate_core.errors import EnvelopeError

__all__ = ["REPLAY_CAPACITY", "ReplayGuard"]

REPLAY_CAPACITY: Final = 65_536  # ids, about 10 MB when full: 270 accepted messages/s for a whole window


class ReplayGuard:
    """Remembers the ids of accepted messages. Pure: the time is an argument.

    Args:
        capacity: most ids remembered at once.
        window: seconds that an envelope may be older or younger than our clock (see `FRESHNESS`).
    """

    __slots__ = ("_capacity", "_floor", "_order", "_seen", "_window")

    def __init__(self, capacity: int = REPLAY_CAPACITY, window: float = 120.0) -> None:
        self._capacity = max(1, capacity)
        self._window = window
        self._seen: set[bytes] = set()
        self._order: list[tuple[float, bytes]] = []  # heap by stamp; may hold discarded ids
        self._floor = float("-inf")  # everything stamped up to here is refused

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._seen

    def check_and_add(self, message_id: bytes, timestamp: float, now: float) -> None:
        """Accept this id once.

        Args:
            message_id: 16 bytes from the envelope.
            timestamp: seconds since 1970, as stamped by the sender.
            now: seconds since 1970, here.

        Raises:
            EnvelopeError: reason ``replay``: accepted before, or older than what is remembered.
        """
        if self._floor > now + self._window:
            # Our clock was set back by more than the window. What was accepted under the old time and
            # forgotten since cannot be told apart any more, so only what is stamped after this moment
            # is new.
            self._floor = now
        self._forget_before(now - self._window)
        if message_id in self._seen:
            raise EnvelopeError("replay", "the message was received before")
        if timestamp <= self._floor:
            raise EnvelopeError("replay", "the message is older than what is remembered of its time")
        self._seen.add(message_id)
        heapq.heappush(self._order, (timestamp, message_id))
        while len(self._seen) > self._capacity:
            self._forget_oldest()
        if len(self._order) > 2 * self._capacity:  # discarded ids must not pile up either
            self._order = [entry for entry in self._order if entry[1] in self._seen]
            heapq.heapify(self._order)

    def discard(self, message_id: bytes) -> None:
        """Forget an id on purpose: it was accepted, then could not be taken, and may come again."""
        self._seen.discard(message_id)

    def _forget_before(self, limit: float) -> None:
        while self._order and self._order[0][0] < limit:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        timestamp, message_id = heapq.heappop(self._order)
        if message_id in self._seen:
            self._seen.remove(message_id)
            self._floor = max(self._floor, timestamp)
