"""One end of a path in any state, any frame of the peer's, and the tables of what must come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tests.core.session.vectors import NONCE_I, NONCE_R, TAG, count_up, keys
from warpgate_core.session.frames import NO_NONCE, Frame, FrameKind
from warpgate_core.session.proof import PathProof, ProofState
from warpgate_core.strategy import Role

OFFER, ANSWER, REFUSAL, CHECK, NOMINATE, CONFIRM, PROBE = FrameKind
OPEN, HEARD, PROVEN, NOMINATED, CONFIRMED = ProofState
MINE = {Role.INITIATOR: NONCE_I, Role.RESPONDER: NONCE_R}
OTHER = {Role.INITIATOR: Role.RESPONDER, Role.RESPONDER: Role.INITIATOR}
ELSEWHERE = count_up(0xD1, 12)  # a nonce of another path
ENVELOPE = b"sealed"


class Seen:
    """The session's memory of nonces."""

    def __init__(self) -> None:
        self.nonces: set[bytes] = set()

    def __call__(self, nonce: bytes) -> bool:
        new = nonce not in self.nonces
        self.nonces.add(nonce)
        return new


def make(role: Role, *, stream: bool, locked: bool = False, seen: Seen | None = None) -> PathProof:
    """One end of a path."""
    return PathProof(
        role,
        TAG,
        MINE[role],
        "direct",
        stream=stream,
        envelope=ENVELOPE,
        fresh=seen or Seen(),
        keys=None if locked else keys(),
    )


def theirs(proof: PathProof, event: str, **changes: object) -> Frame:
    """A frame of the peer's for `proof`. Signed by the peer, over the path's transport.

    Args:
        proof: the end that shall take it.
        event: kind, and behind it ``+`` if it echoes this path's nonce, ``?`` if it wants a reply.
        changes: fields that differ.
    """
    kind = FrameKind[event.rstrip("+?")]
    peer = OTHER[proof.role]
    frame = Frame(
        kind,
        TAG,
        MINE[peer] if kind is not REFUSAL else NO_NONCE,
        proof.nonce if "+" in event else NO_NONCE,
        "" if kind in (REFUSAL, CONFIRM) else "reverse",
        "?" in event,
        ENVELOPE if kind in (OFFER, ANSWER, REFUSAL) else b"",
    )
    frame = dataclasses.replace(frame, **changes)  # type: ignore[arg-type]
    if kind in (OFFER, REFUSAL, PROBE):
        return frame
    return frame.signed(keys().of(peer), stream=proof.stream)


def in_state(role: Role, state: ProofState, *, stream: bool) -> PathProof:
    """An end that came to `state` by frames alone."""
    proof = make(role, stream=stream)
    ways = {
        Role.INITIATOR: {HEARD: ["ANSWER"], PROVEN: ["ANSWER+"]},
        Role.RESPONDER: {HEARD: ["CHECK?"], PROVEN: ["CHECK+"], CONFIRMED: ["NOMINATE+"]},
    }
    way = ways[role].get(min(state, PROVEN) if role is Role.INITIATOR else state, [])
    for event in way:
        proof.receive(theirs(proof, event))
    if role is Role.INITIATOR and state >= NOMINATED:
        proof.nominate()
    if role is Role.INITIATOR and state is CONFIRMED:
        proof.receive(theirs(proof, "CONFIRM+"))
    proof._spoke = False  # whether it spoke is looked at apart
    assert proof.state is state
    return proof


def said(replies: list[Frame]) -> str:
    """Replies in the short form of the tables."""
    return " ".join(
        frame.kind.name + ("+" if frame.echo != NO_NONCE else "") + ("?" if frame.wants_reply else "")
        for frame in replies
    )


def table(text: str) -> Iterator[tuple[ProofState, str, str]]:
    """Rows of a state table: (state, event, outcome)."""
    header, *rows = [line.split("|") for line in text.strip().splitlines()]
    events = [cell.strip() for cell in header[1:]]
    for state, *cells in rows:
        for event, cell in zip(events, cells, strict=True):
            yield ProofState[state.strip()], event, cell.strip()


# "!" is refused; a state alone is taken without a reply; "-" stands for the state it had.
INITIATOR_DATAGRAM = """
         | ANSWER          | ANSWER+         | CHECK  | CHECK?         | CHECK+ | CHECK+?        | CONFIRM+
OPEN     | HEARD CHECK+?   | PROVEN CHECK+   | HEARD  | HEARD CHECK+?  | PROVEN | PROVEN CHECK+  | !
HEARD    | - CHECK+?       | PROVEN CHECK+   | -      | - CHECK+?      | PROVEN | PROVEN CHECK+  | !
PROVEN   | - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | !
NOMINATED| - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | CONFIRMED
CONFIRMED| - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | -
"""
# Packets pass both ways on a stream, so that one fresh frame is enough.
INITIATOR_STREAM = """
         | ANSWER          | ANSWER+         | CHECK  | CHECK?         | CHECK+ | CHECK+?        | CONFIRM+
OPEN     | PROVEN CHECK+   | PROVEN CHECK+   | PROVEN | PROVEN CHECK+  | PROVEN | PROVEN CHECK+  | !
PROVEN   | - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | !
NOMINATED| - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | CONFIRMED
CONFIRMED| - CHECK+        | - CHECK+        | -      | - CHECK+       | -      | - CHECK+       | -
"""
# The same for streams that have not spoken yet.
RESPONDER = """
         | OFFER     | CHECK  | CHECK?        | CHECK+ | CHECK+?       | NOMINATE+
OPEN     | - ANSWER+ | HEARD  | HEARD CHECK+  | PROVEN | PROVEN CHECK+ | CONFIRMED CONFIRM+
HEARD    | -         | -      | - CHECK+      | PROVEN | PROVEN CHECK+ | CONFIRMED CONFIRM+
PROVEN   | -         | -      | - CHECK+      | -      | - CHECK+      | CONFIRMED CONFIRM+
CONFIRMED| -         | -      | - CHECK+      | -      | - CHECK+      | - CONFIRM+
"""
# Over UDP besides.
RESPONDER_PROBED = """
         | PROBE
OPEN     | - CHECK+
HEARD    | - CHECK+
PROVEN   | -
CONFIRMED| -
"""
REFUSED = {
    Role.INITIATOR: ["OFFER", "PROBE", "REFUSAL+", "NOMINATE+", "NOMINATE", "CONFIRM"],
    Role.RESPONDER: ["ANSWER", "ANSWER+", "REFUSAL+", "NOMINATE", "CONFIRM+", "CONFIRM"],
}
CASES = [
    *((Role.INITIATOR, False, *row) for row in table(INITIATOR_DATAGRAM)),
    *((Role.INITIATOR, True, *row) for row in table(INITIATOR_STREAM)),
    *((Role.RESPONDER, stream, *row) for stream in (False, True) for row in table(RESPONDER)),
    *((Role.RESPONDER, False, *row) for row in table(RESPONDER_PROBED)),
]


def snapshot(proof: PathProof) -> tuple[object, ...]:
    """All that a frame may move."""
    return (proof.state, proof.peer_nonce, proof.channel, proof.strategy, proof.peer_has_answer, proof._spoke)
