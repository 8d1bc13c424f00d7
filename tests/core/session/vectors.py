"""The fixed values of docs/protocol.md, from which every vector there follows.

Secrets count upwards from a first byte, so that another implementation can type them in.
"""

from __future__ import annotations

import hashlib

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.identity import Identity
from warpgate_core.nat import Filtering, Mapping, NatProfile
from warpgate_core.session.frames import NO_NONCE, Frame, FrameKind
from warpgate_core.session.keys import EphemeralKey, SessionKeys, derive
from warpgate_core.session.messages import Answer, Offer


def count_up(first: int, size: int) -> bytes:
    """`size` bytes that count upwards from `first`."""
    return bytes(range(first, first + size))


INITIATOR = Identity.from_secret(count_up(0x01, 32))
RESPONDER = Identity.from_secret(count_up(0x21, 32))
SESSION = count_up(0x41, 16)
TAG = SESSION[:8]
EPHEMERAL_I = EphemeralKey(count_up(0x51, 32))
EPHEMERAL_R = EphemeralKey(count_up(0x71, 32))
NONCE_I = count_up(0xA1, 12)
NONCE_R = count_up(0xB1, 12)
CONSENT_ID = count_up(0xC1, 8)


def _address(identity: Identity, host: str) -> bytes:
    endpoint = Endpoint(host, 40001)
    nat = NatProfile(Mapping.NONE, Filtering.EIF)
    return NodeAddress(identity.public_key, (InterfaceAddress(0, endpoint, endpoint, nat),)).encode()


def offer() -> Offer:
    """The offer of the vectors: two sections, a third that follows later."""
    sections: dict[str, bytes | None] = {"direct": b"", "punch-udp": None, "reverse": b"hi"}
    address = _address(INITIATOR, "192.0.2.1")
    return Offer(SESSION, EPHEMERAL_I.public, frozenset({"tcp", "udp"}), 20.0, address, sections)


def answer() -> Answer:
    """The answer to it."""
    digest = hashlib.sha256(offer().encode()).digest()
    address = _address(RESPONDER, "198.51.100.2")
    return Answer(SESSION, digest, EPHEMERAL_R.public, address, {"direct": b"", "reverse": b""})


def keys() -> SessionKeys:
    """What both ends derive from the two."""
    shared = EPHEMERAL_I.exchange(EPHEMERAL_R.public)
    return derive(shared, offer().encode(), answer().encode(), INITIATOR.public_key, RESPONDER.public_key)


def frames() -> dict[str, Frame]:
    """One frame of each kind, over UDP; the envelopes are words that stand for sealed ones."""
    made = keys()
    i, r = made.initiator, made.responder
    kind = FrameKind
    return {
        "OFFER": Frame(kind.OFFER, TAG, NONCE_I, strategy="direct", envelope=b"sealed offer"),
        "ANSWER": Frame(kind.ANSWER, TAG, NONCE_R, NONCE_I, "direct", envelope=b"sealed answer").signed(
            r, stream=False
        ),
        "REFUSAL": Frame(kind.REFUSAL, TAG, NO_NONCE, NONCE_I, envelope=b"sealed refusal"),
        "CHECK": Frame(kind.CHECK, TAG, NONCE_I, NONCE_R, "direct", True).signed(i, stream=False),
        "CHECK over TCP": Frame(kind.CHECK, TAG, NONCE_I, NONCE_R, "direct", True).signed(i, stream=True),
        "NOMINATE": Frame(kind.NOMINATE, TAG, NONCE_I, NONCE_R, "direct", channel=7).signed(i, stream=False),
        "CONFIRM": Frame(kind.CONFIRM, TAG, NONCE_R, NONCE_I).signed(r, stream=False),
        "PROBE": Frame(kind.PROBE, TAG, NONCE_I, strategy="direct"),
    }
