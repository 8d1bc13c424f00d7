"""The pages about signalling: every number, vector and example in them holds."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from warpgate_core.identity import Identity
from warpgate_core.signal import (
    brokers,
    delivery,
    inbound,
    inbox,
    intake,
    ordering,
    pool,
    replay,
    router,
    seal,
    timing,
)
from warpgate_core.signal import envelope as codec
from warpgate_core.signal.embedded import EmbeddedBroker
from warpgate_core.signal.envelope import AckStatus, EnvelopeCodec, MessageType, open_ack
from warpgate_core.signal.rendezvous import inbox_topic, score
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT

DOCS = Path(__file__).parents[3] / "docs"
CHAPTERS = (DOCS / "protocol.md").read_text().split("\n## ")
(PROTOCOL,) = [chapter for chapter in CHAPTERS if chapter.startswith("The envelope, byte by byte")]
GUIDE = (DOCS / "signalling.md").read_text()
A = Identity.from_secret(bytes(range(0x01, 0x21)))
B = Identity.from_secret(bytes(range(0x21, 0x41)))


def vector(name: str) -> bytes:
    """The hexadecimal digits after a name, over several lines."""
    found = re.search(rf"^{name} +([0-9a-f]+(?:\n {{20}}[0-9a-f]+)*)$", PROTOCOL, re.MULTILINE)
    assert found is not None, name
    return bytes.fromhex("".join(found[1].split()))


def test_the_envelope_of_the_page_opens_to_what_it_says() -> None:
    receiver = EnvelopeCodec(B, lambda: 1_750_000_000.25)
    data = vector("envelope")
    opened = receiver.open(data)
    assert (opened.sender, opened.payload, opened.queue, opened.sequence) == (
        A.public_key,
        b"golden",
        b"recorded",
        3,
    )
    assert opened.message_id == vector("message id")
    assert (opened.ack.id, opened.ack.key) == (vector("ack id"), vector("ack key"))
    channel = receiver._inbound.compute(data[2:35])
    assert channel.ack_root == vector("ack root")
    assert channel.aead.decrypt(data[35:47], data[47:], data[:35]) == vector("inner message")
    assert B.exchange(data[2:35]) == vector("shared")
    ack = open_ack(vector("acknowledgement"), opened.ack)
    assert (ack.status, ack.clock) == (AckStatus.ACCEPTED, 1_750_000_001.25)
    assert len(vector("seal key")) == 32


def test_inboxes_and_scores() -> None:
    for name, identity in (("A", A), ("B", B)):
        assert re.search(rf"inbox of {name} +{inbox_topic(identity.public_key)}$", PROTOCOL, re.MULTILINE)
    found = re.findall(r"^score\((.+), A\), weight ([\d.]+) +([\d.]+)$", PROTOCOL, re.MULTILINE)
    assert len(found) == 4
    for broker, weight, expected in found:
        assert f"{score(broker, A.public_key_hex, float(weight)):.12f}" == expected


def test_the_tables_have_the_real_sizes() -> None:
    for number in (
        codec.MAX_SEALED,
        codec.MAX_PAYLOAD,
        codec.OVERHEAD,
        codec.ACK_SIZE,
        replay.REPLAY_CAPACITY,
    ):
        assert re.search(rf"\b{number}\b", PROTOCOL), number
    for text in (
        f"{seal.EPHEMERAL_LIFETIME:.0f} s or {seal.EPHEMERAL_MESSAGES} messages",
        f"up to {seal.INBOUND_LIMIT} of them",
        f"not more than {codec.FRESHNESS:.0f} s old",
        seal.SEAL_LABEL.decode(),
        seal.ACK_LABEL.decode(),
        codec.SIGN_LABEL[:-1].decode(),
        f"n + {codec.INNER.size + codec.SIGNATURE} + {codec.TAG}",
    ):
        assert text in PROTOCOL, text
    assert [(t.name, t.value) for t in MessageType] == [("DATA", 1), ("ACK", 2), ("CONTROL", 3)]


def test_every_reason_for_a_refusal_is_documented() -> None:
    source = "".join(Path(module.__file__ or "").read_text() for module in (codec, replay))
    reasons = set(re.findall(r'EnvelopeError\(\s*"(\w+)"', source)) | {"stale", "future"}
    assert reasons <= set(re.findall(r"\| `(\w+)` \|", PROTOCOL))


@pytest.mark.parametrize(
    "text",
    [
        f"({router.READY_TIMEOUT:.0f} s",
        f"timeout={DELIVERY_TIMEOUT:.0f}",
        f"{pool.IDLE_CLIENT_TIMEOUT:.0f} s (`IDLE_CLIENT_TIMEOUT`)",
        f"every {inbound.HEDGE * 1000:.0f} ms, doubling. Twenty",
        f"{delivery.HEDGE * 1000:.0f} ms, doubling. When",
        f"live for {inbound.REFILL_AFTER:.0f} s",
        f"({timing.BACKOFF_FIRST} s doubling to {timing.BACKOFF_LIMIT:.0f} s",
        f"after {timing.STABLE:.0f} s, so",
        f"up to {ordering.REORDER_WAIT:.0f} s for what is missing",
        f"{inbox.QUEUE_MESSAGES} messages of the queue or {inbox.MAX_MESSAGES} in all",
        f"rationed to {intake.STRANGERS_RATE:.0f} a second",
        f"at most {intake.COPIES} times",
        f"at most {router.MAX_HINTS} per destination are tried and {pool.FOREIGN_LIMIT} kept",
        f"default path is `{brokers.DEFAULT_PATH}`",
        f"`{brokers.ENVIRONMENT}",
    ],
)
def test_the_guide_has_the_real_numbers(text: str) -> None:
    plain = " ".join(GUIDE.split()).replace("at most 5 s", "(5 s")
    assert text in plain


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


async def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(examples()) == 2
    async with EmbeddedBroker() as broker:
        monkeypatch.setenv("WARPGATE_BROKERS", broker.url)
        for example in examples():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-W", "error", "-c", example, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await asyncio.wait_for(process.communicate(), 30)
            assert (process.returncode, err) == (0, b""), err.decode()
            assert out.startswith((b"from ", b"mqtt://127.0.0.1:"))
