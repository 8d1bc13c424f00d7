"""Frames: one layout, one encoding per value, a MAC over all of it and the transport besides."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.session.damage import flips, read, refused_when_cut
from tests.core.session.test_messages import NAMES
from tests.core.session.vectors import NONCE_I, NONCE_R, TAG, frames, keys
from warpgate_core.errors import ProtocolError
from warpgate_core.pipe.consent import Frame as PipeFrame
from warpgate_core.pipe.mux import CHANNELS, data_byte
from warpgate_core.session.frames import (
    CONFIRM_SIZE,
    HEADER,
    MAX_FRAME,
    NO_NONCE,
    Frame,
    FrameKind,
    frame_length,
)

FLAGS_AT, TAG_AT, NONCE_AT, ECHO_AT, MAC_AT, NAME_AT = 3, 4, 12, 24, 36, 52
NONCES = st.binary(min_size=12, max_size=12).filter(lambda nonce: nonce != NO_NONCE)
ECHOES = NONCES | st.just(NO_NONCE)
TAGS = st.binary(min_size=8, max_size=8)
MACS = st.binary(min_size=16, max_size=16)
SEALED = st.binary(min_size=1, max_size=200)
NO_MAC = bytes(16)


@st.composite
def any_frame(draw: st.DrawFn) -> Frame:
    """Any frame that there can be."""
    tag, nonce, name = draw(TAGS), draw(NONCES), draw(NAMES)
    kind = draw(st.sampled_from(FrameKind))
    match kind:
        case FrameKind.OFFER:
            return Frame(kind, tag, nonce, strategy=name, envelope=draw(SEALED))
        case FrameKind.PROBE:
            return Frame(kind, tag, nonce, strategy=name)
        case FrameKind.REFUSAL:
            return Frame(kind, tag, NO_NONCE, nonce, envelope=draw(SEALED))
        case FrameKind.ANSWER:
            return Frame(kind, tag, nonce, draw(ECHOES), name, envelope=draw(SEALED), mac=draw(MACS))
        case FrameKind.CHECK:
            return Frame(kind, tag, nonce, draw(ECHOES), name, draw(st.booleans()), mac=draw(MACS))
        case FrameKind.NOMINATE:
            channel = draw(st.integers(0, 63))
            return Frame(kind, tag, nonce, draw(NONCES), name, channel=channel, mac=draw(MACS))
    return Frame(kind, tag, nonce, draw(NONCES), mac=draw(MACS))


@given(any_frame(), st.integers(0, 1500))
def test_what_was_written_is_read_and_padding_is_not(frame: Frame, pad_to: int) -> None:
    data = frame.encode(pad_to)
    assert len(data) >= pad_to
    assert Frame.decode(data) == frame
    assert HEADER + frame_length(data[:HEADER]) == len(frame.encode())
    assert Frame.decode(data).encode() == frame.encode()


@given(st.sampled_from(FrameKind), st.binary(min_size=50, max_size=90))
def test_noise_is_refused_or_canonical(kind: FrameKind, body: bytes) -> None:
    data = bytes((kind, 0, len(body))) + body
    frame = read(data, Frame.decode)
    assert frame is None or (isinstance(frame, Frame) and frame.encode() == data)


@pytest.mark.parametrize("name", list(frames()))
def test_truncations_and_flips(name: str) -> None:
    frame, made = frames()[name], keys()
    data = frame.encode()
    refused_when_cut(data, Frame.decode)
    for damaged in flips(data):
        value = read(damaged, Frame.decode)
        if value is None:
            continue
        assert isinstance(value, Frame)
        assert value != frame
        assert value.encode() == damaged[: len(value.encode())]
        for key in (made.initiator, made.responder):
            for stream in (False, True):
                assert not value.verify(key, stream=stream)


@given(any_frame())
def test_the_mac_is_bound_to_key_and_transport(frame: Frame) -> None:
    made = keys()
    for stream in (False, True):
        signed = frame.signed(made.initiator, stream=stream)
        assert signed.verify(made.initiator, stream=stream)
        assert not signed.verify(made.initiator, stream=not stream)
        assert not signed.verify(made.responder, stream=stream)
        assert not signed.verify(made.exporter, stream=stream)
        assert dataclasses.replace(signed, mac=frame.mac) == frame


@given(any_frame(), any_frame())
def test_the_mac_covers_every_field(one: Frame, other: Frame) -> None:
    key = keys().initiator
    signed = one.signed(key, stream=False)
    moved = dataclasses.replace(other, mac=signed.mac)
    assert moved.verify(key, stream=False) == (dataclasses.replace(moved, mac=one.mac) == one)


def test_the_fields_of_the_mac_do_not_run_into_each_other() -> None:
    base = Frame(FrameKind.ANSWER, TAG, NONCE_R, NONCE_I, "ab", envelope=b"cd")
    key = keys().responder
    for name, envelope in (("a", b"bcd"), ("abc", b"d"), ("abcd", b""), ("b", b"acd")):
        other = dataclasses.replace(base, strategy=name, envelope=envelope).signed(key, stream=False)
        assert other.mac != base.signed(key, stream=False).mac


@pytest.mark.parametrize("first", [b for b in range(256) if not 0xE0 <= b <= 0xE6])
def test_what_is_not_a_frame_is_not_read_as_one(first: int) -> None:
    with pytest.raises(ProtocolError, match=f"0x{first:02x} begins no frame"):
        frame_length(bytes((first, 0, 60)))


def test_frames_and_pipes_do_not_share_first_bytes() -> None:
    proof = {int(kind) for kind in FrameKind}
    pipes = {int(kind) for kind in PipeFrame} | {data_byte(channel) for channel in range(CHANNELS)}
    assert proof.isdisjoint(pipes)
    assert all(PipeFrame.is_proof(first) == (first in proof) for first in proof | pipes)
    stun, turn = set(range(4)), set(range(0x40, 0x80))  # RFC 7983
    assert (proof | pipes).isdisjoint(stun | turn)


def test_sizes_are_bounded_both_ways() -> None:
    smallest = frames()["CONFIRM"].encode()
    assert len(smallest) == CONFIRM_SIZE == 53
    assert all(len(f.encode()) > CONFIRM_SIZE for f in frames().values() if f.kind is not FrameKind.CONFIRM)
    largest = Frame(FrameKind.OFFER, TAG, NONCE_I, strategy="s" * 24, envelope=bytes(16_384))
    assert len(largest.encode()) == MAX_FRAME
    assert Frame.decode(largest.encode()) == largest
    for size in (0, 1, CONFIRM_SIZE - HEADER - 1, MAX_FRAME - HEADER + 1, 65_535):
        with pytest.raises(ProtocolError, match=f"frame of {size} bytes"):
            frame_length(b"\xe5" + size.to_bytes(2, "big"))
    for header in (b"", b"\xe0", b"\xe0\0"):
        with pytest.raises(ProtocolError, match="inside its header"):
            frame_length(header)


def _patched(name: str, at: int, data: bytes) -> bytes:
    whole = frames()[name].encode()
    return whole[:at] + data + whole[at + len(data) :]


ALL = tuple(kind.name for kind in FrameKind)


@pytest.mark.parametrize(
    ("name", "flags"),
    [(name, 1) for name in ALL if name != "CHECK"]
    + [(name, 2) for name in ALL]
    + [(name, bit) for name in ALL if name != "NOMINATE" for bit in (4, 8, 16, 32, 64, 128)]
    + [("CHECK", 3), ("NOMINATE", 7 << 2 | 1), ("NOMINATE", 7 << 2 | 2)],
)
def test_unknown_flags_are_refused(name: str, flags: int) -> None:
    with pytest.raises(ProtocolError, match=f"{name} with flags 0x{flags:02x}"):
        Frame.decode(_patched(name, FLAGS_AT, bytes((flags,))))


@pytest.mark.parametrize(
    ("name", "at", "data", "field"),
    [
        ("OFFER", ECHO_AT, NONCE_R, "echo"),
        ("OFFER", MAC_AT, b"\1", "mac"),
        ("OFFER", NONCE_AT, NO_NONCE, "nonce"),
        ("OFFER", NAME_AT + 1, b"D", "strategy"),
        ("ANSWER", NONCE_AT, NO_NONCE, "nonce"),
        ("REFUSAL", NONCE_AT, NONCE_I, "nonce"),
        ("REFUSAL", ECHO_AT, NO_NONCE, "echo"),
        ("REFUSAL", MAC_AT + 15, b"\1", "mac"),
        ("CHECK", NONCE_AT, NO_NONCE, "nonce"),
        ("CHECK", NAME_AT + 1, b"-", "strategy"),
        ("NOMINATE", ECHO_AT, NO_NONCE, "echo"),
        ("PROBE", ECHO_AT, NONCE_R, "echo"),
        ("PROBE", MAC_AT, b"\1", "mac"),
        ("PROBE", NONCE_AT, NO_NONCE, "nonce"),
        ("CONFIRM", ECHO_AT, NO_NONCE, "echo"),
        ("CONFIRM", NONCE_AT, NO_NONCE, "nonce"),
    ],
)
def test_what_a_kind_does_not_use_is_absent(name: str, at: int, data: bytes, field: str) -> None:
    with pytest.raises(ProtocolError, match=f"{name}: its field '{field}'"):
        Frame.decode(_patched(name, at, data))


@pytest.mark.parametrize("name", ALL)
def test_who_carries_an_envelope_and_who_a_name(name: str) -> None:
    frame = frames()[name]
    if frame.envelope:
        wrong = dataclasses.replace(frame, envelope=b"")
    else:
        wrong = dataclasses.replace(frame, envelope=b"x")
    with pytest.raises(ProtocolError, match="'envelope'"):
        Frame.decode(wrong.encode())
    wrong = dataclasses.replace(frame, strategy="" if frame.strategy else "direct")
    with pytest.raises(ProtocolError, match="'strategy'"):
        Frame.decode(wrong.encode())


def test_a_name_that_is_too_long_or_runs_over_the_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="25 bytes, at most 24"):
        Frame.decode(dataclasses.replace(frames()["CHECK"], strategy="a" * 25).encode())
    with pytest.raises(ProtocolError, match="ends inside"):
        Frame.decode(_patched("CHECK", NAME_AT, b"\x07"))


def test_a_stream_is_cut_into_frames_by_their_lengths() -> None:
    made = list(frames().values())
    stream = b"".join(frame.encode() for frame in made) + b"the application's"
    for frame in made:
        size = HEADER + frame_length(stream[:HEADER])
        assert Frame.decode(stream[:size]) == frame
        stream = stream[size:]
    assert stream == b"the application's"
