"""The chapter on identity and address, checked line by line against the code."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from warpgate_core.address import NodeAddress
from warpgate_core.errors import IdentityError
from warpgate_core.identity import BACKENDS, Identity, TimingLeakWarning, node_id, verify

DOCS = Path(__file__).parents[2] / "docs"
A = bytes(range(0x01, 0x21))
B = bytes(range(0x21, 0x41))


@pytest.fixture(scope="module")
def chapter() -> str:
    """The chapter, from its own file or from the larger document that it became part of."""
    for name in ("protocol.md", "protocol-address.md"):
        file = DOCS / name
        if file.exists() and "Identity and address, byte by byte" in (text := file.read_text("utf-8")):
            return text
    pytest.fail("no document has the chapter 'Identity and address, byte by byte'")


def _blocks(chapter: str, language: str, holding: str) -> str:
    found = [
        block for block in re.findall(rf"```{language}\n(.*?)```", chapter, re.DOTALL) if holding in block
    ]
    assert len(found) == 1, f"one {language} block with {holding!r}"
    return str(found[0])


def test_the_vectors_hold_for_every_backend(chapter: str) -> None:
    rows = re.findall(r"^(\S.*?) {2,}(\S+)$", _blocks(chapter, "text", "exchange A and B"), re.MULTILINE)
    vectors = dict(rows)
    signature = bytes.fromhex(vectors['A signs "warpgate"'])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimingLeakWarning)
        for backend in BACKENDS:
            a, b = Identity.from_secret(A, backend), Identity.from_secret(B, backend)
            assert a.public_key_hex == vectors["public key A"]
            assert b.public_key_hex == vectors["public key B"]
            assert a.exchange(b.public_key).hex() == vectors["exchange A and B"]
            assert verify(a.public_key, signature, b"warpgate", backend)
            if backend != "cryptography":  # whose nonces are random
                assert a.sign(b"warpgate") == signature
            assert a.node_id == node_id(a.public_key) == vectors["node id of A"]
    assert len(vectors) == 5


def test_the_file_is_as_printed(chapter: str, tmp_path: Path) -> None:
    printed = _blocks(chapter, "text", "warpgate-identity").encode("ascii")
    file = tmp_path / "identity"
    Identity.from_secret(A).save(file)
    assert file.read_bytes() == printed
    file.write_bytes(printed[:-1])
    with pytest.raises(IdentityError):
        Identity.load(file)


def test_the_example_address_is_as_printed(chapter: str) -> None:
    scope: dict[str, object] = {}
    exec(_blocks(chapter, "python", "NodeAddress("), scope)  # the example itself is what is tested
    address = scope["address"]
    assert isinstance(address, NodeAddress)
    lines = _blocks(chapter, "hexdump", "version 1").splitlines()
    printed = bytes.fromhex("".join(re.split(r" {2,}", line)[0] for line in lines))
    assert address.encode() == printed
    assert NodeAddress.decode(printed) == address
    assert f"CRC-32 of the {len(printed) - 4} bytes above" in lines[-1]
    text = _blocks(chapter, "text", "wg1a").strip()
    assert str(address) == text
    assert NodeAddress.parse(text) == address
