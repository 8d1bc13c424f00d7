"""Transactions: when requests are sent again, and which answers count. On a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aioice import stun

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.net.stun import is_stun, transaction_of
from warpgate_core.net.stun_client import FIRST_RTO, MAX_PENDING, MIN_RTO, Binding, Schedule, StunClient
from warpgate_core.testing.loop import run_virtual

HERE = Endpoint("192.0.2.2", 5000)
MAPPED = Endpoint("203.0.113.9", 40_000)
SERVER = Endpoint("198.51.100.1", 3478)
OTHER = Endpoint("198.51.100.2", 3479)


def answer(request: bytes, mapped: Endpoint = MAPPED, **attributes: object) -> bytes:
    named: dict[str, object] = {"XOR-MAPPED-ADDRESS": tuple(mapped)}
    named.update({name.replace("_", "-"): value for name, value in attributes.items()})
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_of(request), named))


class Wire:
    """A client whose datagrams go to `on_send` and are written down with their time."""

    def __init__(self, on_send: Callable[[bytes, Endpoint], None] | None = None) -> None:
        self.sent: list[tuple[float, bytes, Endpoint]] = []
        self.on_send = on_send
        self.client = StunClient(HERE, self.send)
        self.start = asyncio.get_running_loop().time()

    def send(self, data: bytes, remote: Endpoint) -> None:
        assert is_stun(data)
        self.sent.append((asyncio.get_running_loop().time() - self.start, data, remote))
        if self.on_send is not None:
            self.on_send(data, remote)

    @property
    def times(self) -> list[float]:
        return [round(at, 6) for at, _, _ in self.sent]

    def later(self, delay: float, data: bytes, source: Endpoint = SERVER) -> None:
        asyncio.get_running_loop().call_later(delay, self.client.receive, data, source)


def virtual(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    run_virtual(main)


def test_an_answer() -> None:
    async def test() -> None:
        wire = Wire(lambda data, remote: wire.later(0.03, answer(data, OTHER_ADDRESS=tuple(OTHER))))
        binding = await wire.client.binding(SERVER)
        assert binding == Binding(HERE, SERVER, SERVER, MAPPED, OTHER, binding.rtt)
        assert binding.rtt == pytest.approx(0.03)
        assert wire.times == [0.0]

    virtual(test)


def test_seven_tries_with_doubling_pauses_then_a_clear_error() -> None:
    """RFC 8489 section 6.2.1, with 0.2 s in the place of 0.5 s."""

    async def test() -> None:
        wire = Wire()
        with pytest.raises(NetworkError, match=r"198\.51\.100\.1:3478 did not answer 7 requests"):
            await wire.client.binding(SERVER)
        assert wire.times == [0.0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6]
        assert asyncio.get_running_loop().time() - wire.start == pytest.approx(12.6 + 16 * 0.2)
        assert len({data for _, data, _ in wire.sent}) == 1, "a retransmission is the same request"

    virtual(test)


def test_a_lost_request_is_made_good_by_the_second() -> None:
    async def test() -> None:
        wire = Wire()
        wire.on_send = lambda data, remote: wire.later(0.05, answer(data)) if len(wire.sent) == 2 else None
        binding = await wire.client.binding(SERVER)
        assert binding.mapped == MAPPED
        assert wire.times == [0.0, 0.2]
        assert wire.client.rto(SERVER) == FIRST_RTO, "of a repeated request nothing is measured (Karn)"

    virtual(test)


def test_the_first_pause_follows_the_measured_round_trip() -> None:
    async def test() -> None:
        wire = Wire(lambda data, remote: wire.later(0.1, answer(data)))
        assert wire.client.rto(SERVER) == FIRST_RTO
        await wire.client.binding(SERVER)
        assert wire.client.rto(SERVER) == pytest.approx(0.3)  # 0.1 + 4 * 0.05, RFC 6298 section 2.2
        for _ in range(40):
            await wire.client.binding(SERVER)
        assert 0.1 < wire.client.rto(SERVER) < 0.11
        assert wire.client.rto(OTHER) == FIRST_RTO
        near = Wire(lambda data, remote: near.later(0.0001, answer(data)))
        await near.client.binding(SERVER)
        assert near.client.rto(SERVER) == MIN_RTO

    virtual(test)


def test_an_answer_from_elsewhere_or_to_another_question_does_not_count() -> None:
    async def test() -> None:
        wire = Wire()

        def forge(data: bytes, remote: Endpoint) -> None:
            forged = Endpoint("203.0.113.66", 6)
            assert wire.client.receive(answer(data, forged), OTHER)  # it knew the id: ours, but not believed
            assert wire.client.receive(answer(data, forged), Endpoint(SERVER.host, 1))
            stranger = data[:8] + bytes(12) + data[20:]
            assert not wire.client.receive(answer(stranger, forged), SERVER)  # somebody else may want it
            wire.later(0.02, answer(data))

        wire.on_send = forge
        assert (await wire.client.binding(SERVER)).mapped == MAPPED
        assert wire.client.counters.wrong_source == 2

    virtual(test)


def test_with_change_request_the_answer_comes_from_elsewhere() -> None:
    async def test() -> None:
        wire = Wire(lambda data, remote: wire.later(0.02, answer(data), OTHER))
        assert (await wire.client.binding(SERVER, change_ip=True)).source == OTHER

    virtual(test)


@pytest.mark.parametrize("forged", [b"", b"\xff" * 40, bytes(4)])
def test_a_server_that_answers_garbage_is_an_error_at_once(forged: bytes) -> None:
    async def test() -> None:
        wire = Wire(lambda data, remote: wire.later(0.02, answer(data)[:20] + forged))
        with pytest.raises(ProtocolError, match=r"STUN server 198\.51\.100\.1:3478: a "):
            await wire.client.binding(SERVER)
        assert wire.client.counters.malformed == 1

    virtual(test)


def test_an_endpoint_of_the_wrong_family_is_no_answer() -> None:
    async def test() -> None:
        wire = Wire(lambda data, remote: wire.later(0.02, answer(data, Endpoint("2001:db8::1", 5))))
        with pytest.raises(ProtocolError, match="wrong family"):
            await wire.client.binding(SERVER)

    virtual(test)


def test_a_second_answer_and_a_late_one_change_nothing() -> None:
    async def test() -> None:
        wire = Wire()

        def twice(data: bytes, remote: Endpoint) -> None:
            wire.client.receive(answer(data), SERVER)
            wire.client.receive(answer(data, Endpoint("203.0.113.66", 6)), SERVER)

        wire.on_send = twice
        assert (await wire.client.binding(SERVER)).mapped == MAPPED
        assert not wire.client.receive(answer(wire.sent[0][1]), SERVER)

    virtual(test)


def test_cancelling_ends_the_retransmissions() -> None:
    async def test() -> None:
        wire = Wire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await wire.client.binding(SERVER)
        await asyncio.sleep(60)
        assert wire.times == [0.0, 0.2]
        assert not wire.client.receive(answer(wire.sent[0][1]), SERVER)

    virtual(test)


def test_closing_fails_what_is_under_way() -> None:
    async def test() -> None:
        wire = Wire()
        task = asyncio.create_task(wire.client.binding(SERVER))
        await asyncio.sleep(0)
        wire.client.close()
        with pytest.raises(NetworkError, match="was closed"):
            await task

    virtual(test)


def test_the_number_under_way_is_bounded() -> None:
    async def test() -> None:
        wire = Wire()
        schedule = Schedule(tries=1, last=1)
        tasks = [
            asyncio.create_task(wire.client.binding(SERVER, schedule=schedule)) for _ in range(MAX_PENDING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(NetworkError, match="under way"):
            await wire.client.binding(SERVER)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, NetworkError) for outcome in outcomes)
        assert len(wire.sent) == MAX_PENDING

    virtual(test)
