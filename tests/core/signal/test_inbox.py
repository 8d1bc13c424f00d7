"""From messages to handlers: order, room, and what is refused. On the event loop, without a broker."""

from __future__ import annotations

import asyncio

import pytest

from warpgate_core.signal import inbox as module
from warpgate_core.signal import ordering
from warpgate_core.signal.envelope import AckKey, Envelope, MessageType
from warpgate_core.signal.inbox import Inbox

ALICE, BOB = b"\x02" * 33, b"\x03" * 33


def message(payload: bytes, sequence: int = 0, sender: bytes = ALICE, queue: bytes = bytes(8)) -> Envelope:
    return Envelope(MessageType.DATA, sender, BOB, queue, sequence, 0.0, bytes(16), payload, AckKey(b"", b""))


class Collector:
    def __init__(self, expected: int) -> None:
        self.got: list[bytes] = []
        self._expected = expected
        self.complete = asyncio.Event()

    async def __call__(self, msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        self.got.append(msg)
        if len(self.got) == self._expected:
            self.complete.set()

    async def wait(self) -> list[bytes]:
        async with asyncio.timeout(5):
            await self.complete.wait()
        return self.got


async def quiet(inbox: Inbox) -> None:
    """Until no handler runs."""
    await asyncio.gather(*inbox._workers._tasks)
    await asyncio.sleep(0)  # the callbacks of their end


async def test_order_is_restored_and_outsiders_pass() -> None:
    inbox, collector = Inbox(), Collector(4)
    inbox.handlers.add(collector)
    assert inbox.offer(message(b"2", 2), None) == ""
    assert inbox.offer(message(b"0", 0), None) == ""  # stands outside of any order
    assert inbox.offer(message(b"3", 3), None) == ""
    assert inbox.offer(message(b"1", 1), None) == ""
    assert await collector.wait() == [b"0", b"1", b"2", b"3"]
    assert inbox.offer(message(b"1", 1), None) == "late"
    await inbox.close()


async def test_a_gap_is_given_up_after_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "REORDER_WAIT", 0.02)
    inbox, collector = Inbox(), Collector(3)
    inbox.handlers.add(collector)
    inbox.offer(message(b"2", 2), None)
    inbox.offer(message(b"3", 3), None)
    inbox.offer(message(b"5", 5), None)
    assert await collector.wait() == [b"2", b"3", b"5"]
    assert inbox.offer(message(b"4", 4), None) == "late"
    await inbox.close()


async def test_queues_and_senders_are_apart() -> None:
    inbox, collector = Inbox(), Collector(3)
    inbox.handlers.add(collector)
    inbox.offer(message(b"held", 2), None)
    for sender, queue in ((BOB, bytes(8)), (ALICE, b"otherone"), (BOB, b"otherone")):
        assert inbox.offer(message(b"first", 1, sender, queue), None) == ""
    assert await collector.wait() == [b"first"] * 3
    await inbox.close()


async def test_every_bound_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUES", 3)
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 4)
    monkeypatch.setattr(module, "MAX_MESSAGES", 6)
    inbox, gate = Inbox(), asyncio.Event()
    assert inbox.offer(message(b"x"), None) == "unhandled"

    async def stuck(*args: object) -> None:
        await gate.wait()

    inbox.handlers.add(stuck)
    assert [inbox.offer(message(b"x"), None) for _ in range(6)] == [""] * 4 + ["full"] * 2
    assert [inbox.offer(message(b"x", 0, BOB), None) for _ in range(3)] == ["", "", "full"]  # six in all
    gate.set()
    await quiet(inbox)
    for number in range(10):  # idle queues make room for new ones
        assert inbox.offer(message(b"x", 0, ALICE, number.to_bytes(8, "big")), None) == ""
        await quiet(inbox)
    assert len(inbox._queues) <= 3
    gate.clear()
    for number in range(3):
        assert inbox.offer(message(b"x", 0, BOB, number.to_bytes(8, "big")), None) == ""
    assert inbox.offer(message(b"x", 0, BOB, b"one more"), None) == "full"  # none of them is idle
    await inbox.close()


async def test_after_a_worker_ended_the_next_message_starts_another() -> None:
    inbox = Inbox()
    for number in range(3):
        collector = Collector(1)
        inbox.handlers.clear()
        inbox.handlers.add(collector)
        inbox.offer(message(b"%d" % number, number + 1), None)
        assert await collector.wait() == [b"%d" % number]
        await quiet(inbox)
    await inbox.close()
