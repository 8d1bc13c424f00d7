"""Proof of one candidate path: who is at the other end, and that packets pass both ways.

Sans-I/O. Feed frames to `PathProof.receive` and send what it returns; ask `opening` for what to send
first and, over UDP, to send again. States and what moves them:

=================  ===========================================================================
state              left by
=================  ===========================================================================
OPEN               a frame of the peer's with a right MAC -> HEARD
HEARD              one that echoes our own nonce -> PROVEN; as initiator on a stream, HEARD with a
                   nonce never seen in this session is enough (streams pass both ways)
PROVEN             initiator: `nominate` -> NOMINATED; responder: NOMINATE -> CONFIRMED
NOMINATED          initiator: CONFIRM -> CONFIRMED
=================  ===========================================================================

A wrong MAC or echo moves nothing. Every reply is at most as long as what it answers, except where the
frame answered was itself signed and fresh and its sender accepted (an ANSWER to an OFFER, which over UDP
is padded, so it is not longer there either). Rejected: challenge and response before the offer, which
would cost a round trip on every direct connection.
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
        nonce: 12 fresh random bytes for this end of this path.
        strategy: name of the strategy that makes the path.
        stream: TCP (true) or UDP (false).
        envelope: this end's own sealed offer (initiator) or answer (responder).
        fresh: says of a peer's nonce whether it is new in this session, and remembers it.
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
        self._spoke = False

    def unlock(self, keys: SessionKeys) -> None:
        """The session's secret is known now."""
        self._keys = keys

    @property
    def opened(self) -> bool:
        """Whether `opening` need not be sent again: what is lost from here on, the initiator repeats."""
        return self.state >= (ProofState.PROVEN if self.role is Role.INITIATOR else ProofState.HEARD)

    @property
    def proven(self) -> bool:
        """Whether the path may carry application bytes once nominated."""
        return self.state >= ProofState.PROVEN

    def opening(self) -> Frame:
        """What to send first, and over UDP again until something came back."""
        self._spoke = True
        if self.role is Role.INITIATOR and self._keys is None:
            return Frame(
                FrameKind.OFFER, self.tag, self.nonce, NO_NONCE, self.strategy, envelope=self._envelope
            )
        if self.role is Role.RESPONDER and not self.peer_has_answer:
            return self._signed(FrameKind.ANSWER, envelope=self._envelope)
        return self._signed(FrameKind.CHECK, wants_reply=True)

    def nominate(self) -> Frame:
        """As initiator: choose this path. The frame may be sent again until CONFIRMED.

        Raises:
            ProtocolError: not proven, or this end does not nominate.
        """
        if self.role is not Role.INITIATOR or not self.proven:
            raise ProtocolError("only the initiator nominates, and only a proven path")
        self.state = max(self.state, ProofState.NOMINATED)
        return self._signed(FrameKind.NOMINATE)

    def receive(self, frame: Frame) -> list[Frame]:
        """Take one frame of the peer's.

        Args:
            frame: with the session's tag; an ANSWER's envelope must have been opened by the session
                (and `unlock` called) before.

        Returns:
            What to send in reply.

        Raises:
            ProtocolError: wrong MAC, wrong echo, or a frame that this role does not get. Nothing has
                changed then.
        """
        if frame.kind is FrameKind.OFFER and self.role is Role.RESPONDER:
            return self._once(self._on_offer(frame))
        keys = self._keys
        if keys is None:
            raise ProtocolError(f"{frame.kind.name} before the session's secret is known")
        peer = Role.RESPONDER if self.role is Role.INITIATOR else Role.INITIATOR
        if not frame.verify(keys.of(peer)):
            raise ProtocolError(f"{frame.kind.name} was not made by the peer of this session")
        if frame.echo not in (NO_NONCE, self.nonce):
            raise ProtocolError(f"{frame.kind.name} belongs to another path")
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

    def _once(self, replies: list[Frame]) -> list[Frame]:
        # On a stream nothing is lost, so the responder speaks once before the nomination: whatever
        # follows is the fixed-size CONFIRM, and behind that the application's bytes.
        if self.stream and self._spoke:
            return []
        self._spoke = True
        return replies

    def _on_offer(self, frame: Frame) -> list[Frame]:
        if self.peer_nonce == NO_NONCE:
            self.peer_nonce = frame.nonce
        elif self.peer_nonce != frame.nonce:
            raise ProtocolError("a second offer on the same path")
        return [self._signed(FrameKind.ANSWER, envelope=self._envelope)]

    def _heard(self, frame: Frame) -> list[Frame]:
        echoed = frame.echo == self.nonce
        if not self.proven:
            unseen = self._fresh(frame.nonce)
            enough = self.stream and self.role is Role.INITIATOR
            if enough and not echoed and not unseen:
                raise ProtocolError("a proof that was already used in this session")
            self.peer_nonce = frame.nonce
            self.state = ProofState.PROVEN if echoed or enough else ProofState.HEARD
        if frame.wants_reply or frame.kind is FrameKind.ANSWER or not echoed:
            # Who nominates asks until it knows that packets pass both ways; the other end only replies.
            asks = self.role is Role.INITIATOR and not self.proven
            return [self._signed(FrameKind.CHECK, wants_reply=asks)]
        return []

    def _on_nominate(self, frame: Frame) -> list[Frame]:
        if frame.echo != self.nonce:
            raise ProtocolError("NOMINATE without this path's nonce")
        self.peer_nonce = frame.nonce
        self.strategy = frame.strategy
        self.state = ProofState.CONFIRMED
        return [self._signed(FrameKind.CONFIRM)]

    def _on_confirm(self, frame: Frame) -> list[Frame]:
        if self.state < ProofState.NOMINATED or frame.echo != self.nonce:
            raise ProtocolError("CONFIRM of a path that was not nominated")
        self.state = ProofState.CONFIRMED
        return []

    def _signed(self, kind: FrameKind, *, wants_reply: bool = False, envelope: bytes = b"") -> Frame:
        if self._keys is None:
            raise ProtocolError(f"{kind.name} cannot be made before the session's secret is known")
        name = "" if kind is FrameKind.CONFIRM else self.strategy
        frame = Frame(kind, self.tag, self.nonce, self.peer_nonce, name, wants_reply, envelope)
        return frame.signed(self._keys.of(self.role))
