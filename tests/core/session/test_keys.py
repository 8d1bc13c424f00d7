"""The session's secret: both ends the same, and another one for any change of the transcript."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.session.damage import flips
from tests.core.session.vectors import (
    EPHEMERAL_I,
    EPHEMERAL_R,
    INITIATOR,
    RESPONDER,
    answer,
    count_up,
    keys,
    offer,
)
from warpgate_core.errors import ProtocolError
from warpgate_core.session.keys import MAC, EphemeralKey, SessionKeys, derive, mac
from warpgate_core.strategy import Role

KEY_I, KEY_R = INITIATOR.public_key, RESPONDER.public_key


def test_both_ends_derive_the_same() -> None:
    there = derive(
        EPHEMERAL_R.exchange(EPHEMERAL_I.public), offer().encode(), answer().encode(), KEY_I, KEY_R
    )
    assert there == keys()
    assert len({there.initiator, there.responder, there.exporter}) == 3
    assert all(len(key) == 32 for key in (there.initiator, there.responder, there.exporter))


def test_it_is_hkdf_as_rfc_5869_writes_it() -> None:
    def digest(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    salt = digest(digest(offer().encode()) + digest(answer().encode()))
    secret = hmac.digest(salt, EPHEMERAL_I.exchange(EPHEMERAL_R.public), "sha256")
    info = b"warpgate session keys v1" + KEY_I + KEY_R
    blocks, block = b"", b""
    for number in (1, 2, 3):
        block = hmac.digest(secret, block + info + bytes((number,)), "sha256")
        blocks += block
    assert keys() == SessionKeys(blocks[:32], blocks[32:64], blocks[64:])


def test_the_exchange_is_the_one_of_rfc_7748() -> None:
    # RFC 7748 section 6.1
    bob = EphemeralKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert bob.exchange(alice).hex() == shared


@pytest.mark.parametrize("changed", ["shared", "offer", "answer", "initiator", "responder", "swapped"])
def test_any_change_gives_other_keys(changed: str) -> None:
    parts = {
        "shared": EPHEMERAL_I.exchange(EPHEMERAL_R.public),
        "offer": offer().encode(),
        "answer": answer().encode(),
        "initiator": KEY_I,
        "responder": KEY_R,
    }
    ours = keys()
    if changed == "swapped":
        variants = [
            parts | {"initiator": KEY_R, "responder": KEY_I},
            parts | {"offer": parts["answer"], "answer": parts["offer"]},
            parts | {"offer": parts["offer"] + parts["answer"][:1], "answer": parts["answer"][1:]},
        ]
    else:
        variants = [parts | {changed: damaged} for damaged in flips(parts[changed])]
    for variant in variants:
        theirs = derive(**variant)
        for one in (ours.initiator, ours.responder, ours.exporter):
            assert one not in (theirs.initiator, theirs.responder, theirs.exporter)


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\1" + bytes(31),
        # The other points of small order (RFC 7748 section 6.1 demands the check that finds them).
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        b"",
        bytes(31),
        bytes(33),
    ],
)
def test_a_key_that_makes_the_secret_known_is_refused(point: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a usable X25519 key"):
        EphemeralKey().exchange(point)


def test_every_session_has_a_key_of_its_own() -> None:
    assert len({EphemeralKey().public for _ in range(20)}) == 20


def test_each_role_has_its_own_direction() -> None:
    made = keys()
    assert made.of(Role.INITIATOR) == made.initiator
    assert made.of(Role.RESPONDER) == made.responder


def test_no_secret_is_shown() -> None:
    shown = repr(keys()) + repr(EPHEMERAL_I) + str(keys())
    for secret in (keys().initiator, keys().responder, keys().exporter, count_up(0x51, 32)):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


@given(st.binary(), st.binary())
def test_the_mac_is_a_truncated_hmac(key: bytes, data: bytes) -> None:
    assert mac(key, data) == hmac.new(key, data, hashlib.sha256).digest()[:MAC]
    assert MAC == 16
