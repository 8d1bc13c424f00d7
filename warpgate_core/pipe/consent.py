"""Whether the peer still wants our packets: consent freshness (RFC 7675) and goodbye, sans-I/O.

UDP has neither: without consent a pipe would keep sending to whoever got the peer's address next, and
without a goodbye the peer would wait 30 s. Time and randomness are arguments, frames are bytes in and out.
Rejected: STUN binding requests as in RFC 7675 itself (needs credentials per attempt and 100 bytes where
25 do), and counting received data as consent (forgeable without a key).

The timing is the RFC's, with one addition: after two checks without an answer the next follow every second.
At five checks per expiry, a path that loses a third of its round trips would be given up about once an
hour (measured in simulation), although it works.

Frame: kind (1 byte), transaction id (8 bytes), HMAC-SHA256 over both with the sender's key, cut to 16
bytes. Each direction has its own key, so a frame sent back to its sender proves nothing.
"""

from __future__ import annotations

import enum
import hmac
import random
from typing import Final

__all__ = ["FRAME_SIZE", "Consent", "ConsentState", "Frame"]


class Frame(enum.IntEnum):
    """First byte of what a pipe says besides the application's messages (`pipe.mux.data_byte`)."""

    CONSENT_REQUEST = 0xE7
    CONSENT_RESPONSE = 0xE8
    CLOSE = 0xE9

    @staticmethod
    def is_proof(first: int) -> bool:
        """Whether a datagram that begins so is a frame of the path's proof (`session.frames`)."""
        return 0xE0 <= first < Frame.CONSENT_REQUEST


class ConsentState(enum.Enum):
    """Where a pipe stands.

    ======== =========================== =========
    from     event                       to
    ======== =========================== =========
    OPEN     `close`                     CLOSING
    OPEN     authentic CLOSE             CLOSED
    OPEN     no response for 30 s        EXPIRED
    CLOSING  authentic CLOSE, or 1 s     CLOSED
    ======== =========================== =========
    """

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    EXPIRED = "expired"


ID_SIZE: Final = 8
MAC_SIZE: Final = 16  # RFC 2104 section 5: not less than half of the hash
FRAME_SIZE: Final = 1 + ID_SIZE + MAC_SIZE
CHECK_INTERVAL: Final = 5.0  # s, RFC 7675 section 5.1
JITTER: Final = (0.8, 1.2)  # RFC 7675 section 5.1
SUSPECT_AFTER: Final = 2  # checks without an answer; one is lost now and then
SUSPECT_INTERVAL: Final = 1.0  # s; 20 more tries before expiry, at 25 bytes a second
EXPIRY: Final = 30.0  # s, RFC 7675 section 5.1
CLOSE_AT: Final = (0.0, 0.25, 0.75)  # s after `close`: three, doubling, so one at 5 % loss fails in 10^-4
CLOSE_TIMEOUT: Final = 1.0  # s until `close` does without an answer
OUTSTANDING: Final = 32  # requests within one expiry: 2 in 10 s, then 20 / 0.8, rounded up


class Consent:
    """Consent and goodbye of one datagram pipe.

    Args:
        send_key: authenticates what we send; 16 or more bytes.
        recv_key: authenticates what the peer sends; not the same.
        now: the present time in seconds, monotonic; the peer has just proven itself.
        rng: source of transaction ids and of jitter; the system's by default.
    """

    def __init__(
        self, send_key: bytes, recv_key: bytes, now: float, rng: random.Random | None = None
    ) -> None:
        if send_key == recv_key:
            raise ValueError("each direction needs its own key, or frames can be reflected")
        self._send_key = send_key
        self._recv_key = recv_key
        self._rng = rng if rng is not None else random.SystemRandom()
        self._outstanding: list[bytes] = []
        self._expires_at = now + EXPIRY
        self._next_check = now + self._interval()
        self._close_id = b""
        self._close_started = 0.0
        self._closes_sent = 0
        self.state = ConsentState.OPEN
        self.rejected = 0

    def __repr__(self) -> str:
        return f"<Consent {self.state.value}>"

    @property
    def next_at(self) -> float | None:
        """When `poll` has something to do next; None if never."""
        if self.state is ConsentState.OPEN:
            return min(self._next_check, self._expires_at)
        if self.state is ConsentState.CLOSING:
            return self._close_started + (*CLOSE_AT, CLOSE_TIMEOUT)[self._closes_sent]
        return None

    def poll(self, now: float) -> list[bytes]:
        """Frames that are due now; may change `state`."""
        if self.state is ConsentState.CLOSING:
            return self._poll_closing(now)
        if self.state is not ConsentState.OPEN:
            return []
        if now >= self._expires_at:
            self.state = ConsentState.EXPIRED
            return []
        if now < self._next_check:
            return []
        request = self._rng.randbytes(ID_SIZE)
        self._outstanding = [*self._outstanding[1 - OUTSTANDING :], request]
        self._next_check = now + self._interval()
        return [self._frame(Frame.CONSENT_REQUEST, request)]

    def close(self, now: float) -> list[bytes]:
        """Begin to say goodbye: the first frame to send. Nothing, if it is said already."""
        if self.state is not ConsentState.OPEN:
            return []
        self.state = ConsentState.CLOSING
        self._close_id = self._rng.randbytes(ID_SIZE)
        self._close_started = now
        return self._poll_closing(now)

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take one control frame; returns the answer. May change `state`.

        What is not authentic changes nothing, is counted in `rejected` and never answered.
        """
        if len(data) != FRAME_SIZE or not self._is_authentic(data):
            self.rejected += 1
            return []
        kind, ident = data[0], data[1 : 1 + ID_SIZE]
        if kind == Frame.CONSENT_REQUEST:
            return [] if self.state is ConsentState.EXPIRED else [self._frame(Frame.CONSENT_RESPONSE, ident)]
        if kind == Frame.CONSENT_RESPONSE:
            if ident in self._outstanding and self.state is ConsentState.OPEN:
                was_doubtful = self._is_doubtful
                self._outstanding.clear()
                self._expires_at = now + EXPIRY
                if was_doubtful:
                    self._next_check = now + self._interval()
        elif kind == Frame.CLOSE:
            if self.state is not ConsentState.EXPIRED:
                self.state = ConsentState.CLOSED
            if ident != self._close_id:  # theirs and not the answer to ours
                return [self._frame(Frame.CLOSE, ident)]
        else:
            self.rejected += 1
        return []

    def _poll_closing(self, now: float) -> list[bytes]:
        due = self.next_at
        if due is None or now < due:
            return []
        if self._closes_sent == len(CLOSE_AT):
            self.state = ConsentState.CLOSED
            return []
        self._closes_sent += 1
        return [self._frame(Frame.CLOSE, self._close_id)]

    def _interval(self) -> float:
        return (SUSPECT_INTERVAL if self._is_doubtful else CHECK_INTERVAL) * self._rng.uniform(*JITTER)

    @property
    def _is_doubtful(self) -> bool:
        return len(self._outstanding) > SUSPECT_AFTER

    def _frame(self, kind: Frame, ident: bytes) -> bytes:
        body = bytes([kind]) + ident
        return body + hmac.digest(self._send_key, body, "sha256")[:MAC_SIZE]

    def _is_authentic(self, data: bytes) -> bool:
        body, tag = data[: 1 + ID_SIZE], data[1 + ID_SIZE :]
        return hmac.compare_digest(hmac.digest(self._recv_key, body, "sha256")[:MAC_SIZE], tag)
