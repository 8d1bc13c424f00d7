"""One session over one TCP connection: bytes in order, in pieces of any size, until it is cut or not.

Driven as `engine.paths.StreamPath` drives it: whoever dialled speaks first, the initiator stops reading
frames once the path is proven, the next `CONFIRM_SIZE` bytes are the confirmation, and what is behind it is
the application's. What a frame too many, too early or too long would do to the application's bytes shows.
"""

from __future__ import annotations

import random

from tests.core.session.vectors import NONCE_I, NONCE_R, TAG, keys
from warpgate_core.errors import ProtocolError
from warpgate_core.session.frames import CONFIRM_SIZE, HEADER, Frame, FrameKind, frame_length
from warpgate_core.session.proof import PathProof, ProofState
from warpgate_core.strategy import Role

OFFER, ANSWER = b"the sealed offer", b"the sealed answer"
APPLICATION = {Role.INITIATOR: b"from the initiator", Role.RESPONDER: b"from the responder"}


class StreamEnd:
    """One end.

    Args:
        role: which.
        dialled: speaks first.
        proof: its view of the path.
    """

    def __init__(self, role: Role, proof: PathProof, *, dialled: bool) -> None:
        self.role = role
        self.proof = proof
        self.dialled = dialled
        self.ready = False
        self.failed = False
        self.confirming = False
        self.out = bytearray()
        self.buffer = bytearray()
        self.received: bytes | None = None  # the application's, once the pipe stands

    def start(self) -> None:
        """The session is so far that this end may speak: offer or answer is sealed."""
        if self.ready:
            return
        self.ready = True
        if self.role is Role.RESPONDER:
            self.proof.unlock(keys(), ANSWER)
        if self.dialled:
            self.out += self.proof.opening().encode()
        self.read()

    def read(self) -> None:
        """Take what is there."""
        while self.ready and not self.failed and self._read_one():
            pass

    def _read_one(self) -> bool:
        if self.received is not None:
            self.received += bytes(self.buffer)
            self.buffer.clear()
            return False
        if self.confirming:
            if len(self.buffer) < CONFIRM_SIZE:
                return False
            self.proof.receive(Frame.decode(bytes(self.buffer[:CONFIRM_SIZE])))
            assert self.proof.state is ProofState.CONFIRMED
            del self.buffer[:CONFIRM_SIZE]
            self.received = b""
            return True
        if self.role is Role.INITIATOR and self.proof.proven:
            return False
        if len(self.buffer) < HEADER:
            return False
        size = HEADER + frame_length(bytes(self.buffer[:HEADER]))
        if len(self.buffer) < size:
            return False
        frame = Frame.decode(bytes(self.buffer[:size]))
        del self.buffer[:size]
        self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.ANSWER:
            assert frame.envelope == ANSWER
            self.proof.unlock(keys())
        if frame.kind is FrameKind.OFFER:
            assert frame.envelope == OFFER
        try:
            for reply in self.proof.receive(frame):
                self.out += reply.encode()
        except ProtocolError:
            self.failed = True
            return
        if self.role is Role.RESPONDER and self.proof.state is ProofState.CONFIRMED:
            self.received = b""
            self.out += APPLICATION[self.role]

    def nominate(self) -> None:
        """As initiator: choose this path; the application writes at once."""
        self.out += self.proof.nominate().encode() + APPLICATION[self.role]
        self.confirming = True
        self.read()


def run(seed: int, *, cut: bool) -> tuple[StreamEnd, StreamEnd]:
    """Draw who dials and when what is known; move bytes until none is left, or the connection is cut."""
    rng = random.Random(seed)
    dials = rng.choice(((True, False), (False, True), (True, True)))
    ends = {}
    for role, dialled in zip(Role, dials, strict=True):
        proof = PathProof(
            role,
            TAG,
            NONCE_I if role is Role.INITIATOR else NONCE_R,
            "direct",
            stream=True,
            envelope=OFFER if role is Role.INITIATOR else b"",
            fresh=lambda _: True,
        )
        ends[role] = StreamEnd(role, proof, dialled=dialled)
    initiator, responder = ends[Role.INITIATOR], ends[Role.RESPONDER]
    initiator.start()
    steps = [lambda: _move(rng, initiator, responder), lambda: _move(rng, responder, initiator)]
    steps.append(lambda: _signal(rng, initiator, responder))
    left = rng.randrange(60) if cut else 2_000
    while left and not (
        initiator.received == APPLICATION[Role.RESPONDER]
        and responder.received == APPLICATION[Role.INITIATOR]
    ):
        left -= 1
        rng.choice(steps)()
        if initiator.proof.state is ProofState.PROVEN and rng.random() < 0.3:
            initiator.nominate()
    return initiator, responder


def _move(rng: random.Random, one: StreamEnd, other: StreamEnd) -> None:
    size = rng.choice((1, 2, 3, 52, 53, 54, 100, 1000))
    other.buffer += one.out[:size]
    del one.out[:size]
    other.read()


def _signal(rng: random.Random, initiator: StreamEnd, responder: StreamEnd) -> None:
    """The responder makes its answer; signalling delivers it; its acknowledgement comes back."""
    if not responder.ready:
        responder.start()
    elif rng.random() < 0.2:
        initiator.proof.unlock(keys())
        responder.proof.peer_has_answer = True
