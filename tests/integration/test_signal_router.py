"""The router over real mosquitto brokers: the interface of the earlier program, and what it promises."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import ecdsa
import pytest

from tests.fixtures.brokers import Gate, Mosquitto
from tests.integration.signal_kit import Received, Snoop, no_socket_is_left
from warpgate_core.address import BrokerHint
from warpgate_core.errors import ConfigError, IdentityError, InputError, NoBrokerError, NodeClosedError
from warpgate_core.identity import Identity
from warpgate_core.signal import inbox as inbox_module
from warpgate_core.signal.envelope import MAX_PAYLOAD, Envelope, MessageType
from warpgate_core.signal.router import Router

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    with no_socket_is_left():
        yield


class Signing:
    """A key pair as aionetiface has it."""

    def __init__(self) -> None:
        self.private_key = ecdsa.SigningKey.generate(curve=ecdsa.SECP256k1)
        self.public_key = self.private_key.get_verifying_key()
        self.compact_public_key = self.public_key.to_string("compressed")
        self.public_key_hex = self.compact_public_key.hex()


def router(kp: object, handler: Any = None, *brokers: Mosquitto, **options: Any) -> Router:
    options.setdefault("get_time", time.time)
    options.setdefault("servers", [broker.url for broker in brokers])
    return Router(kp, handler, **options)


async def test_used_alone_as_it_was_documented() -> None:
    """Keys of the ecdsa kind, positional arguments, the dictionary of servers."""
    ours, theirs, received = Signing(), Signing(), Received()
    async with Mosquitto() as broker:
        servers = {socket.AF_INET: {"127.0.0.1": {"port": broker.port, "weight": 1.0}}, socket.AF_INET6: {}}
        async with (
            Router(theirs, received, time.time, None, servers),
            Router(ours, get_time=time.time, servers=servers) as sender,
        ):
            pipe = await sender.pipe(dest_pub_hex=theirs.public_key_hex)
            assert await pipe.send(b"hello") == 5
            assert await received.get() == b"hello"
    message, source, queue, client = received.calls[0]
    assert (message, source, queue) == (b"hello", ours.compact_public_key, pipe.queue)
    assert client.broker.port == broker.port


async def test_a_clock_is_required() -> None:
    me = Identity.generate()
    with pytest.raises(TypeError, match="NTP-corrected clock"):
        Router(me, servers=["h"])
    with pytest.raises(TypeError, match="get_time"):
        Router(me, None, None, servers=["h"])  # type: ignore[arg-type]
    for wrong in (5, lambda: "now", lambda: float("nan")):
        with pytest.raises(ConfigError, match="seconds since 1970"):
            Router(me, get_time=wrong, servers=["h"])  # type: ignore[arg-type]


async def test_no_broker_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Identity.generate()
    with pytest.raises(NoBrokerError, match="WARPGATE_BROKERS"):
        await Router(me, get_time=time.time).start()
    async with Mosquitto() as broker:
        monkeypatch.setenv("WARPGATE_BROKERS", broker.url)
        async with Router(me, get_time=time.time) as one:
            assert [row.state for row in one.brokers] == ["up"]


async def test_what_cannot_be_sent_is_refused_before() -> None:
    me = Identity.generate()
    closed = router(me, None, servers=["127.0.0.1:1"])
    with pytest.raises(NodeClosedError, match="not running"):
        await closed.pipe(me.public_key_hex)
    async with Mosquitto() as broker, router(me, Received(), broker) as one:
        with pytest.raises(InputError, match="66"):
            await one.pipe("xyz")
        with pytest.raises(IdentityError):
            await one.pipe("02" + "00" * 32)
        with pytest.raises(ConfigError):
            await one.pipe(me.public_key_hex, hint_brokers=[{"port": 1}])
        pipe = await one.pipe(me.public_key_hex)
        with pytest.raises(InputError, match="at most"):
            await pipe.send(bytes(MAX_PAYLOAD + 1))
        with pytest.raises(InputError, match="bytes"):
            await pipe.send("text")  # type: ignore[arg-type]
        assert await pipe.send(bytes(MAX_PAYLOAD)) == MAX_PAYLOAD  # to oneself, too
        await pipe.close()
        with pytest.raises(NodeClosedError, match="closed"):
            await pipe.send(b"x")


async def test_nobody_there_is_zero_after_the_timeout() -> None:
    async with Mosquitto() as broker, router(Identity.generate(), None, broker) as one:
        pipe = await one.pipe(Identity.generate().public_key_hex)
        began = time.monotonic()
        assert await pipe.send(b"x", timeout=0.3) == 0
        assert 0.3 <= time.monotonic() - began < 3


async def test_the_same_bytes_twice_are_two_messages_each_handled_once() -> None:
    """Three brokers carry every message; the recipient hears it three times."""
    me, received = Identity.generate(), Received()
    async with Mosquitto() as a, Mosquitto() as b, Mosquitto() as c:
        brokers = (a, b, c)
        async with (
            router(me, received, *brokers) as theirs,
            router(Identity.generate(), None, *brokers) as one,
        ):
            assert len(theirs.hints) == 3
            pipe = await one.pipe(me.public_key_hex, use_cache=False)
            for _ in range(20):
                assert await pipe.send(b"again") == 5
            for _ in range(20):
                assert await received.get() == b"again"
            await pipe.send(b"last")
            assert await received.get() == b"last"
            assert theirs.counters["accepted"] == 21
            assert theirs.counters["copy"] >= 20
    assert len(received.calls) == 21


async def test_messages_of_a_pipe_are_handled_in_the_order_of_sending() -> None:
    me, received = Identity.generate(), Received()
    async with (
        Mosquitto() as a,
        Mosquitto() as b,
        router(me, received, a, b),
        router(Identity.generate(), None, a, b) as one,
    ):
        pipe = await one.pipe(me.public_key_hex)
        sent = [b"%d" % number for number in range(60)]
        assert await asyncio.gather(*map(pipe.send, sent)) == [len(data) for data in sent]
        assert [await received.get() for _ in sent] == sent


async def test_handlers_are_a_set_and_cannot_harm_each_other(caplog: pytest.LogCaptureFixture) -> None:
    me, first, second, plain = Identity.generate(), Received(), Received(), []

    async def broken(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        raise ValueError("a defect of the application")

    def ordinary(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        plain.append(msg)

    async with Mosquitto() as broker, router(me, broken, broker) as one:
        for handler in (first, first, second, ordinary):
            one.add_msg_handler(handler)
        pipe = await one.pipe(me.public_key_hex)
        assert await pipe.send(b"1") == 1
        assert await first.get() == await second.get() == b"1"
        one.del_msg_handler(second)
        one.del_msg_handler(second)
        assert await pipe.send(b"2") == 1
        assert await first.get() == b"2"
    assert (first.messages, second.messages, plain) == ([b"1", b"2"], [b"1"], [b"1", b"2"])
    assert "a defect of the application" in caplog.text
    assert "broken" in caplog.text


async def test_a_slow_handler_delays_neither_acknowledgements_nor_other_queues() -> None:
    me, handled, gate = Identity.generate(), [], asyncio.Event()
    done = asyncio.Queue[bytes]()

    async def slow(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        if msg.startswith(b"slow"):
            await gate.wait()
        handled.append(msg)
        done.put_nowait(msg)

    async with Mosquitto() as broker, router(me, slow, broker) as one:
        held, free = await one.pipe(me.public_key_hex), await one.pipe(me.public_key_hex)
        assert await held.send(b"slow 1") == 6
        assert await held.send(b"slow 2") == 6
        assert await free.send(b"quick") == 5
        assert await done.get() == b"quick"
        assert handled == [b"quick"]
        gate.set()
        assert [await done.get(), await done.get()] == [b"slow 1", b"slow 2"]


async def test_a_full_queue_refuses_and_the_sender_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "QUEUE_MESSAGES", 2)
    me, gate, received = Identity.generate(), asyncio.Event(), Received()

    async def stuck(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
        await gate.wait()
        await received(msg, src_pk, queue_id, client)

    async with Mosquitto() as broker, router(me, stuck, broker) as one:
        pipe = await one.pipe(me.public_key_hex)
        for number in range(3):  # one is being handled, two wait
            assert await pipe.send(b"%d" % number) == 1
        refused = asyncio.create_task(pipe.send(b"3"))
        await asyncio.sleep(0)  # it is on its way, before the next
        other = await one.pipe(me.public_key_hex)
        assert await other.send(b"of another queue") == 16
        assert one.counters["full"] >= 1
        gate.set()
        assert await refused == 1  # it was sent again, and there was room
        handled = sorted([await received.get() for _ in range(5)])
        assert handled == [b"0", b"1", b"2", b"3", b"of another queue"]


async def test_without_a_handler_nothing_is_acknowledged_until_there_is_one() -> None:
    me, received = Identity.generate(), Received()
    async with Mosquitto() as broker, router(me, None, broker) as one:
        pipe = await one.pipe(me.public_key_hex)
        assert await pipe.send(b"early", timeout=0.1) == 0
        sending = asyncio.create_task(pipe.send(b"patient"))
        while not one.counters["unhandled"] >= 2:
            assert await pipe.send(b"more", timeout=0.05) == 0
        one.add_msg_handler(received)
        assert await sending == 7
        assert await received.get() == b"patient"


class TestWhatStrangersCanDo:
    async def test_a_replay_is_not_handled_again_but_acknowledged(self) -> None:
        alice, bob, received = Identity.generate(), Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as theirs,
            router(alice, None, broker) as one,
            Snoop(broker.port, bob) as at_bob,
            Snoop(broker.port, alice) as at_alice,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"pay 5") == 5
            recorded = await at_bob.overhear()
            first = await at_alice.overhear()
            await at_bob.inject(recorded)
            again = await at_alice.overhear()
            assert len(first) == len(again) == 55
            assert first != again
            assert await pipe.send(b"end") == 3
            assert [await received.get(), await received.get()] == [b"pay 5", b"end"]
            assert theirs.counters["copy"] >= 1

    async def test_what_a_broker_sees_names_nobody(self) -> None:
        alice, bob, received = Identity.generate(), Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker),
            router(alice, None, broker) as one,
            Snoop(broker.port, bob) as at_bob,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"a secret that can be looked for") == 31
            seen = await at_bob.overhear()
        for secret in (b"secret", alice.public_key[1:], bob.public_key[1:]):
            assert secret not in seen
        assert bob.public_key_hex not in at_bob.topic

    async def test_junk_is_counted_and_never_answered(self) -> None:
        alice, bob, received = Identity.generate(), Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as theirs,
            router(alice, None, broker) as one,
            Snoop(broker.port, bob) as at_bob,
            Snoop(broker.port, alice) as at_alice,
        ):
            for junk in (
                b"",
                b"x",
                b"\x01\x01" + bytes(300),
                b"\x02" * 300,
                bytes(20_000),
                b"\x01\x02" + bytes(53),
            ):
                await at_bob.inject(junk)
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"still there") == 11
            assert await received.get() == b"still there"
            assert len(await at_alice.overhear()) == 55  # the first answer of all is to the real message
            assert sum(theirs.counters.values()) - theirs.counters["copy"] == 6
            assert theirs.counters["accepted"] == 1
            assert [row.state for row in theirs.brokers] == ["up"]

    async def test_a_message_too_long_for_us_costs_the_broker_its_connection_only(self) -> None:
        bob, received = Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as one,
            Snoop(broker.port, bob) as stranger,
        ):
            await stranger.inject(bytes(100_000))
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"back again") == 10
            assert await received.get() == b"back again"
            assert one.counters["accepted"] == 1

    async def test_a_flood_of_unknown_keys_is_rationed_and_friends_pass(self) -> None:
        alice, bob, received = Identity.generate(), Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as theirs,
            router(alice, None, broker) as one,
            Snoop(broker.port, bob) as stranger,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"we know each other") == 18
            junk = b"\x01\x01" + Identity.generate().public_key + bytes(250)
            for _ in range(2_000):
                await stranger.inject(junk)
            assert await pipe.send(b"hello") == 5
            assert theirs.counters["rationed"] > 0
            assert theirs.counters["sealed"] >= 600


class TestClocks:
    async def test_a_stale_message_is_refused_and_the_sender_learns_why(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bob, received = Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as theirs,
            router(Identity.generate(), None, broker, get_time=lambda: time.time() - 3600) as late,
        ):
            pipe = await late.pipe(bob.public_key_hex)
            began = time.monotonic()
            with caplog.at_level(logging.WARNING, "warpgate.signal"):
                assert await pipe.send(b"x", timeout=10) == 0
            assert time.monotonic() - began < 5  # an answer, not a timeout
            skew = late.skew(bob.public_key)
            assert skew == pytest.approx(3600, abs=1)
            assert "1 h ahead of ours" in caplog.text
            assert theirs.counters["stale"] >= 1
            assert not received.calls

    async def test_answers_about_clocks_are_rationed(self) -> None:
        bob, late = Identity.generate(), Identity.generate()
        async with (
            Mosquitto() as broker,
            router(bob, Received(), broker) as theirs,
            router(late, None, broker, get_time=lambda: time.time() + 3600) as one,
            Snoop(broker.port, late) as answers,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            await asyncio.gather(*(pipe.send(b"x", timeout=0.3) for _ in range(30)))
            assert theirs.counters["future"] >= 30
            heard = 0
            try:
                async with asyncio.timeout(0.2):
                    while True:
                        assert len(await answers.overhear()) == 55
                        heard += 1
            except TimeoutError:
                pass
            assert 1 <= heard <= 10

    async def test_a_small_skew_is_known_and_harms_nothing(self) -> None:
        bob, received = Identity.generate(), Received()
        async with (
            Mosquitto() as broker,
            router(bob, received, broker, get_time=lambda: time.time() + 60),
            router(Identity.generate(), None, broker) as one,
        ):
            pipe = await one.pipe(bob.public_key_hex)
            assert await pipe.send(b"x") == 1
            assert one.skew(bob.public_key) == pytest.approx(60, abs=1)
            assert one.skew(b"somebody else") is None


class TestWhereToSend:
    async def test_hints_reach_a_peer_whose_brokers_we_do_not_have(self) -> None:
        bob, received = Identity.generate(), Received()
        async with (
            Mosquitto() as ours,
            Mosquitto() as theirs,
            router(bob, received, theirs) as listener,
            router(Identity.generate(), None, ours) as one,
        ):
            assert listener.hints == (BrokerHint("127.0.0.1", theirs.port, "mqtt"),)
            for hints in (
                listener.hints,
                [{"af": socket.AF_INET, "host": "127.0.0.1", "port": theirs.port}],
            ):
                pipe = await one.pipe(bob.public_key_hex, hint_brokers=hints)
                assert await pipe.send(b"found you") == 9
                await pipe.close()
            lost = await one.pipe(bob.public_key_hex)
            assert await lost.send(b"without", timeout=0.2) == 0

    async def test_what_worked_is_remembered_until_it_expires_or_is_closed(self) -> None:
        bob = Identity.generate()
        async with (
            Mosquitto() as ours,
            Mosquitto() as theirs,
            router(bob, Received(), theirs) as listener,
            router(Identity.generate(), None, ours) as one,
        ):
            first = await one.pipe(bob.public_key_hex, listener.hints, expiry=600)
            assert await first.send(b"x") == 1
            second = await one.pipe(bob.public_key_hex)  # no hints, and finds it
            assert await second.send(b"x") == 1
            blind = await one.pipe(bob.public_key_hex, use_cache=False)
            assert await blind.send(b"x", timeout=0.1) == 0
            await first.close()
            assert await second.send(b"x", timeout=0.1) == 0
            brief = await one.pipe(bob.public_key_hex, listener.hints, expiry=0)
            assert await brief.send(b"x") == 1
            assert await second.send(b"x", timeout=0.1) == 0

    async def test_an_idle_outbound_connection_is_closed_and_comes_back(self) -> None:
        bob, received = Identity.generate(), Received()
        async with Mosquitto() as ours, Mosquitto() as theirs, Gate(theirs.host, theirs.port) as gate:
            sender = router(Identity.generate(), None, ours, idle_timeout=0.1)
            async with router(bob, received, theirs), sender as one:
                hint = [{"host": "127.0.0.1", "port": gate.port}]
                pipe = await one.pipe(bob.public_key_hex, hint)
                assert await pipe.send(b"x") == 1
                assert gate.connections == 1
                async with asyncio.timeout(5):
                    await gate.empty.wait()
                states = {row.name: (row.state, row.protected) for row in one.brokers}
                assert states[ours.url] == ("up", True)  # carries our inbox: stays for life
                assert await pipe.send(b"y") == 1
                assert gate.connections == 2

    async def test_an_answer_goes_to_the_broker_by_which_the_question_came(self) -> None:
        """No hints, no common pool: whoever sends listens there for a while."""
        alice, bob, answers = Identity.generate(), Identity.generate(), Received()
        async with (
            Mosquitto() as ours,
            Mosquitto() as theirs,
            router(bob, Received(), theirs) as there,
            router(alice, answers, ours) as here,
        ):
            lost = await there.pipe(alice.public_key_hex)
            assert await lost.send(b"x", timeout=0.1) == 0
            question = await here.pipe(bob.public_key_hex, there.hints)
            assert await question.send(b"where are you?") == 14
            answer = await there.pipe(alice.public_key_hex)
            assert await answer.send(b"here") == 4
            assert await answers.get() == b"here"


class TestSignaller:
    async def test_the_engine_sees_everything_first(self) -> None:
        alice, bob, received = Identity.generate(), Identity.generate(), Received()
        seen: list[Envelope] = []

        def engine(envelope: Envelope) -> bool:
            seen.append(envelope)
            return envelope.payload.startswith(b"offer")

        async with (
            Mosquitto() as broker,
            router(bob, received, broker) as theirs,
            router(alice, None, broker) as one,
        ):
            theirs.on_envelope = engine
            assert theirs.on_envelope is engine
            assert await one.deliver(bob.public_key, one.codec.seal(bob.public_key, b"offer 1"))
            assert await one.deliver(bob.public_key, one.codec.seal(bob.public_key, b"for the application"))
            assert await received.get() == b"for the application"
            control = one.codec.seal(bob.public_key, b"nobody wants this", type=MessageType.CONTROL)
            assert not await one.deliver(bob.public_key, control, timeout=0.1)
            assert seen[0].payload == b"offer 1"
            assert len(received.calls) == 1

    async def test_a_defect_in_the_engine_ends_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        bob, received = Identity.generate(), Received()

        def broken(envelope: Envelope) -> bool:
            raise ZeroDivisionError

        async with Mosquitto() as broker, router(bob, received, broker) as one:
            one.on_envelope = broken
            sealed = one.codec.seal(bob.public_key, b"x")
            assert not await one.deliver(bob.public_key, sealed, timeout=0.1)
            one.on_envelope = None
            assert await one.deliver(bob.public_key, sealed)  # the very same, not a replay: it was not taken
            assert await received.get() == b"x"
        assert "on_envelope failed" in caplog.text

    async def test_one_message_delivered_twice_at_once_is_one_message(self) -> None:
        bob, received = Identity.generate(), Received()
        async with Mosquitto() as broker, router(bob, received, broker) as one:
            sealed = one.codec.seal(bob.public_key, b"x")
            both = (one.deliver(bob.public_key, sealed), one.deliver(bob.public_key, sealed))
            assert list(await asyncio.gather(*both)) == [True, True]
            assert await one.deliver(bob.public_key, sealed)
            assert received.messages == [b"x"]

    async def test_what_was_taken_over_another_path_is_acknowledged_here(self) -> None:
        """The node saw the same bytes as the first frame of a direct connection."""
        bob, received = Identity.generate(), Received()
        async with Mosquitto() as broker, router(bob, received, broker) as one:
            sealed = one.codec.seal(bob.public_key, b"x")
            envelope = one.codec.open(sealed.data)
            one.guard.check_and_add(envelope.message_id, envelope.timestamp, time.time())
            assert await one.deliver(bob.public_key, sealed)
            assert not received.calls


class TestEndings:
    async def test_closing_ends_what_is_being_sent_and_handled(self) -> None:
        me, cancelled = Identity.generate(), asyncio.Event()

        async def endless(msg: bytes, src_pk: bytes, queue_id: bytes, client: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with Mosquitto() as broker:
            one = router(me, endless, broker)
            async with one:
                pipe = await one.pipe(me.public_key_hex)
                assert await pipe.send(b"x") == 1
                nobody = await one.pipe(Identity.generate().public_key_hex)
                sending = asyncio.create_task(nobody.send(b"x", timeout=60))
                await asyncio.sleep(0)
            assert await sending == 0
            assert cancelled.is_set()
            await one.close()
            with pytest.raises(NodeClosedError):
                await pipe.send(b"x")
            assert [row.state for row in one.brokers] == ["closed"]

    async def test_it_can_be_opened_again(self) -> None:
        me, received = Identity.generate(), Received()
        async with Mosquitto() as broker:
            one = router(me, received, broker)
            for _ in range(2):
                async with one:
                    await one.start()  # twice is once
                    pipe = await one.pipe(me.public_key_hex)
                    assert await pipe.send(b"x") == 1
        assert received.messages == [b"x", b"x"]

    async def test_cancelling_a_send_leaves_nothing(self) -> None:
        async with Mosquitto() as broker, router(Identity.generate(), None, broker) as one:
            pipe = await one.pipe(Identity.generate().public_key_hex)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await pipe.send(b"x", timeout=60)
            assert not one._pending

    @pytest.mark.parametrize("after", [0.0, 0.0005, 0.002])
    async def test_cancelling_the_start_leaves_nothing(self, after: float) -> None:
        async with Mosquitto() as broker:
            one = router(Identity.generate(), None, broker)

            async def stay() -> None:
                async with one:
                    await asyncio.Event().wait()

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stay(), after)
            assert [row.state for row in one.brokers] == ["closed"]
