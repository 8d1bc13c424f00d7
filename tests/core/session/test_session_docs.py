"""The chapter on the session, checked line by line against the code."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

import pytest

from tests.core.session.proofs import INITIATOR_DATAGRAM, INITIATOR_STREAM, RESPONDER_PROBED
from tests.core.session.proofs import RESPONDER as RESPONDER_TABLE
from tests.core.session.vectors import (
    CONSENT_ID,
    EPHEMERAL_I,
    EPHEMERAL_R,
    NONCE_I,
    NONCE_R,
    RESPONDER,
    answer,
    frames,
    keys,
    offer,
)
from warpgate_core.identity import node_id
from warpgate_core.pipe.consent import FRAME_SIZE, Consent, ConsentState
from warpgate_core.pipe.consent import Frame as PipeFrame
from warpgate_core.session.frames import Frame, FrameKind
from warpgate_core.session.messages import Kind, MessageUse, RefusalCode, decode

UNKEYED = (FrameKind.OFFER, FrameKind.REFUSAL, FrameKind.PROBE)
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def chapter() -> str:
    """The chapter, from its own file or from the larger document that it became part of."""
    for name in ("protocol.md", "protocol-session.md"):
        file = DOCS / name
        if file.exists() and "The session, byte by byte" in (text := file.read_text("utf-8")):
            return text
    pytest.fail("no document has the chapter 'The session, byte by byte'")


def block(chapter: str, language: str) -> str:
    """The one block of this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"one block of {language!r}"
    return str(found[0])


def dumped(text: str) -> bytes:
    """The bytes of a hexdump with comments behind them."""
    return bytes.fromhex("".join(re.split(r" {2,}", line)[0] for line in text.splitlines()))


@pytest.mark.parametrize(("language", "message"), [("hexdump offer", offer()), ("hexdump answer", answer())])
def test_offer_and_answer_are_as_printed(chapter: str, language: str, message: object) -> None:
    printed = dumped(block(chapter, language))
    assert printed == message.encode()  # type: ignore[attr-defined]
    assert decode(printed) == message


def test_the_keys_are_as_printed(chapter: str) -> None:
    rows = dict(re.findall(r"^(\S.*?) {2,}([0-9a-f]+)$", block(chapter, "text keys"), re.MULTILINE))
    made = keys()
    offered, answered = (hashlib.sha256(m.encode()).digest() for m in (offer(), answer()))
    assert rows == {
        "ephemeral key, initiator": EPHEMERAL_I.public.hex(),
        "ephemeral key, responder": EPHEMERAL_R.public.hex(),
        "shared secret": EPHEMERAL_R.exchange(EPHEMERAL_I.public).hex(),
        "SHA-256 of the offer": offered.hex(),
        "SHA-256 of the answer": answered.hex(),
        "salt": hashlib.sha256(offered + answered).hexdigest(),
        "key, initiator": made.initiator.hex(),
        "key, responder": made.responder.hex(),
        "exporter": made.exporter.hex(),
    }


def test_the_frames_are_as_printed(chapter: str) -> None:
    printed = {
        name: bytes.fromhex(body)
        for name, body in re.findall(
            r"^([A-Z]+(?: over TCP)?)\n([0-9a-f\n]+)", block(chapter, "text frames"), re.MULTILINE
        )
    }
    assert printed == {name: frame.encode() for name, frame in frames().items()}
    made = keys()
    for name, data in printed.items():
        frame = Frame.decode(data)
        assert frame == frames()[name]
        key = made.initiator if frame.nonce == NONCE_I else made.responder
        assert frame.verify(key, stream="TCP" in name) == (frame.kind not in UNKEYED)
        assert {frame.nonce, frame.echo} <= {NONCE_I, NONCE_R, bytes(12)}


class Counted:
    """A random source that gives the id of the vectors."""

    def randbytes(self, size: int) -> bytes:
        return CONSENT_ID[:size]

    def uniform(self, low: float, high: float) -> float:
        return low


def test_consent_and_close_are_as_printed(chapter: str) -> None:
    rows = dict(re.findall(r"^(\S.*?) {2,}([0-9a-f]+)$", block(chapter, "text consent"), re.MULTILINE))
    made, rng = keys(), Counted()
    one = Consent(made.initiator, made.responder, 0.0, rng)  # type: ignore[arg-type]
    other = Consent(made.responder, made.initiator, 0.0, rng)  # type: ignore[arg-type]
    (request,) = one.poll(4.0)
    (response,) = other.receive(request, 4.1)
    assert one.receive(response, 4.2) == []
    (close,) = one.close(5.0)
    (answered,) = other.receive(close, 5.1)
    one.receive(answered, 5.2)
    assert one.state is other.state is ConsentState.CLOSED
    assert (one.rejected, other.rejected) == (0, 0)
    assert rows == {
        "request by the initiator": request.hex(),
        "response by the responder": response.hex(),
        "close by the initiator": close.hex(),
        "close by the responder": answered.hex(),
    }
    assert all(len(data) == FRAME_SIZE for data in (request, response, close, answered))


def test_the_tables_of_states_are_those_that_the_tests_go_through(chapter: str) -> None:
    for table in (INITIATOR_DATAGRAM, INITIATOR_STREAM, RESPONDER_TABLE, RESPONDER_PROBED):
        assert f"```text\n{table.strip(chr(10))}\n```" in chapter


def test_every_constant_is_as_printed(chapter: str) -> None:
    rows = re.findall(r"^\| ([\d.]+) \| .*? \| `([a-z_.]+)\.([A-Z_]+)` \|$", chapter, re.MULTILINE)
    assert len(rows) >= 40
    wrong = {
        f"{module}.{name}": printed
        for printed, module, name in rows
        if getattr(importlib.import_module(f"warpgate_core.{module}"), name) != float(printed)
    }
    assert not wrong


def test_the_numbers_of_kinds_codes_and_uses_are_as_printed(chapter: str) -> None:
    for kind in FrameKind:
        assert f"| `{kind:02x}` | {kind.name} |" in chapter
    words = ", ".join(f"{kind.value} {kind.name.lower()}" for kind in Kind)
    assert words in chapter
    codes = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in RefusalCode)
    assert codes in chapter
    assert [use.value for use in MessageUse] == [0, 1, 2]
    for frame, name in zip(PipeFrame, ("consent request", "consent response", "close"), strict=True):
        assert f"`{frame:02x}` {name}" in chapter


def test_links_lead_somewhere(chapter: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", chapter):
        assert (DOCS / target).exists(), target


def test_the_vectors_name_the_identities_of_the_address_chapter() -> None:
    assert node_id(RESPONDER.public_key) == RESPONDER.node_id
    assert offer().address.hex().startswith("01080002")
