"""Proof of one candidate path: who is at the other end, and that packets pass both ways.

Sans-I/O. Feed frames to `PathProof.receive` and send what it returns; ask `opening` for what to send
first and, over UDP, to send again. States and what moves them:

=========  =============================================  =========
state      event                                          to
=========  =============================================  =========
OPEN       right MAC, no echo                             HEARD
OPEN       the same, as initiator on a stream, if the     PROVEN
           nonce is new in this session
OPEN       right MAC, echoes our nonce                    PROVEN
HEARD      right MAC, echoes our nonce                    PROVEN
PROVEN     initiator: `nominate`                          NOMINATED
any        responder: NOMINATE that echoes our nonce      CONFIRMED
NOMINATED  initiator: CONFIRM that echoes our nonce       CONFIRMED
=========  =============================================  =========

HEARD can be had by a replay of what the peer sent elsewhere, so nothing hangs on it: both ends go on
sending their opening until PROVEN. An OFFER has no MAC: it is answered and moves nothing. Neither does a
wrong MAC, or another path's nonce as echo. No reply has more bytes than the frame it answers, except the
ANSWER to an OFFER, which was itself signed and fresh and its sender accepted (over UDP the offer is
padded, so that it is not longer there either). A reply echoes the nonce of the frame that it answers, so
that frames of a path that was given up and begun anew do no harm.

Rejected: challenge and response before the offer, which would cost a round trip on every direct
connection; and an echo on streams that the responder made, which would cost one on every reverse
connection (whoever replays a first frame there must relay the rest as well, and a relay passes any proof).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from warpgate_core.errors import ProtocolError
from warpgate_core.session.frames import NO_NONCE, Frame, FrameKind
from warpgate_core.session.keys import SessionKeys
from warpgate_core.strategy import Role

__all__ = ["PathProof", "ProofState"]


class ProofState(enum.IntEnum):
    """See the module's table. The order is the order of progress."""

    OPEN = 0
    HEARD = 1
    PROVEN = 2
    NOMINATED = 3
    CONFIRMED = 4


class PathProof:
    """One end's view of one candidate path.

    Args:
        role: this end's role in the session.
        tag: the session's tag.
        nonce: 12 fresh random bytes for this end of this path, not all zero.
        strategy: name of the strategy that makes the path.
        stream: TCP (true) or UDP (false).
        envelope: this end's own sealed offer (initiator) or answer (responder); empty while there is none.
        fresh: says of the peer's nonce on a stream whether it is new in this session, and remembers it.
        keys: the session's keys, if known already.
    """

    def __init__(
        self,
        role: Role,
        tag: bytes,
        nonce: bytes,
        strategy: str,
        *,
        stream: bool,
        envelope: bytes,
        fresh: Callable[[bytes], bool],
        keys: SessionKeys | None = None,
    ) -> None:
        self.role = role
        self.tag = tag
        self.nonce = nonce
        self.strategy = strategy
        self.stream = stream
        self.state = ProofState.OPEN
        self.peer_nonce = NO_NONCE
        self._envelope = envelope
        self._fresh = fresh
        self._keys = keys
        self.peer_has_answer = False
        self.channel = 0
        self._spoke = False

    def unlock(self, keys: SessionKeys, envelope: bytes | None = None) -> None:
        """The session's secret is known now.

        Args:
            keys: of the session.
            envelope: as responder: the sealed answer, if the path was begun before there was one.
        """
        self._keys = keys
        if envelope is not None:
            self._envelope = envelope

    @property
    def opened(self) -> bool:
        """Whether `opening` need not be sent again: what is lost from here on, the nomination repeats."""
        return self.proven

    @property
    def proven(self) -> bool:
        """Whether the path may carry application bytes once nominated."""
        return self.state >= ProofState.PROVEN

    def opening(self) -> Frame:
        """What to send first, and over UDP again until something came back.

        Raises:
            ProtocolError: as responder, before there is an answer.
        """
        self._spoke = True
        if self.role is Role.INITIATOR and self._keys is None:
            return Frame(
                FrameKind.OFFER, self.tag, self.nonce, NO_NONCE, self.strategy, envelope=self._envelope
            )
        if self.role is Role.RESPONDER and not self.peer_has_answer:
            return self._answer(NO_NONCE, self.strategy)
        return self._signed(FrameKind.CHECK, NO_NONCE, self.strategy, wants_reply=True)

    def probe(self) -> Frame:
        """As initiator, over UDP, before the answer: a small frame that shows the responder our nonce.

        It opens our own NAT, and the first one to arrive after the responder has opened its own brings a
        CHECK with our nonce at once, which saves the round trip of asking for one.
        """
        return Frame(FrameKind.PROBE, self.tag, self.nonce, strategy=self.strategy)

    def nominate(self, channel: int = 0) -> Frame:
        """As initiator: choose this path. The frame may be sent again until CONFIRMED.

        Args:
            channel: over UDP, the pipe's channel; the same each time.

        Raises:
            ProtocolError: not proven, or this end does not nominate.
        """
        if self.role is not Role.INITIATOR or not self.proven:
            raise ProtocolError("only the initiator nominates, and only a proven path")
        self.state = max(self.state, ProofState.NOMINATED)
        self.channel = channel
        return self._signed(FrameKind.NOMINATE, self.peer_nonce, self.strategy, channel=channel)

    def receive(self, frame: Frame) -> list[Frame]:
        """Take one frame of the peer's.

        Args:
            frame: with the session's tag. The session must have opened the envelope of an ANSWER (and
                called `unlock`) before, and have found that the envelope of an OFFER is the one it was
                made of.

        Returns:
            What to send in reply: nothing, or one frame.

        Raises:
            ProtocolError: wrong MAC, wrong echo, or a frame that this role does not get. Nothing has
                changed then.
        """
        if frame.kind is FrameKind.OFFER and self.role is Role.RESPONDER:
            return self._on_offer(frame)
        if frame.kind is FrameKind.PROBE:
            return self._on_probe(frame)
        self._authenticate(frame)
        match frame.kind, self.role:
            case ((FrameKind.ANSWER | FrameKind.CHECK), Role.INITIATOR):
                return self._heard(frame)
            case FrameKind.CHECK, Role.RESPONDER:
                self.peer_has_answer = True
                return self._once(self._heard(frame))
            case FrameKind.NOMINATE, Role.RESPONDER:
                return self._on_nominate(frame)
            case FrameKind.CONFIRM, Role.INITIATOR:
                return self._on_confirm(frame)
        raise ProtocolError(f"{frame.kind.name} is not for the {self.role}")

    def _authenticate(self, frame: Frame) -> None:
        if self._keys is None:
            raise ProtocolError(f"{frame.kind.name} before the session's secret is known")
        peer = Role.RESPONDER if self.role is Role.INITIATOR else Role.INITIATOR
        if frame.tag != self.tag or not frame.verify(self._keys.of(peer), stream=self.stream):
            raise ProtocolError(f"{frame.kind.name} was not made by the peer of this session")
        if frame.echo not in (NO_NONCE, self.nonce):
            raise ProtocolError(f"{frame.kind.name} belongs to another path")

    def _once(self, replies: list[Frame]) -> list[Frame]:
        # On a stream nothing is lost, so the responder speaks once before the nomination: whatever
        # follows is the fixed-size CONFIRM, and behind that the application's bytes.
        if self.stream and self._spoke:
            return []
        self._spoke = self._spoke or bool(replies)
        return replies

    def _on_offer(self, frame: Frame) -> list[Frame]:
        if self.state is not ProofState.OPEN:  # who sent a right MAC has the answer: this one comes late
            return []
        return self._once([self._answer(frame.nonce, frame.strategy)])

    def _on_probe(self, frame: Frame) -> list[Frame]:
        # Nobody vouches for a PROBE, so it moves nothing, and the reply has exactly its length.
        if self.role is not Role.RESPONDER or self.stream or frame.tag != self.tag:
            raise ProtocolError(f"PROBE is not for the {self.role}")
        return [self._signed(FrameKind.CHECK, frame.nonce, frame.strategy)] if not self.proven else []

    def _heard(self, frame: Frame) -> list[Frame]:
        if not self.proven:
            echoed = frame.echo == self.nonce
            by_stream = self.stream and self.role is Role.INITIATOR
            if by_stream and not echoed and not self._fresh(frame.nonce):
                raise ProtocolError("a proof that was already used in this session")
            if echoed or by_stream:
                self.peer_nonce = frame.nonce
                self.state = ProofState.PROVEN
            else:
                self.state = ProofState.HEARD
        if frame.kind is FrameKind.ANSWER or frame.wants_reply:
            # Who nominates asks until it knows that packets pass both ways; the other end only replies.
            asks = self.role is Role.INITIATOR and not self.proven
            return [self._signed(FrameKind.CHECK, frame.nonce, frame.strategy, wants_reply=asks)]
        return []

    def _on_nominate(self, frame: Frame) -> list[Frame]:
        if frame.echo != self.nonce:
            raise ProtocolError("NOMINATE without this path's nonce")
        if self.stream and frame.channel:
            raise ProtocolError("a stream has no channels")
        known = self.peer_nonce, self.channel
        if self.state is ProofState.CONFIRMED and (frame.nonce, frame.channel) != known:
            raise ProtocolError("a nomination that differs from the one that was confirmed")
        self.peer_nonce = frame.nonce
        self.peer_has_answer = True
        self.strategy = frame.strategy
        self.channel = frame.channel
        self.state = ProofState.CONFIRMED
        return [self._signed(FrameKind.CONFIRM, frame.nonce, "")]

    def _on_confirm(self, frame: Frame) -> list[Frame]:
        if self.state < ProofState.NOMINATED or frame.echo != self.nonce:
            raise ProtocolError("CONFIRM of a path that was not nominated")
        self.state = ProofState.CONFIRMED
        return []

    def _answer(self, echo: bytes, name: str) -> Frame:
        return self._signed(FrameKind.ANSWER, echo, name, envelope=self._envelope)

    def _signed(
        self,
        kind: FrameKind,
        echo: bytes,
        name: str,
        *,
        wants_reply: bool = False,
        envelope: bytes = b"",
        channel: int = 0,
    ) -> Frame:
        if self._keys is None or (kind is FrameKind.ANSWER and not envelope):
            raise ProtocolError(f"{kind.name} cannot be made before there is an answer")
        frame = Frame(kind, self.tag, self.nonce, echo, name, wants_reply, envelope, channel)
        return frame.signed(self._keys.of(self.role), stream=self.stream)
