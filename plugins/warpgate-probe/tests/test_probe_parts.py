"""Messages, options, gate and descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.worlds import World
from tests.lab.probe.memory import CONE, homes
from warpgate_core import ConfigError, ConnectError, ProtocolError, Registry
from warpgate_core.testing.loop import run_virtual
from warpgate_probe import Probe, ProbeOptions
from warpgate_probe.descriptors import affordable, descriptors_left
from warpgate_probe.gate import Gate
from warpgate_probe.messages import MAX_RUNS, Kind, Message, Section
from warpgate_probe.order import Run

# -- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Message(Kind.GO),
        Message(Kind.GO, 7),
        Message(Kind.BASE, 3, port=65_535),
        Message(Kind.PORTS, runs=[Run(1, 1, 1), Run(65_535, -2, 300)]),
        Message(Kind.PORTS, runs=[Run(number, 1, 1) for number in range(1, MAX_RUNS + 1)]),
    ],
    ids=str,
)
def test_messages_come_back(message: Message) -> None:
    data = message.encode()
    assert Message.decode(data) == message
    assert len(data) <= 512


@pytest.mark.parametrize(
    "data",
    [b"", b"\1", b"\0\0", b"\4\0", b"\3\0", b"\3\0\0\0", b"\2\0", b"\2\0\0\1\0\0\0\1", b"\2\0" + b"\1" * 600],
)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Message.decode(data)


@given(st.binary(max_size=520))
def test_any_bytes_are_a_message_within_bounds_or_refused(data: bytes) -> None:
    try:
        message = Message.decode(data)
    except ProtocolError:
        return
    assert len(message.runs) <= MAX_RUNS
    assert sum(run.count for run in message.runs) <= 65_535 * MAX_RUNS
    assert Message.decode(message.encode()) == message


def test_sections() -> None:
    for reserved in (False, True):
        assert Section.decode(Section(reserved).encode()) == Section(reserved)
        assert Section.decode(Section(reserved).encode() + b"more") == Section(reserved)
    for rubbish in (b"", b"\1", b"\0\1"):
        with pytest.raises(ProtocolError):
            Section.decode(rubbish)


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"sockets": 257}, {"probes": 1_201}, {"rate": 201.0}, {"spacing": 19}])
def test_the_bounds_cannot_be_raised(wrong: dict[str, float]) -> None:
    registry = Registry(discover=False, options={"probe": wrong})
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        registry.add(Probe)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProbeOptions(**wrong)  # type: ignore[arg-type]


def test_the_gate_is_no_option() -> None:
    with pytest.raises((ConfigError, TypeError)):
        ProbeOptions(gate=Gate())  # type: ignore[call-arg]


# -- gate --------------------------------------------------------------------------------------


async def _gate() -> None:
    loop = asyncio.get_running_loop()
    gate, start = Gate(), loop.time()
    assert await gate.try_enter(loop.time())
    assert not await gate.try_enter(loop.time())
    gate.leave(spacing=0)
    assert await gate.try_enter(loop.time())  # nothing was searched, so there is nothing to wait for
    waiting = asyncio.create_task(gate.enter(loop.time))
    given_up = asyncio.create_task(gate.enter(loop.time))
    await asyncio.sleep(3)
    given_up.cancel()
    gate.leave(spacing=20)
    await waiting
    assert loop.time() - start == pytest.approx(20, abs=0.001)  # from beginning to beginning
    gate.leave(spacing=20)
    assert not await gate.try_enter(loop.time() + 19.9)
    late = asyncio.create_task(gate.enter(loop.time))
    await asyncio.sleep(1)
    late.cancel()
    await asyncio.wait([late])
    await asyncio.sleep(19.1)
    assert await gate.try_enter(loop.time())


def test_gate() -> None:
    run_virtual(_gate)


# -- descriptors -------------------------------------------------------------------------------


@pytest.fixture
def limit() -> Iterator[None]:
    """Puts the limit back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def leave(count: int) -> None:
    """Let this process open so many descriptors more."""
    used = len(os.listdir("/dev/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_at_most_half_of_what_is_left(limit: None) -> None:
    leave(100)
    left = descriptors_left()
    assert left is not None
    assert 90 <= left <= 100
    assert affordable(256, left) == left // 2
    assert affordable(20, left) == 20
    assert affordable(256, None) == 256


async def _opened() -> int:
    world = World()
    alice, bob = homes(world, CONE, "symmetric-random")
    async with alice, bob:
        world.network.cut(world.network.hosts["host 1"], world.network.hosts["host 2"])
        leave(100)
        with pytest.raises(ConnectError):
            await alice.connect(bob.address, plugins=["probe"], timeout=3)
        sources = {event.source for event in world.sent_by("host 2")}
        return len(sources)


def test_a_search_opens_no_more_than_that(limit: None) -> None:
    assert 40 <= run_virtual(_opened) <= 50


async def _too_few() -> str:
    world = World()
    alice, bob = homes(world, "symmetric-random", CONE)
    async with alice, bob:
        leave(20)
        with pytest.raises(ConnectError) as caught:
            await alice.connect(bob.address, plugins=["probe"], timeout=3)
        assert not world.sent_by("host 1")
    return str(caught.value.exceptions[0])


def test_too_few_are_named(limit: None) -> None:
    assert "ulimit -n" in run_virtual(_too_few)
