"""Keys: three backends that must agree, foreign key objects, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coincurve
import ecdsa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from warpgate_core.errors import IdentityError, InputError
from warpgate_core.identity import (
    BACKENDS,
    Identity,
    TimingLeakWarning,
    check_public_key,
    default_home,
    node_id,
    verify,
)
from warpgate_core.keys.curve import check_secret, is_low_s, new_secret

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # SEC 2, 2.4.1
P = 2**256 - 2**32 - 977
SECRET = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def _accept_the_timing_leak() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimingLeakWarning)
        yield


def _high(signature: bytes) -> bytes:
    """The other valid signature of the same message: s replaced by n - s."""
    return signature[:32] + (N - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


# Backends


@pytest.mark.parametrize("signer", BACKENDS)
@pytest.mark.parametrize("verifier", BACKENDS)
def test_every_backend_verifies_every_backends_signature(signer: str, verifier: str) -> None:
    identity = Identity.from_secret(SECRET, signer)
    for count in range(20):  # half of all raw signatures have a high S
        data = b"message %d" % count
        signature = identity.sign(data)
        assert len(signature) == 64
        assert int.from_bytes(signature[32:], "big") <= N // 2
        assert verify(identity.public_key, signature, data, verifier)
        assert not verify(identity.public_key, signature, data + b"!", verifier)
        assert not verify(Identity.generate().public_key, signature, data, verifier)
        flipped = bytes((signature[0] ^ 1,)) + signature[1:]
        assert not verify(identity.public_key, flipped, data, verifier)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_second_form_of_a_signature_is_valid_mathematics_and_refused(backend: str) -> None:
    identity = Identity.from_secret(SECRET, backend)
    high = _high(identity.sign(b"x"))
    oracle = ecdsa.VerifyingKey.from_string(identity.public_key, curve=ecdsa.SECP256k1)
    assert oracle.verify(high, b"x", hashfunc=hashlib.sha256)
    assert not verify(identity.public_key, high, b"x", backend)
    assert not identity.verify(identity.public_key, high, b"x")


def test_public_keys_and_exchanges_agree_across_backends() -> None:
    ours, theirs = new_secret(), new_secret()
    points = {Identity.from_secret(ours, backend).public_key for backend in BACKENDS}
    assert len(points) == 1
    shared = set()
    for left in BACKENDS:
        for right in BACKENDS:
            a, b = Identity.from_secret(ours, left), Identity.from_secret(theirs, right)
            shared |= {a.exchange(b.public_key), b.exchange(a.public_key)}
    assert len(shared) == 1
    # Independent of every backend's ECDH: the x coordinate of secret times point, by libsecp256k1.
    peer = coincurve.PrivateKey(theirs).public_key
    assert shared == {peer.multiply(ours).format(compressed=True)[1:]}


@settings(max_examples=30, deadline=None)
@given(secret=st.integers(1, N - 1), data=st.binary(max_size=200))
def test_default_backend_against_the_oracle(secret: int, data: bytes) -> None:
    identity = Identity.from_secret(secret.to_bytes(32, "big"))
    oracle = ecdsa.SigningKey.from_secret_exponent(secret, curve=ecdsa.SECP256k1)
    assert identity.public_key == oracle.get_verifying_key().to_string("compressed")
    assert oracle.get_verifying_key().verify(identity.sign(data), data, hashfunc=hashlib.sha256)
    theirs = oracle.sign(data, hashfunc=hashlib.sha256)
    assert verify(identity.public_key, theirs, data) is is_low_s(theirs)
    assert verify(identity.public_key, _high(theirs), data) is not is_low_s(theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_secrets(backend: str) -> None:
    for number in (1, 2, N - 1):
        identity = Identity.from_secret(number.to_bytes(32, "big"), backend)
        assert verify(identity.public_key, identity.sign(b""), b"", backend)
    generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"  # SEC 2, 2.4.1
    assert Identity.from_secret((1).to_bytes(32, "big"), backend).public_key_hex == generator


def test_a_numbers_leading_zeros_and_high_bits_survive_every_encoding() -> None:
    """r and s with a zero first byte, and with the top bit set, make DER of other lengths."""
    identity = Identity.from_secret(SECRET, "coincurve")
    short = long = 0
    for count in range(2000):
        data = count.to_bytes(2, "big")
        signature = identity.sign(data)
        if signature[0] == 0 or signature[32] == 0:
            short += 1
        elif signature[0] >= 0x80:
            long += 1
            if long > 5:
                continue
        else:
            continue
        assert all(verify(identity.public_key, signature, data, backend) for backend in BACKENDS)
    assert short
    assert long


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=200, deadline=None)
@given(key=st.binary(max_size=70), signature=st.binary(max_size=70), data=st.binary(max_size=20))
def test_verifying_rubbish_is_false(backend: str, key: bytes, signature: bytes, data: bytes) -> None:
    good = Identity.from_secret(SECRET)
    assert verify(key, signature, data, backend) is False
    assert verify(good.public_key, signature, data, backend) is False
    assert verify(key, good.sign(data), data, backend) is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_out_of_range_in_a_signature(backend: str) -> None:
    identity = Identity.from_secret(SECRET)
    r, s = (identity.sign(b"x")[i : i + 32] for i in (0, 32))
    zero, order = bytes(32), N.to_bytes(32, "big")
    half = (N // 2 + 1).to_bytes(32, "big")
    for bad in (zero + s, r + zero, order + s, r + order, r + half, b"\xff" * 64, r + s + b"\0", r):
        assert not verify(identity.public_key, bad, b"x", backend)


def test_the_boundary_of_low_s() -> None:
    one = (1).to_bytes(32, "big")
    assert is_low_s(one + (N // 2).to_bytes(32, "big"))
    assert not is_low_s(one + (N // 2 + 1).to_bytes(32, "big"))


def test_a_mutable_buffer_is_as_good_as_bytes() -> None:
    identity = Identity.from_secret(SECRET)
    key: Any = bytearray(identity.public_key)
    signature: Any = memoryview(identity.sign(b"x"))
    data: Any = bytearray(b"x")
    assert verify(key, signature, data)
    assert identity.exchange(key) == identity.exchange(identity.public_key)


# Public keys


@settings(max_examples=300, deadline=None)
@given(prefix=st.sampled_from([2, 3]), x=st.one_of(st.integers(0, 2**256 - 1), st.integers(P - 50, P + 50)))
def test_our_point_check_agrees_with_two_libraries(prefix: int, x: int) -> None:
    key = bytes((prefix,)) + x.to_bytes(32, "big")
    try:
        check_public_key(key)
        ours = True
    except IdentityError:
        ours = False
    try:
        coincurve.PublicKey(key)
        libsecp256k1 = True
    except ValueError:
        libsecp256k1 = False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
        openssl = True
    except ValueError:
        openssl = False
    assert ours == libsecp256k1 == openssl


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"", "33 bytes"),
        (bytes(33), "02 or 03"),
        (b"\x02" + b"\xff" * 32, "not a point"),
        (b"\x02" + (5).to_bytes(32, "big"), "not a point"),  # 5^3 + 7 has no root
        (b"\x04" + bytes(64), "33 bytes"),
    ],
)
def test_bad_public_keys_say_why(key: bytes, says: str) -> None:
    with pytest.raises(IdentityError, match=says):
        check_public_key(key)
    with pytest.raises(IdentityError, match=says):
        Identity.generate().exchange(key)


def test_an_uncompressed_key_is_refused() -> None:
    uncompressed = coincurve.PrivateKey(SECRET).public_key.format(compressed=False)
    with pytest.raises(IdentityError, match="compressed"):
        check_public_key(uncompressed)


# Secrets and identities


def test_secrets_are_checked_before_a_library_sees_them() -> None:
    for bad in (b"", bytes(32), N.to_bytes(32, "big"), b"\xff" * 32, bytes(31), b"\1" * 33):
        with pytest.raises(IdentityError):
            check_secret(bad)
        for backend in BACKENDS:
            with pytest.raises(IdentityError):
                Identity.from_secret(bad, backend)


def test_generated_identities_differ_and_come_back_from_their_secret() -> None:
    identities = [Identity.generate(backend) for backend in BACKENDS for _ in range(3)]
    assert len({identity.public_key for identity in identities}) == 9
    for identity in identities:
        for backend in BACKENDS:
            again = Identity.from_secret(identity.export_secret(), backend)
            assert again == identity
            assert hash(again) == hash(identity)
            assert again.backend == backend
    assert identities[0] != identities[1]
    assert identities[0] != identities[0].public_key


def test_nothing_printable_shows_the_secret() -> None:
    for backend in BACKENDS:
        identity = Identity.from_secret(SECRET, backend)
        for text in (repr(identity), str(identity), f"{identity}", repr(identity._key)):
            assert SECRET.hex() not in text
            assert str(int.from_bytes(SECRET, "big")) not in text
        assert identity.node_id in repr(identity)
        assert not hasattr(identity, "__dict__")


def test_node_ids_are_short_and_differ() -> None:
    ids = {node_id(Identity.generate().public_key) for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) == 19 and one.count("-") == 3 and one == one.lower() for one in ids)


def test_ecdsa_warns_that_it_leaks_and_verifying_with_it_does_not() -> None:
    with pytest.warns(TimingLeakWarning, match="CVE-2024-23342") as caught:
        identity = Identity.from_secret(SECRET, "ecdsa")
    assert len(caught) == 1
    with pytest.warns(TimingLeakWarning):
        Identity.generate("ecdsa")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signature = Identity.from_secret(SECRET).sign(b"x")
        assert verify(identity.public_key, signature, b"x", "ecdsa")
        Identity.of(ecdsa.SigningKey.from_string(SECRET, curve=ecdsa.SECP256k1))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(IdentityError, match=r"'openssh'.*cryptography, ecdsa, coincurve"):
        Identity.generate("openssh")
    with pytest.raises(IdentityError, match="no key backend"):
        verify(b"", b"", b"", "openssh")


def _run(code: str) -> str:
    """Run Python code in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("backend", "extra"), [("ecdsa", "ecdsa"), ("coincurve", "fast")])
def test_a_missing_library_names_the_extra_to_install(backend: str, extra: str) -> None:
    out = _run(
        f"import sys; sys.modules[{backend!r}] = None\n"  # as if it were not installed
        "from warpgate_core.identity import *\n"
        "from warpgate_core.errors import IdentityError\n"
        f"try: Identity.generate({backend!r})\n"
        "except IdentityError as error: print(error)\n"
        "i = Identity.generate(); print(verify(i.public_key, i.sign(b'x'), b'x'))"
    )
    assert f"pip install 'warpgate-core[{extra}]'" in out
    assert out.endswith("True")


def test_an_ecdsa_key_needs_no_ecdsa_library_here() -> None:
    out = _run(
        "import sys; sys.modules['ecdsa'] = None\n"
        "from types import SimpleNamespace as S\n"
        "from warpgate_core.identity import Identity\n"
        "key = S(sign=None, curve=S(name='SECP256k1'), to_string=lambda: bytes(range(1, 33)))\n"
        "pair = S(private_key=key, public_key_hex=Identity.of(key).public_key_hex)\n"
        "print(Identity.of(pair).public_key_hex)"
    )
    assert out == Identity.from_secret(SECRET).public_key_hex


def test_importing_the_package_imports_no_optional_key_library() -> None:
    out = _run(
        "import sys, warpgate_core\n"
        "print([m for m in ('ecdsa', 'coincurve', 'platformdirs') if m in sys.modules])"
    )
    assert out == "[]"


# Keys of other libraries


class Signing:
    """The shape of aionetiface.utility.signing.Signing."""

    def __init__(self, priv: Any, curve: Any = ecdsa.SECP256k1) -> None:
        self.curve = curve
        self.private_key = priv
        self.public_key = priv.get_verifying_key()
        self.compact_public_key = self.public_key.to_string("compressed")
        self.public_key_hex = self.compact_public_key.hex()


class Keypair:
    """The shape of namebump.Keypair; `private` is None in one that can only verify."""

    def __init__(self, priv: Any = None, pub: Any = None) -> None:
        self.private = priv
        self.public = pub or priv.get_verifying_key()
        self.vkc = self.public.to_string("compressed")


@dataclass
class Holder:
    """Any other key pair object: a public claim, and the secret under one of several names."""

    vkc: object
    sk: object = None
    privkey: object = None
    private_key: object = None
    signing_key: object = None


ECDSA_KEY = ecdsa.SigningKey.from_string(SECRET, curve=ecdsa.SECP256k1)
PUBLIC = bytes.fromhex("0284bf7562262bbd6940085748f3be6afa52ae317155181ece31b66351ccffa4b0")


@pytest.mark.parametrize(
    "key",
    [
        Identity.from_secret(SECRET),
        SECRET,
        bytearray(SECRET),
        memoryview(SECRET),
        ECDSA_KEY,
        coincurve.PrivateKey(SECRET),
        ec.derive_private_key(int.from_bytes(SECRET, "big"), ec.SECP256K1()),
        Signing(ECDSA_KEY),
        Keypair(ECDSA_KEY),
        Holder(PUBLIC, sk=SECRET),
        Holder(bytearray(PUBLIC), privkey=ECDSA_KEY),
        Holder(PUBLIC, private_key=coincurve.PrivateKey(SECRET)),
        Holder(PUBLIC, signing_key=SECRET),
    ],
    ids=lambda key: type(key).__name__,
)
def test_keys_of_other_libraries_are_the_same_key(key: object) -> None:
    identity = Identity.of(key)
    assert identity.public_key == PUBLIC
    assert identity.backend == "cryptography"
    assert verify(PUBLIC, identity.sign(b"x"), b"x", "coincurve")


def test_of_keeps_an_identity_and_takes_a_backend() -> None:
    identity = Identity.generate("coincurve")
    assert Identity.of(identity) is identity
    assert Identity.of(ECDSA_KEY, "coincurve").backend == "coincurve"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "NoneType is no key"),
        ("ab" * 32, "str is no key"),
        (b"short", "32 bytes"),
        (7, "int is no key"),
        (object(), "what is accepted: an Identity"),
        (ecdsa.SigningKey.from_string(SECRET, curve=ecdsa.NIST256p), "NIST256p"),
        (ec.derive_private_key(7, ec.SECP256R1()), "secp256r1"),
        (Signing(ecdsa.SigningKey.generate(curve=ecdsa.NIST256p), ecdsa.NIST256p), "NIST256p"),
        (ed25519.Ed25519PrivateKey.generate(), "no key"),
        (ECDSA_KEY.get_verifying_key(), "no key"),
        (coincurve.PrivateKey(SECRET).public_key, "no key"),
        (Keypair(pub=ECDSA_KEY.get_verifying_key()), "public key only"),
        (Holder(PUBLIC), "public key only"),
        (Holder(PUBLIC, sk=new_secret()), "do not belong together"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_secp256k1_secret_is_refused_in_words(key: object, says: str) -> None:
    with pytest.raises(IdentityError, match=says) as caught:
        Identity.of(key)
    assert isinstance(caught.value, InputError)
    assert SECRET.hex() not in str(caught.value)


def test_an_rsa_key_is_refused() -> None:
    with pytest.raises(IdentityError, match="only secp256k1"):
        Identity.of(rsa.generate_private_key(65537, 2048))


def test_a_pair_whose_halves_differ_is_refused() -> None:
    pair = Signing(ECDSA_KEY)
    pair.public_key_hex = Identity.generate().public_key_hex
    with pytest.raises(IdentityError, match="do not belong together"):
        Identity.of(pair)
    pair.public_key_hex = PUBLIC.hex().upper()
    assert Identity.of(pair).public_key == PUBLIC


def test_the_real_aionetiface_key_pair() -> None:
    signing = pytest.importorskip("aionetiface.utility.signing", reason="needs the extra 'aionetiface'")
    pair = signing.Signing.keypair()
    assert Identity.of(pair).public_key_hex == pair.public_key_hex


def test_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WARPGATE_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.setenv("WARPGATE_HOME", "~/somewhere")
    assert default_home() == Path.home() / "somewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARPGATE_HOME", "here")
    assert default_home() == tmp_path / "here"
    monkeypatch.setenv("WARPGATE_HOME", "")
    assert default_home().is_absolute()
    assert "warpgate" in default_home().name
