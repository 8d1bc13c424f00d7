"""Envelopes: what they carry, what they hide, and everything that is refused."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.errors import EnvelopeError, IdentityError, InputError
from warpgate_core.identity import BACKENDS, Identity, TimingLeakWarning, verify
from warpgate_core.signal import envelope as module
from warpgate_core.signal import seal
from warpgate_core.signal.envelope import (
    ACK_SIZE,
    FRESHNESS,
    MAX_PAYLOAD,
    MAX_SEALED,
    NO_QUEUE,
    OVERHEAD,
    AckStatus,
    EnvelopeCodec,
    MessageType,
    ack_id_of,
    is_ack,
    open_ack,
)

ALICE = Identity.from_secret(bytes(range(0x01, 0x21)))
BOB = Identity.from_secret(bytes(range(0x21, 0x41)))
EVE = Identity.from_secret(bytes(31) + b"\x03")
NOW = 1_750_000_000.25

# Sealed once by ALICE for BOB at NOW and kept: another implementation must open exactly this.
RECORDED = bytes.fromhex(
    "0101039d65179e2db89c9a68f88614014b37fb4e9bf3aa76205c81cd71201b5859fa096603221e8b6043d4980d24c6df"
    "c16ca3c96814ad2013e1ff6b5611eeb137f3d572cc81513480d44c751cb283637d341fe6d87a10ec73a0f8a191cbde95"
    "e5cecc801a931d491f720590af98f7bf56b88d22ae179a63c33eb66b4a91af675a5a5bf49421f8b6b0bd25c82ffe8386"
    "a6fad02b920be20eef9be9589012925edd1d410dd2d9e27912c91673ec76fe99a19bc4d46e63d9256efcc0d84c502e90"
    "878bb459ab7ba5ebed3c085c7efcfafb2722dba749b90827233a521773fee15861d4324ba74efd0bb86a936fed7aaaa7"
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def codec(identity: Identity, at: float = NOW) -> EnvelopeCodec:
    return EnvelopeCodec(identity, Clock(at), Clock(0.0))


def reason_of(data: bytes, receiver: EnvelopeCodec | None = None, now: float = NOW) -> str:
    with pytest.raises(EnvelopeError) as caught:
        (receiver or codec(BOB)).open(data, now)
    assert f"[{caught.value.reason}]" in str(caught.value)
    return caught.value.reason


def test_a_message_arrives_as_it_was_sent() -> None:
    sealed = codec(ALICE).seal(
        BOB.public_key, b"hello", type=MessageType.CONTROL, queue=b"12345678", sequence=7
    )
    opened = codec(BOB).open(sealed.data)
    assert (opened.type, opened.sender, opened.recipient) == (
        MessageType.CONTROL,
        ALICE.public_key,
        BOB.public_key,
    )
    assert (opened.queue, opened.sequence, opened.timestamp) == (b"12345678", 7, NOW)
    assert (opened.message_id, opened.payload) == (sealed.message_id, b"hello")
    assert len(sealed.data) == OVERHEAD + 5


def test_defaults_are_data_outside_of_any_queue() -> None:
    opened = codec(BOB).open(codec(ALICE).seal(BOB.public_key, b"").data)
    assert (opened.type, opened.queue, opened.sequence) == (MessageType.DATA, NO_QUEUE, 0)


@given(
    payload=st.binary(max_size=600),
    queue=st.binary(min_size=8, max_size=8),
    sequence=st.integers(0, 2**64 - 1),
)
def test_any_content_round_trips(payload: bytes, queue: bytes, sequence: int) -> None:
    sealed = codec(ALICE).seal(BOB.public_key, payload, queue=queue, sequence=sequence)
    opened = codec(BOB).open(sealed.data)
    assert (opened.payload, opened.queue, opened.sequence) == (payload, queue, sequence)


def test_the_largest_payload_fits_and_one_byte_more_does_not() -> None:
    sealed = codec(ALICE).seal(BOB.public_key, bytes(MAX_PAYLOAD))
    assert len(sealed.data) == MAX_SEALED
    assert len(codec(BOB).open(sealed.data).payload) == MAX_PAYLOAD
    with pytest.raises(InputError, match="at most"):
        codec(ALICE).seal(BOB.public_key, bytes(MAX_PAYLOAD + 1))


def test_the_same_bytes_sent_twice_are_two_messages() -> None:
    alice, bob = codec(ALICE), codec(BOB)
    first, second = (bob.open(alice.seal(BOB.public_key, b"x").data) for _ in range(2))
    assert first.message_id != second.message_id


def test_a_broker_sees_neither_keys_nor_content() -> None:
    payload = b"a text that is long enough to be found"
    data = codec(ALICE).seal(BOB.public_key, payload).data
    for secret in (payload, ALICE.public_key, BOB.public_key, ALICE.public_key[1:], BOB.public_key[1:]):
        assert secret not in data


@pytest.mark.parametrize("first", BACKENDS)
@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.filterwarnings(f"ignore::{TimingLeakWarning.__module__}.{TimingLeakWarning.__name__}")
def test_every_backend_opens_what_every_other_sealed(first: str, second: str) -> None:
    sender = EnvelopeCodec(Identity.from_secret(ALICE.export_secret(), first), Clock(), Clock(0), first)
    receiver = EnvelopeCodec(Identity.from_secret(BOB.export_secret(), second), Clock(), Clock(0), second)
    assert receiver.open(sender.seal(BOB.public_key, b"hi").data).payload == b"hi"


def test_the_recorded_envelope_opens() -> None:
    opened = codec(BOB).open(RECORDED)
    assert opened.sender == ALICE.public_key
    assert opened.timestamp == NOW
    assert (opened.queue, opened.sequence, opened.payload) == (b"recorded", 3, b"golden")


def test_the_layout_is_the_documented_one() -> None:
    """Opened step by step with nothing but the primitives, as docs/protocol.md says."""
    assert RECORDED[:2] == b"\x01\x01"
    ephemeral, nonce, box = RECORDED[2:35], RECORDED[35:47], RECORDED[47:]
    info = b"warpgate/1 seal" + ephemeral + BOB.public_key
    okm = HKDF(SHA256(), 64, None, info).derive(BOB.exchange(ephemeral))
    inner = ChaCha20Poly1305(okm[:32]).decrypt(nonce, box, RECORDED[:35])
    fields = struct.unpack("!B33s33s8sQQ16s", inner[:107])
    assert fields[:6] == (1, ALICE.public_key, BOB.public_key, b"recorded", 3, round(NOW * 1000))
    assert inner[107:-64] == b"golden"
    assert verify(ALICE.public_key, inner[-64:], b"warpgate/1 envelope\0" + inner[:-64])


@pytest.mark.parametrize("length", [*range(70), OVERHEAD - 1, OVERHEAD, len(RECORDED) - 1])
def test_every_truncation_is_refused(length: int) -> None:
    assert reason_of(RECORDED[:length]) in ("size", "sealed")


@pytest.mark.parametrize("position", range(len(RECORDED)))
def test_every_flipped_bit_is_refused(position: int) -> None:
    damaged = bytearray(RECORDED)
    damaged[position] ^= 0x01
    assert reason_of(bytes(damaged)) in ("version", "malformed", "sealed")


@given(st.binary(max_size=400))
def test_junk_is_refused_with_a_reason(data: bytes) -> None:
    reason_of(data)


def test_too_much_and_unknown_versions_and_kinds() -> None:
    assert reason_of(bytes(MAX_SEALED + 1)) == "size"
    assert reason_of(b"\x02" + RECORDED[1:]) == "version"
    assert reason_of(RECORDED[:1] + b"\x09" + RECORDED[2:]) == "malformed"


def forge(
    signer: Identity = ALICE,
    to: Identity = BOB,
    *,
    kind: int = 1,
    sender: bytes = ALICE.public_key,
    recipient: bytes = BOB.public_key,
    stamp: int = round(NOW * 1000),
    label: bytes = module.SIGN_LABEL,
) -> bytes:
    """An envelope made by hand, with any field wrong."""
    own = Identity.generate()
    channel = seal.derive(own, to.public_key, own.public_key, to.public_key, 0.0)
    inner = module.INNER.pack(kind, sender, recipient, NO_QUEUE, 0, stamp, bytes(16)) + b"payload"
    inner += signer.sign(label + inner)
    outer = b"\x01\x01" + own.public_key
    return outer + bytes(12) + channel.aead.encrypt(bytes(12), inner, outer)


def test_a_forged_envelope_that_is_right_in_everything_is_accepted() -> None:
    assert codec(BOB).open(forge()).payload == b"payload"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (forge(EVE), "signature"),  # says it is from Alice
        (forge(sender=EVE.public_key), "signature"),  # Alice's message with Eve's name on it
        (forge(sender=bytes(33)), "signature"),  # no key at all
        (forge(recipient=EVE.public_key), "recipient"),  # Alice wrote this to Eve, who passes it on
        (forge(to=EVE), "sealed"),
        (forge(kind=2), "malformed"),
        (forge(kind=0), "malformed"),
        (forge(label=b""), "signature"),  # a signature from another protocol
        (forge(stamp=2**64 - 1), "future"),
        (forge(stamp=0), "stale"),
    ],
)
def test_every_wrong_field_is_refused_for_its_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_what_is_signed_for_one_cannot_be_passed_to_another() -> None:
    """Bob opens Alice's message and seals the very same signed bytes to Eve."""
    bob = codec(BOB)
    received = codec(ALICE).seal(BOB.public_key, b"for you alone").data
    channel = bob._inbound.compute(received[2:35])
    signed = channel.aead.decrypt(received[35:47], received[47:], received[:35])
    own = Identity.generate()
    onward = seal.derive(own, EVE.public_key, own.public_key, EVE.public_key, 0.0)
    outer = b"\x01\x01" + own.public_key
    data = outer + bytes(12) + onward.aead.encrypt(bytes(12), signed, outer)
    assert reason_of(data, codec(EVE)) == "recipient"


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (0.0, ""),
        (FRESHNESS, ""),
        (-FRESHNESS, ""),
        (FRESHNESS + 0.01, "stale"),
        (-FRESHNESS - 0.01, "future"),
    ],
)
def test_freshness_is_a_window_around_our_clock(age: float, reason: str) -> None:
    data = codec(ALICE).seal(BOB.public_key, b"x").data
    if reason:
        assert reason_of(data, now=NOW + age) == reason
    else:
        assert codec(BOB).open(data, NOW + age).payload == b"x"
    assert codec(BOB).unseal(data).payload == b"x"  # everything else was in order


def test_the_receiver_s_own_clock_is_asked_without_an_argument() -> None:
    data = codec(ALICE).seal(BOB.public_key, b"x").data
    with pytest.raises(EnvelopeError, match="3600 s before our clock"):
        codec(BOB, NOW + 3600).open(data)


@pytest.mark.parametrize(
    "wrong", [{"queue": b"short"}, {"sequence": -1}, {"sequence": 2**64}, {"type": MessageType.ACK}]
)
def test_what_cannot_be_sealed_is_an_input_error(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        codec(ALICE).seal(BOB.public_key, b"x", **wrong)  # type: ignore[arg-type]
    with pytest.raises(IdentityError):
        codec(ALICE).seal(bytes(33), b"x")


def test_secrets_are_in_no_repr() -> None:
    alice, bob = codec(ALICE), codec(BOB)
    sealed = alice.seal(BOB.public_key, b"x")
    opened = bob.open(sealed.data)
    texts = repr(sealed) + repr(opened) + repr(sealed.ack) + repr(alice._outbound.take(BOB.public_key))
    assert sealed.ack.key.hex() not in texts
    assert repr(sealed.ack.key) not in texts
    assert sealed.ack == opened.ack


class TestAcknowledgement:
    def test_only_who_opened_the_message_can_write_it(self) -> None:
        sealed = codec(ALICE).seal(BOB.public_key, b"x")
        bob = codec(BOB, NOW + 3.0)
        data = bob.acknowledge(bob.open(sealed.data).ack)
        assert is_ack(data)
        assert len(data) == ACK_SIZE
        assert ack_id_of(data) == sealed.ack.id
        ack = open_ack(data, sealed.ack)
        assert (ack.status, ack.clock) == (AckStatus.ACCEPTED, NOW + 3.0)

    def test_it_is_a_quarter_of_the_smallest_message(self) -> None:
        assert ACK_SIZE == 55
        assert OVERHEAD == 234

    def test_each_is_different_though_the_key_is_the_same(self) -> None:
        bob = codec(BOB)
        opened = bob.open(codec(ALICE).seal(BOB.public_key, b"x").data)
        assert bob.acknowledge(opened.ack) != bob.acknowledge(opened.ack)

    def test_every_flipped_byte_and_truncation_is_refused(self) -> None:
        sealed = codec(ALICE).seal(BOB.public_key, b"x")
        bob = codec(BOB)
        data = bob.acknowledge(bob.open(sealed.data).ack, AckStatus.CLOCK)
        assert open_ack(data, sealed.ack).status is AckStatus.CLOCK
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0x80
            with pytest.raises(EnvelopeError):
                open_ack(bytes(damaged), sealed.ack)
            with pytest.raises(EnvelopeError):
                open_ack(data[:position], sealed.ack)

    def test_that_of_another_message_is_refused(self) -> None:
        alice, bob = codec(ALICE), codec(BOB)
        one, other = (alice.seal(BOB.public_key, b"x") for _ in range(2))
        data = bob.acknowledge(bob.open(one.data).ack)
        with pytest.raises(EnvelopeError, match="malformed"):
            open_ack(data, other.ack)
        renamed = data[:2] + other.ack.id + data[18:]
        with pytest.raises(EnvelopeError, match="sealed"):
            open_ack(renamed, other.ack)

    def test_an_unknown_status_is_malformed(self) -> None:
        sealed = codec(ALICE).seal(BOB.public_key, b"x")
        head = b"\x01\x02" + sealed.ack.id
        body = ChaCha20Poly1305(sealed.ack.key).encrypt(bytes(12), module.ACK_BODY.pack(99, 0), head)
        with pytest.raises(EnvelopeError, match="malformed"):
            open_ack(head + bytes(12) + body, sealed.ack)


class TestEphemeralKeys:
    def test_one_serves_a_recipient_until_its_time_is_up(self) -> None:
        now = Clock(0.0)
        alice = EnvelopeCodec(ALICE, Clock(), now)
        keys = [alice.seal(BOB.public_key, b"").data[2:35] for _ in range(3)]
        assert len(set(keys)) == 1
        assert alice.seal(EVE.public_key, b"").data[2:35] != keys[0]
        now.at = seal.EPHEMERAL_LIFETIME
        assert alice.seal(BOB.public_key, b"").data[2:35] != keys[0]

    def test_and_until_its_messages_are_used_up(self) -> None:
        alice = codec(ALICE)
        first = alice.seal(BOB.public_key, b"").data[2:35]
        alice._outbound.take(BOB.public_key).left = 0
        assert alice.seal(BOB.public_key, b"").data[2:35] != first

    def test_nonces_never_repeat(self) -> None:
        alice = codec(ALICE)
        nonces = {alice.seal(BOB.public_key, b"").data[35:47] for _ in range(500)}
        assert len(nonces) == 500

    def test_only_a_good_message_makes_a_key_cheap(self) -> None:
        bob = codec(BOB)
        good = codec(ALICE).seal(BOB.public_key, b"").data
        assert not bob.is_cheap(good)
        assert reason_of(good[:-1] + bytes((good[-1] ^ 1,)), bob) == "sealed"
        assert not bob.is_cheap(good)
        bob.open(good)
        assert bob.is_cheap(good)
        assert not bob.is_cheap(b"")

    def test_what_the_recipient_remembers_ages(self) -> None:
        now = Clock(0.0)
        bob = EnvelopeCodec(BOB, Clock(), now)
        good = codec(ALICE).seal(BOB.public_key, b"").data
        bob.open(good)
        now.at = seal.INBOUND_LIFETIME
        assert not bob.is_cheap(good)
        assert bob.open(good).payload == b""  # still good, only dear again

    def test_both_tables_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seal, "OUTBOUND_LIMIT", 2)
        monkeypatch.setattr(seal, "INBOUND_LIMIT", 2)
        alice, bob = codec(ALICE), codec(BOB)
        for _ in range(5):
            alice.seal(Identity.generate().public_key, b"")
            bob.open(codec(ALICE).seal(BOB.public_key, b"").data)
        assert len(alice._outbound._table) == 2
        assert len(bob._inbound._table) == 2


def test_envelopes_and_sealed_are_frozen() -> None:
    sealed = codec(ALICE).seal(BOB.public_key, b"x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        sealed.message_id = b""  # type: ignore[misc]
