"""Questions over UDP: repeated, matched, bounded, and nothing stays open."""

from __future__ import annotations

import asyncio
import os

import pytest
from upnp_servers import HERE, QUICK, datagrams

from warpgate_core import Endpoint, NetworkError, ProtocolError
from warpgate_upnp.datagram import Conversation
from warpgate_upnp.errors import RefusalError


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def echo_of(question: bytes) -> object:
    def understand(data: bytes) -> bytes | None:
        return data if data == b"re: " + question else None

    return understand


async def ask(talk: Conversation, question: bytes) -> object:
    return await talk.ask(question, echo_of(question), QUICK)  # type: ignore[arg-type]


async def test_each_question_gets_its_own_answer() -> None:
    waiting: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        waiting.append(b"re: " + data)
        return waiting[::-1] if len(waiting) == 3 else []

    async with datagrams(answer) as server:
        talk = await Conversation.open(HERE, server.endpoint)
        answers = await asyncio.gather(*(ask(talk, bytes([65 + number])) for number in range(3)))
        assert answers == [b"re: A", b"re: B", b"re: C"]
        await talk.close()


async def test_what_is_lost_is_sent_again() -> None:
    seen: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        seen.append(data)
        return [b"re: " + data] if len(seen) == 3 else []

    async with datagrams(answer) as server:
        talk = await Conversation.open(HERE, server.endpoint)
        assert await ask(talk, b"x") == b"re: x"
        assert seen == [b"x"] * 3
        await talk.close()


async def test_rubbish_before_the_answer_is_passed_over() -> None:
    async with datagrams(lambda data: [b"", b"rubbish", bytes(1_400), b"re: " + data]) as server:
        talk = await Conversation.open(HERE, server.endpoint)

        def understand(data: bytes) -> bytes:
            if not data.startswith(b"re"):
                raise ProtocolError("rubbish")
            return data

        assert await talk.ask(b"x", understand, QUICK) == b"re: x"
        await talk.close()


async def test_a_refusal_ends_it_at_once() -> None:
    async with datagrams(lambda data: [b"no"]) as server:
        talk = await Conversation.open(HERE, server.endpoint)

        def understand(data: bytes) -> None:
            raise RefusalError("it said no", code=3)

        with pytest.raises(RefusalError, match="it said no"):
            await talk.ask(b"x", understand, QUICK)
        assert server.received == [b"x"]
        await talk.close()


async def test_nobody_there_is_known_at_once() -> None:
    async with datagrams(lambda data: []) as server:
        gone = server.endpoint
    await asyncio.sleep(0)
    talk = await Conversation.open(HERE, gone)
    began = asyncio.get_running_loop().time()
    with pytest.raises(NetworkError, match="cannot be asked"):
        await ask(talk, b"x")
    assert asyncio.get_running_loop().time() - began < QUICK.resend
    await talk.close()


async def test_silence_ends_after_so_many_tries() -> None:
    async with datagrams(lambda data: []) as server:
        talk = await Conversation.open(HERE, server.endpoint)
        with pytest.raises(NetworkError, match="does not answer"):
            await ask(talk, b"x")
        assert server.received == [b"x"] * QUICK.tries
        await talk.close()


async def test_others_cannot_answer() -> None:
    async with datagrams(lambda data: []) as server, datagrams(lambda data: []) as stranger:
        talk = await Conversation.open(HERE, server.endpoint)
        task = asyncio.create_task(ask(talk, b"x"))
        await server.got.wait()
        assert talk._transport is not None
        mine = talk._transport.get_extra_info("sockname")
        assert stranger.transport is not None
        assert server.transport is not None
        for _ in range(10):
            stranger.transport.sendto(b"re: x", mine)
        server.transport.sendto(b"re: x but not quite", mine)
        with pytest.raises(NetworkError):
            await task
        await talk.close()


async def test_closing_fails_what_is_under_way_and_nothing_stays_open() -> None:
    before = descriptors()
    async with datagrams(lambda data: []) as server:
        talk = await Conversation.open(HERE, server.endpoint)
        task = asyncio.create_task(ask(talk, b"x"))
        await asyncio.sleep(0)
        await talk.close()
        with pytest.raises(NetworkError, match="is over"):
            await task
        with pytest.raises(NetworkError, match="is over"):
            await ask(talk, b"y")
        await talk.close()
    await asyncio.sleep(0)
    assert descriptors() == before


async def test_a_cancelled_question_leaves_nothing() -> None:
    async with datagrams(lambda data: []) as server:
        talk = await Conversation.open(HERE, server.endpoint)
        task = asyncio.create_task(ask(talk, b"x"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not talk._questions
        await talk.close()


async def test_an_address_that_is_not_ours() -> None:
    before = descriptors()
    with pytest.raises(NetworkError, match="no UDP socket"):
        await Conversation.open("203.0.113.1", Endpoint(HERE, 9))
    assert descriptors() == before
