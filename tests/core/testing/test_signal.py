"""In-memory signalling: the real envelopes, acknowledgements and replay protection over a bad line."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.testing.worlds import virtual
from warpgate_core.identity import Identity
from warpgate_core.signal.envelope import Envelope, EnvelopeCodec, MessageType
from warpgate_core.signal.signaller import Signaller
from warpgate_core.testing.line import Line
from warpgate_core.testing.signal import MemorySignal, MemorySignaller

ALICE = Identity.from_secret(bytes(31) + b"\1")
BOB = Identity.from_secret(bytes(31) + b"\2")


def join(signal: MemorySignal, identity: Identity, skew: float = 0.0) -> MemorySignaller:
    loop = asyncio.get_running_loop()
    return signal.join(EnvelopeCodec(identity, lambda: signal.get_time() + skew, loop.time))


class Taker:
    """Takes every envelope, or refuses all."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.got: list[Envelope] = []

    def __call__(self, envelope: Envelope) -> bool:
        self.got.append(envelope)
        return self.takes


def test_a_message_and_its_acknowledgement_take_a_round_trip() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        signal = MemorySignal(Line(delay=0.02))
        alice, bob = join(signal, ALICE), join(signal, BOB)
        usable: Signaller = alice
        bob.on_envelope = taker = Taker()
        began = loop.time()
        sealed = alice.codec.seal(BOB.public_key, b"offer", type=MessageType.CONTROL)
        assert await usable.deliver(BOB.public_key, sealed)
        assert loop.time() - began == pytest.approx(0.08)
        (envelope,) = taker.got
        assert envelope.payload == b"offer"
        assert envelope.sender == ALICE.public_key
        assert envelope.message_id == sealed.message_id
        assert repr(alice).startswith("<MemorySignaller 02")

    virtual(main)


@pytest.mark.parametrize("seed", range(5))
def test_over_a_bad_line_everything_arrives_once(seed: int) -> None:
    async def main() -> None:
        signal = MemorySignal(Line(delay=0.02, jitter=0.05, loss=0.2, duplicate=0.4, reorder=0.3))
        alice, bob = join(signal, ALICE), join(signal, BOB)
        bob.on_envelope = taker = Taker()
        sealed = [alice.codec.seal(BOB.public_key, b"%d" % number) for number in range(30)]
        done = await asyncio.gather(*(alice.deliver(BOB.public_key, one, timeout=60) for one in sealed))
        assert all(done)
        assert sorted(int(envelope.payload) for envelope in taker.got) == list(range(30))
        assert signal.fates["lost"] > 0
        assert alice._pending == {}

    virtual(main, seed)


def test_nobody_there_everything_down_or_refused_is_false_in_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        signal = MemorySignal(Line(delay=0.02))
        alice = join(signal, ALICE)

        async def deliver() -> bool:
            began = loop.time()
            done = await alice.deliver(BOB.public_key, alice.codec.seal(BOB.public_key, b"?"), timeout=3)
            assert done or loop.time() - began == pytest.approx(3)
            return done

        assert not await deliver()
        bob = join(signal, BOB)
        assert not await deliver(), "no handler"
        bob.on_envelope = taker = Taker(takes=False)
        assert not await deliver(), "the handler refused"
        assert bob.refused["unhandled"] > 1
        taker.takes = True
        assert await deliver()
        signal.is_down = True
        assert not await deliver()
        signal.is_down = False
        assert await deliver()
        signal.leave(BOB.public_key)
        signal.leave(BOB.public_key)
        assert not await deliver()
        with pytest.raises(ValueError, match="joined already"):
            join(signal, ALICE)

    virtual(main)


def test_what_is_under_way_when_it_goes_down_is_lost() -> None:
    async def main() -> None:
        signal = MemorySignal(Line(delay=0.02))
        alice, bob = join(signal, ALICE), join(signal, BOB)
        bob.on_envelope = taker = Taker()
        sending = asyncio.create_task(
            alice.deliver(BOB.public_key, alice.codec.seal(BOB.public_key, b"?"), timeout=0.15)
        )
        await asyncio.sleep(0.01)
        signal.is_down = True
        assert not await sending
        assert taker.got == []
        assert signal.fates["lost"] == 1

    virtual(main)


def test_a_wrong_clock_is_answered_and_nothing_is_handed_over() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        signal = MemorySignal(Line(delay=0.02))
        alice, bob = join(signal, ALICE, skew=-3600), join(signal, BOB)
        bob.on_envelope = taker = Taker()
        began = loop.time()
        assert not await alice.deliver(BOB.public_key, alice.codec.seal(BOB.public_key, b"?"))
        assert loop.time() - began == pytest.approx(0.08), "it knows at once"
        assert taker.got == []
        assert bob.refused == {"stale": 1}

    virtual(main)


def test_replays_junk_and_forged_acknowledgements_change_nothing() -> None:
    async def main() -> None:
        signal = MemorySignal()
        alice, bob = join(signal, ALICE), join(signal, BOB)
        bob.on_envelope = taker = Taker()
        sealed = alice.codec.seal(BOB.public_key, b"once")
        bob.receive(sealed.data)
        bob.receive(sealed.data)
        assert len(taker.got) == 1
        bob.receive(b"junk")
        bob.receive(b"\1\1" + bytes(300))
        alice.receive(sealed.data)  # not for her
        assert sum(bob.refused.values()) == 2
        assert sum(alice.refused.values()) == 1
        forged = b"\1\2" + sealed.ack.id + bytes(37)
        signal.is_down = True
        sending = asyncio.create_task(alice.deliver(BOB.public_key, sealed, timeout=1))
        await asyncio.sleep(0.1)
        alice.receive(forged)
        await asyncio.sleep(0.1)
        assert not sending.done()
        assert not await sending

    virtual(main)


async def test_it_works_in_real_time_too() -> None:
    signal = MemorySignal(Line(delay=0.001))
    alice, bob = join(signal, ALICE), join(signal, BOB)
    bob.on_envelope = Taker()
    assert await alice.deliver(BOB.public_key, alice.codec.seal(BOB.public_key, b"?"))
