"""Every state of a path's proof against every frame: what moves, what is answered, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.session.proofs import (
    CASES,
    CHECK,
    CONFIRM,
    CONFIRMED,
    ELSEWHERE,
    ENVELOPE,
    HEARD,
    NOMINATE,
    NOMINATED,
    OFFER,
    OPEN,
    OTHER,
    PROBE,
    PROVEN,
    REFUSED,
    Seen,
    in_state,
    make,
    said,
    snapshot,
    theirs,
)
from tests.core.session.test_messages import NAMES
from tests.core.session.vectors import NONCE_I, NONCE_R, TAG, keys
from warpgate_core.errors import ProtocolError
from warpgate_core.session.frames import NO_NONCE, Frame
from warpgate_core.session.keys import SessionKeys
from warpgate_core.session.proof import PathProof, ProofState
from warpgate_core.strategy import Role


@pytest.mark.parametrize(("role", "stream", "state", "event", "outcome"), CASES)
def test_transitions(role: Role, stream: bool, state: ProofState, event: str, outcome: str) -> None:
    proof = in_state(role, state, stream=stream)
    frame = theirs(proof, event)
    if outcome == "!":
        before = snapshot(proof)
        with pytest.raises(ProtocolError):
            proof.receive(frame)
        assert snapshot(proof) == before
        return
    target, _, reply = outcome.partition(" ")
    replies = proof.receive(frame)
    assert said(replies) == reply
    assert proof.state is (state if target == "-" else ProofState[target])
    for answer in replies:
        assert answer.nonce == proof.nonce
        assert answer.echo == frame.nonce
        assert answer.verify(keys().of(role), stream=stream)
        assert answer.strategy == ("" if answer.kind is CONFIRM else frame.strategy)


@pytest.mark.parametrize(
    ("role", "stream", "state", "event"),
    [
        (role, stream, state, event)
        for role, events in REFUSED.items()
        for stream in (False, True)
        for state in ProofState
        if not (role is Role.RESPONDER and state is NOMINATED)
        and not (role is Role.INITIATOR and stream and state is HEARD)
        for event in events
    ],
)
def test_frames_that_a_role_does_not_get_move_nothing(
    role: Role, stream: bool, state: ProofState, event: str
) -> None:
    proof = in_state(role, state, stream=stream)
    before = snapshot(proof)
    with pytest.raises(ProtocolError):
        proof.receive(theirs(proof, event))
    assert snapshot(proof) == before


EVENTS = {
    Role.INITIATOR: ["ANSWER", "ANSWER+", "CHECK?", "CHECK+", "CHECK+?", "CONFIRM+"],
    Role.RESPONDER: ["CHECK?", "CHECK+", "CHECK+?", "NOMINATE+"],
}
FORGERIES = {
    "no MAC": lambda frame, proof: dataclasses.replace(frame, mac=bytes(16)),
    "our own key": lambda frame, proof: frame.signed(keys().of(proof.role), stream=proof.stream),
    "another session's key": lambda frame, proof: frame.signed(
        SessionKeys(bytes(32), bytes(32), bytes(32)).of(OTHER[proof.role]), stream=proof.stream
    ),
    "the other transport": lambda frame, proof: frame.signed(
        keys().of(OTHER[proof.role]), stream=not proof.stream
    ),
    "another session's tag": lambda frame, proof: dataclasses.replace(frame, tag=bytes(8)).signed(
        keys().of(OTHER[proof.role]), stream=proof.stream
    ),
    "another path's nonce": lambda frame, proof: dataclasses.replace(frame, echo=ELSEWHERE).signed(
        keys().of(OTHER[proof.role]), stream=proof.stream
    ),
    "another kind": lambda frame, proof: dataclasses.replace(
        frame, kind=CHECK if frame.kind is not CHECK else NOMINATE
    ),
    "another name": lambda frame, proof: dataclasses.replace(frame, strategy="turn"),
    "another channel": lambda frame, proof: dataclasses.replace(frame, channel=frame.channel ^ 1),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize(
    ("role", "event"), [(role, event) for role, events in EVENTS.items() for event in events]
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_proves_nothing_moves_nothing(role: Role, event: str, forgery: str, stream: bool) -> None:
    for state in ProofState:
        if (role, state) == (Role.RESPONDER, NOMINATED) or (role, stream, state) == (
            Role.INITIATOR,
            True,
            HEARD,
        ):
            continue
        proof = in_state(role, state, stream=stream)
        forged = FORGERIES[forgery](theirs(proof, event), proof)
        before = snapshot(proof)
        with pytest.raises(ProtocolError):
            proof.receive(forged)
        assert snapshot(proof) == before


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("stream", [False, True])
def test_without_keys_nothing_but_the_offer_is_taken(role: Role, stream: bool) -> None:
    proof = make(role, stream=stream, locked=True)
    for event in EVENTS[role]:
        with pytest.raises(ProtocolError, match="before the session's secret is known"):
            proof.receive(theirs(proof, event))
    assert snapshot(proof) == snapshot(make(role, stream=stream))
    proof.unlock(keys())
    proof.receive(theirs(proof, EVENTS[role][0]))
    assert proof.state > OPEN


def test_openings() -> None:
    initiator = make(Role.INITIATOR, stream=False, locked=True)
    first = initiator.opening()
    assert (first.kind, first.echo, first.envelope, first.mac) == (OFFER, NO_NONCE, ENVELOPE, bytes(16))
    assert first == initiator.opening(), "sent again as it was: nobody learns anything by asking twice"
    initiator.unlock(keys())
    assert said([initiator.opening()]) == "CHECK?"
    assert not initiator.opening().envelope

    responder = make(Role.RESPONDER, stream=False)
    assert said([responder.opening()]) == "ANSWER"
    assert responder.opening().envelope == ENVELOPE
    responder.peer_has_answer = True
    assert said([responder.opening()]) == "CHECK?"


def test_a_probe_shows_the_nonce_and_nothing_else() -> None:
    initiator = make(Role.INITIATOR, stream=False, locked=True)
    probe = initiator.probe()
    assert probe == Frame(PROBE, TAG, NONCE_I, strategy="direct")
    responder = make(Role.RESPONDER, stream=False)
    (reply,) = responder.receive(probe)
    assert len(reply.encode()) == len(probe.encode())
    initiator.unlock(keys())
    assert initiator.receive(reply) == []
    assert initiator.state is PROVEN, "the round trip of asking is saved"
    assert responder.state is OPEN, "anybody may have sent it"


def test_a_probe_moves_nothing_and_has_no_place_on_a_stream_or_in_another_session() -> None:
    for proof, changes in (
        (make(Role.RESPONDER, stream=True), {}),
        (make(Role.INITIATOR, stream=False), {}),
        (make(Role.RESPONDER, stream=False), {"tag": bytes(8)}),
    ):
        before = snapshot(proof)
        with pytest.raises(ProtocolError, match="PROBE is not for"):
            proof.receive(theirs(proof, "PROBE", **changes))
        assert snapshot(proof) == before
    late = make(Role.RESPONDER, stream=False, locked=True)
    with pytest.raises(ProtocolError, match="before there is an answer"):
        late.receive(theirs(late, "PROBE"))


def test_a_responder_without_an_answer_cannot_open_and_gets_it_later() -> None:
    early = PathProof(
        Role.RESPONDER, TAG, NONCE_R, "direct", stream=True, envelope=b"", fresh=Seen(), keys=None
    )
    for call in (early.opening, lambda: early.receive(theirs(early, "OFFER"))):
        with pytest.raises(ProtocolError, match="before there is an answer"):
            call()
    early = PathProof(
        Role.RESPONDER, TAG, NONCE_R, "direct", stream=True, envelope=b"", fresh=Seen(), keys=None
    )
    early.unlock(keys(), b"the answer")
    (reply,) = early.receive(theirs(early, "OFFER"))
    assert reply.envelope == b"the answer"


@pytest.mark.parametrize("state", [OPEN, HEARD])
def test_an_opening_never_echoes(state: ProofState) -> None:
    # HEARD can be had by a replay, so the nonce that was heard may be another path's.
    for role in Role:
        assert in_state(role, state, stream=False).opening().echo == NO_NONCE


def test_opening_ends_with_the_proof_and_not_with_hearing() -> None:
    for role in Role:
        assert not in_state(role, OPEN, stream=False).opened
        assert not in_state(role, HEARD, stream=False).opened
        assert in_state(role, PROVEN, stream=False).opened


def test_who_nominates_and_when() -> None:
    for state in (OPEN, HEARD):
        with pytest.raises(ProtocolError, match="only a proven path"):
            in_state(Role.INITIATOR, state, stream=False).nominate()
    for state in (OPEN, HEARD, PROVEN, CONFIRMED):
        with pytest.raises(ProtocolError, match="only the initiator nominates"):
            in_state(Role.RESPONDER, state, stream=False).nominate()
    proof = in_state(Role.INITIATOR, PROVEN, stream=False)
    first = proof.nominate(9)
    assert (first.kind, first.echo, first.channel, first.strategy) == (NOMINATE, NONCE_R, 9, "direct")
    assert proof.state is NOMINATED
    assert proof.nominate(9) == first, "repeated as it was"
    proof.receive(theirs(proof, "CONFIRM+"))
    assert proof.nominate(9) == first
    assert proof.state is CONFIRMED


def test_the_responder_takes_name_and_channel_from_the_nomination() -> None:
    proof = in_state(Role.RESPONDER, HEARD, stream=False)
    proof.receive(theirs(proof, "NOMINATE+", channel=63))
    assert (proof.strategy, proof.channel, proof.peer_nonce) == ("reverse", 63, NONCE_I)


def test_a_repeated_nomination_is_confirmed_again_and_a_different_one_is_not() -> None:
    proof = in_state(Role.RESPONDER, OPEN, stream=False)
    first = proof.receive(theirs(proof, "NOMINATE+", channel=5))
    assert proof.receive(theirs(proof, "NOMINATE+", channel=5)) == first
    before = snapshot(proof)
    for changes in ({"channel": 6}, {"channel": 5, "nonce": ELSEWHERE}):
        with pytest.raises(ProtocolError, match="differs from the one that was confirmed"):
            proof.receive(theirs(proof, "NOMINATE+", **changes))
    assert snapshot(proof) == before


def test_a_stream_has_no_channels() -> None:
    proof = in_state(Role.RESPONDER, PROVEN, stream=True)
    with pytest.raises(ProtocolError, match="no channels"):
        proof.receive(theirs(proof, "NOMINATE+", channel=1))
    assert proof.state is PROVEN


def test_a_stream_is_not_proven_by_a_frame_seen_on_another() -> None:
    seen = Seen()
    one = make(Role.INITIATOR, stream=True, seen=seen)
    other = make(Role.INITIATOR, stream=True, seen=seen)
    frame = theirs(one, "CHECK?")
    one.receive(frame)
    with pytest.raises(ProtocolError, match="already used"):
        other.receive(frame)
    assert other.state is OPEN
    other.receive(theirs(other, "CHECK+"))  # an echo proves it, whatever was seen before
    assert other.state is PROVEN


def test_a_full_memory_of_nonces_refuses_only_streams_without_an_echo() -> None:
    def full(_: bytes) -> bool:
        return False

    for stream, event, state in (
        (True, "ANSWER+", PROVEN),
        (False, "ANSWER", HEARD),
        (False, "CHECK+", PROVEN),
    ):
        proof = PathProof(
            Role.INITIATOR, TAG, NONCE_I, "direct", stream=stream, envelope=b"", fresh=full, keys=keys()
        )
        proof.receive(theirs(proof, event))
        assert proof.state is state


def test_datagrams_fill_no_memory_of_nonces() -> None:
    seen = Seen()
    for role in Role:
        proof = make(role, stream=False, seen=seen)
        for event in EVENTS[role]:
            if event != "CONFIRM+":
                proof.receive(theirs(proof, event))
    assert not seen.nonces


@pytest.mark.parametrize("first", ["OFFER", "CHECK?", "opening"])
@pytest.mark.parametrize(
    "then", [["OFFER"], ["CHECK?"], ["CHECK+", "CHECK+?", "OFFER"], ["CHECK+?", "CHECK?"]]
)
def test_a_responder_speaks_once_on_a_stream_before_the_confirmation(first: str, then: list[str]) -> None:
    proof = make(Role.RESPONDER, stream=True)
    spoken = [proof.opening()] if first == "opening" else proof.receive(theirs(proof, first))
    assert len(spoken) == 1
    for event in then:
        assert proof.receive(theirs(proof, event)) == []
    assert said(proof.receive(theirs(proof, "NOMINATE+"))) == "CONFIRM+"


def test_a_check_that_wants_nothing_does_not_use_up_the_one_word() -> None:
    proof = make(Role.RESPONDER, stream=True)
    assert proof.receive(theirs(proof, "CHECK")) == []
    assert said(proof.receive(theirs(proof, "CHECK?"))) == "CHECK+"


def test_a_path_begun_anew_at_one_end_is_proven_with_its_new_nonce() -> None:
    responder = in_state(Role.RESPONDER, PROVEN, stream=False)
    again = PathProof(
        Role.INITIATOR, TAG, ELSEWHERE, "direct", stream=False, envelope=b"", fresh=Seen(), keys=keys()
    )
    (reply,) = responder.receive(again.opening())
    assert again.receive(reply) == []
    assert again.state is PROVEN
    assert said(responder.receive(again.nominate())) == "CONFIRM+"
    assert responder.peer_nonce == ELSEWHERE


def test_a_replay_does_not_turn_a_proven_path_to_another_nonce() -> None:
    initiator = in_state(Role.INITIATOR, PROVEN, stream=False)
    initiator.receive(theirs(initiator, "CHECK?", nonce=ELSEWHERE))
    assert initiator.peer_nonce == NONCE_R
    assert initiator.nominate().echo == NONCE_R


@given(NAMES, NAMES, st.binary(min_size=1, max_size=60), st.integers(0, 63))
def test_no_reply_is_longer_than_what_it_answers(
    ours: str, others: str, envelope: bytes, channel: int
) -> None:
    for role, events in EVENTS.items():
        for event in [*events, "PROBE"] if role is Role.RESPONDER else events:
            proof = make(role, stream=False)
            proof.strategy = ours
            if event == "CONFIRM+":
                continue  # never answered
            changes: dict[str, object] = {"strategy": others}
            if event.startswith("ANSWER"):
                changes["envelope"] = envelope
            if event.startswith("NOMINATE"):
                changes["channel"] = channel
            frame = theirs(proof, event, **changes)
            assert all(len(reply.encode()) <= len(frame.encode()) for reply in proof.receive(frame))


def test_conversations_end() -> None:
    """From every pair of states, one frame into the system dies out: no loop of replies."""
    for stream in (False, True):
        for event in EVENTS[Role.INITIATOR]:
            initiator, responder = (make(role, stream=stream) for role in Role)
            if event == "CONFIRM+":
                continue
            waiting, steps = initiator.receive(theirs(initiator, event)), 0
            ends = [responder, initiator]
            while waiting:
                waiting = [reply for frame in waiting for reply in ends[steps % 2].receive(frame)]
                steps += 1
                assert steps < 4
