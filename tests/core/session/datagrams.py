"""Two sessions, each over several UDP paths that lose, double and reorder; and somebody who meddles.

A drawn world on a clock of its own, driven as `engine.paths` drives real paths: openings are repeated until
the path is proven, the initiator nominates one of the proven paths and repeats that until it is confirmed,
the responder follows the first nomination that reaches it.

The meddler hears every frame and sends what he likes from wherever he likes, but cannot stop a frame. One
thing he is not allowed: to carry the answer that he drew from one path of a session over to another path of
the same session. Who does that is a relay, and a relay passes every proof there is (see
docs/protocol.md, "What the proof does not say").
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

from warpgate_core.errors import ProtocolError
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.keys import SessionKeys
from warpgate_core.session.proof import PathProof, ProofState
from warpgate_core.strategy import Role

PATHS = 2
UNTIL = 8.0  # s
RETRY = 0.1
LAST_RETRY = 0.5


@dataclass
class End:
    """One end of one session."""

    role: Role
    tag: bytes
    keys: SessionKeys
    envelopes: dict[FrameKind, bytes]  # what this session's OFFER and ANSWER hold
    paths: list[PathProof] = field(default_factory=list)
    nominated: int | None = None
    hold_until: float | None = None

    def take(self, path: int, frame: Frame) -> list[Frame]:
        """What `engine` does around `PathProof.receive`. Raises ProtocolError."""
        if frame.tag != self.tag:
            raise ProtocolError("another session")
        wanted = {Role.INITIATOR: FrameKind.ANSWER, Role.RESPONDER: FrameKind.OFFER}[self.role]
        if frame.kind is wanted:
            if frame.envelope != self.envelopes[wanted]:
                raise ProtocolError("not signed by the peer")
            if self.role is Role.INITIATOR:
                self.unlock()
        if (
            frame.kind is FrameKind.NOMINATE
            and self.role is Role.RESPONDER
            and self.nominated not in (None, path)
        ):
            raise ProtocolError("another path was nominated before")
        replies = self.paths[path].receive(frame)
        if self.role is Role.RESPONDER and self.paths[path].state is ProofState.CONFIRMED:
            self.nominated = path
        return replies

    def unlock(self) -> None:
        """The secret is known."""
        for proof in self.paths:
            proof.unlock(self.keys)


@dataclass(order=True)
class Event:
    """Something at a time."""

    at: float
    number: int
    session: int = field(compare=False)
    role: Role = field(compare=False)
    path: int = field(compare=False)
    data: bytes | None = field(compare=False, default=None)  # None: a timer
    meddled: str = field(compare=False, default="")
    drawn: bool = field(compare=False, default=False)  # an answer to what the meddler sent
    retry: float = field(compare=False, default=RETRY)


OTHER = {Role.INITIATOR: Role.RESPONDER, Role.RESPONDER: Role.INITIATOR}


class World:
    """One drawn run.

    Args:
        seed: of everything.
        meddle: probability that a frame gives the meddler an idea.
    """

    def __init__(self, seed: int, *, meddle: float) -> None:
        self.rng = random.Random(seed)
        self.meddle = meddle
        self.loss = self.rng.choice((0.0, 0.05, 0.3))
        self.double = self.rng.choice((0.0, 0.3))
        self.jitter = self.rng.choice((0.0, 0.2))
        self.now = 0.0
        self.queue: list[Event] = []
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.heard: list[tuple[Event, bytes]] = []
        self.ends = [self._session(number) for number in range(2)]

    def _session(self, number: int) -> dict[Role, End]:
        rng = self.rng
        keys = SessionKeys(
            *(hashlib.sha256(bytes((number, n)) + rng.randbytes(8)).digest() for n in range(3))
        )
        tag = rng.randbytes(8)
        sealed = {FrameKind.OFFER: b"offer %d" % number, FrameKind.ANSWER: b"answer %d" % number}
        ends = {role: End(role, tag, keys, sealed) for role in Role}
        for role, end in ends.items():
            own = sealed[FrameKind.OFFER if role is Role.INITIATOR else FrameKind.ANSWER]
            known = keys if role is Role.RESPONDER else None
            end.paths = [
                PathProof(
                    role,
                    tag,
                    rng.randbytes(12),
                    rng.choice(("direct", "x", "punch-udp")),
                    stream=False,
                    envelope=own,
                    fresh=lambda _: True,
                    keys=known,
                )
                for _ in range(PATHS)
            ]
            if role is Role.INITIATOR or rng.random() < 0.7:
                for path in range(PATHS):
                    self._push(rng.uniform(0.0, 0.5), number, role, path)
        if rng.random() < 0.5:
            self._push(rng.uniform(0.0, 1.0), number, Role.INITIATOR, -1)  # the answer, through signalling
        return ends

    def _push(
        self,
        at: float,
        session: int,
        role: Role,
        path: int,
        data: bytes | None = None,
        *,
        meddled: str = "",
        drawn: bool = False,
        retry: float = RETRY,
    ) -> None:
        self.number += 1
        heapq.heappush(self.queue, Event(at, self.number, session, role, path, data, meddled, drawn, retry))

    # -- the two ends ----------------------------------------------------------------------------

    def run(self) -> Counter[str]:
        """Until nobody has anything to say; raises AssertionError where a rule is broken."""
        while self.queue:
            event = heapq.heappop(self.queue)
            self.now = event.at
            end = self.ends[event.session][event.role]
            if event.data is not None:
                self._deliver(event, end)
            elif event.path < 0:
                end.unlock()
            elif event.at < UNTIL:
                self._tick(event, end)
            self._nominate(event, end)
        for number in range(2):
            self._agree(number)
        return self.counts

    def _tick(self, event: Event, end: End) -> None:
        proof = end.paths[event.path]
        if end.nominated is not None:
            if end.role is Role.RESPONDER or end.nominated != event.path:
                return  # the race is over
            if proof.state is ProofState.CONFIRMED:
                return
            self._send(event, proof.nominate(7))
        elif not proof.opened:
            self._send(event, proof.opening())
            if end.role is Role.INITIATOR and self.rng.random() < 0.5:
                self._send(event, proof.probe())
        retry = min(event.retry * 1.5, LAST_RETRY)
        self._push(self.now + event.retry, event.session, event.role, event.path, retry=retry)

    def _nominate(self, event: Event, end: End) -> None:
        """The initiator's choice: any of the proven paths, after some hesitation."""
        proven = [number for number, proof in enumerate(end.paths) if proof.proven]
        if end.role is Role.RESPONDER or end.nominated is not None or not proven:
            return
        if end.hold_until is None:
            end.hold_until = self.now + self.rng.choice((0.0, 0.1, 0.4))
        if self.now >= end.hold_until:
            end.nominated = self.rng.choice(proven)
            self._send(
                Event(self.now, 0, event.session, end.role, end.nominated),
                end.paths[end.nominated].nominate(7),
            )
            self._push(self.now + RETRY, event.session, end.role, end.nominated)

    def _send(self, source: Event, frame: Frame, *, drawn: bool = False) -> None:
        """One frame leaves `source`'s end; the network does with it what it does."""
        rng, data = self.rng, frame.encode()
        to = OTHER[source.role]
        copies = 0 if rng.random() < self.loss else 2 if rng.random() < self.double else 1
        for _ in range(copies):
            self._push(
                self.now + 0.02 + rng.random() * self.jitter,
                source.session,
                to,
                source.path,
                data,
                drawn=drawn,
            )
        sent = Event(self.now, 0, source.session, to, source.path, data, "", drawn)
        self.heard.append((sent, data))
        if rng.random() < self.meddle:
            self._meddle(*rng.choice(self.heard))

    def _deliver(self, event: Event, end: End) -> None:
        assert event.data is not None
        before = [_held(proof) for proof in end.paths]
        replies: list[Frame] = []
        try:
            frame = Frame.decode(event.data)
            replies = end.take(event.path, frame)
        except ProtocolError:
            assert [_held(proof) for proof in end.paths] == before, "refused, and moved something"
            self.counts["refused"] += 1
        after = [_held(proof) for proof in end.paths]
        self._check(event, before, after)
        for reply in replies:
            assert len(reply.encode()) <= len(event.data) or frame.kind is FrameKind.OFFER
            self._send(event, reply, drawn=event.drawn or bool(event.meddled))

    # -- the meddler -----------------------------------------------------------------------------

    def _meddle(self, event: Event, data: bytes) -> None:
        rng = self.rng
        idea = rng.choice(
            ("replay", "reflect", "flip", "cut", "other session", "retagged", "spliced", "other path")
        )
        session, role, path = event.session, event.role, event.path
        match idea:
            case "reflect":
                role = OTHER[role]
            case "flip":
                at = rng.randrange(len(data))
                data = data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]
            case "cut":
                data = data[: rng.randrange(len(data))]
            case "other session" | "retagged":
                session = 1 - session
                if idea == "retagged":
                    data = data[:4] + self.ends[session][role].tag + data[12:]
            case "spliced":  # the keyed part of one session on the envelope or nonces of the other
                _, other = rng.choice(self.heard)
                cut = rng.choice((4, 12, 24, 36, 52))
                data = data[:cut] + other[cut:]
                data = data[:4] + self.ends[session][role].tag + data[12:]
                if any(data.startswith(heard) for _, heard in self.heard):
                    return  # the parts made up a whole frame that was sent before
            case "other path":
                if event.drawn:
                    return
                path = 1 - path
        self.counts[idea] += 1
        self._push(self.now + rng.random(), session, role, path, data, meddled=idea)

    def _check(self, event: Event, before: list[tuple[object, ...]], after: list[tuple[object, ...]]) -> None:
        if event.meddled in ("reflect", "flip", "cut", "other session", "retagged", "spliced"):
            assert after == before, f"moved by: {event.meddled}"
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            assert number == event.path or old == new, "a frame on one path moved another"
            assert old[0] <= new[0], "a state went backwards"  # type: ignore[operator]
            if event.meddled == "other path" and old != new:
                assert (old[0], new[0]) == (ProofState.OPEN, ProofState.HEARD)
                assert old[1:3] == new[1:3]

    def _agree(self, number: int) -> None:
        initiator, responder = (self.ends[number][role] for role in Role)
        confirmed = [n for n, proof in enumerate(responder.paths) if proof.state is ProofState.CONFIRMED]
        chosen = [n for n, proof in enumerate(initiator.paths) if proof.state >= ProofState.NOMINATED]
        sure = [n for n, proof in enumerate(initiator.paths) if proof.state is ProofState.CONFIRMED]
        assert len(chosen) <= 1
        assert set(sure) <= set(confirmed) <= set(chosen)
        for n in confirmed:
            one, other = initiator.paths[n], responder.paths[n]
            assert (one.nonce, one.peer_nonce) == (other.peer_nonce, other.nonce)
            assert (one.channel, one.strategy) == (other.channel, other.strategy)
        self.counts["agreed" if sure else "half" if chosen else "none"] += 1


def _held(proof: PathProof) -> tuple[object, ...]:
    return (proof.state, proof.peer_nonce, proof.channel, proof.strategy, proof.peer_has_answer)
