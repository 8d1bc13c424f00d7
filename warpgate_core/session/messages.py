"""What two nodes say to each other inside sealed envelopes: offer, answer, refusal, message, end.

One offer and one answer serve all strategies together: each contributes a section. The envelope around
them is signed and sealed, so nothing here carries a signature of its own. Each value has one encoding, and
a reader insists on it; only an unknown refusal code is read as `OTHER`, so that more can be added. Kind,
version and session stand first in every version. Rejected: JSON and CBOR (an offer must fit one
1,200-byte datagram together with the address and all sections).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from warpgate_core.errors import InputError, ProtocolError
from warpgate_core.session.wire import Reader, Writer
from warpgate_core.strategy import MAX_SECTION, is_valid_name

__all__ = [
    "MAX_SECTIONS",
    "PROTOCOL_VERSION",
    "Answer",
    "End",
    "Kind",
    "Message",
    "MessageUse",
    "Offer",
    "Refusal",
    "RefusalCode",
    "SessionMessage",
    "decode",
]

PROTOCOL_VERSION = 1
SESSION_ID = 16
EPHEMERAL = 32  # an X25519 public key (RFC 7748)
DIGEST = 32
MAX_SECTIONS = 24  # three times the strategies that we know of; 24 full ones still fit an envelope
MAX_ADDRESS = 1_024  # the largest address there is (docs/protocol.md)
MAX_TEXT = 200  # one line for a person
MAX_NAME = 24  # as in the strategy contract
MAX_TIMEOUT_MS = 0xFFFFFFFF
_TRANSPORTS = {"tcp": 1, "udp": 2}


class Kind(enum.IntEnum):
    """First byte of every session message."""

    OFFER = 1
    ANSWER = 2
    REFUSAL = 3
    MESSAGE = 4
    END = 5


class RefusalCode(enum.IntEnum):
    """Why an offer was refused. An unknown number reads as `OTHER`."""

    OTHER = 0
    POLICY = 1  # the accept policy says no
    BUSY = 2  # a limit is reached; later may do
    NO_COMMON_STRATEGY = 3
    VERSION = 4
    CLOSING = 5


class MessageUse(enum.IntEnum):
    """What a `Message` is for."""

    DATA = 0  # the strategy's own
    SECTION = 1  # its contribution, which was not ready when the offer (or answer) was sent
    FAILED = 2  # it has given up at the sender's end; the text says why


@dataclass(frozen=True, slots=True)
class Offer:
    """What the initiator proposes.

    Args:
        session: 16 random bytes; the first eight are the tag that names the session on paths.
        ephemeral: X25519 public key, 32 bytes.
        transports: what the initiator will accept.
        timeout: seconds from now for which it will try.
        address: the initiator's encoded node address.
        sections: per strategy that takes part, its contribution, which may be empty; None where it
            follows in a message of its own.
    """

    session: bytes
    ephemeral: bytes
    transports: frozenset[str]
    timeout: float
    address: bytes
    sections: dict[str, bytes | None] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The payload for an envelope.

        Raises:
            InputError: more than `MAX_SECTIONS` sections.
        """
        bits = sum(_TRANSPORTS[name] for name in self.transports)
        milliseconds = round(max(0.0, min(self.timeout * 1000, MAX_TIMEOUT_MS)))
        out = _head(Kind.OFFER, self.session).raw(self.ephemeral)
        out.uint(bits, 1).uint(milliseconds, 4).blob(self.address, 2)
        return bytes(_write_sections(out, self.sections))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the responder replies. `offer_digest` is SHA-256 over the offer's payload."""

    session: bytes
    offer_digest: bytes
    ephemeral: bytes
    address: bytes
    sections: dict[str, bytes | None] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The payload for an envelope."""
        out = (
            _head(Kind.ANSWER, self.session).raw(self.offer_digest).raw(self.ephemeral).blob(self.address, 2)
        )
        return bytes(_write_sections(out, self.sections))


@dataclass(frozen=True, slots=True)
class Refusal:
    """The responder says no."""

    session: bytes
    offer_digest: bytes
    code: RefusalCode
    text: str = ""

    def encode(self) -> bytes:
        """The payload for an envelope."""
        out = _head(Kind.REFUSAL, self.session).raw(self.offer_digest)
        return bytes(out.uint(self.code, 1).blob(_ascii(self.text), 1))


@dataclass(frozen=True, slots=True)
class Message:
    """One strategy to its counterpart. `use` says what `data` is; of `FAILED`, a line of printable ASCII."""

    session: bytes
    strategy: str
    data: bytes
    use: MessageUse

    def encode(self) -> bytes:
        """The payload for an envelope."""
        failed = self.use is MessageUse.FAILED
        data = _ascii(self.data.decode("ascii", "replace")) if failed else self.data
        out = _head(Kind.MESSAGE, self.session).uint(self.use, 1)
        return bytes(out.blob(self.strategy.encode(), 1).blob(data, 2))


@dataclass(frozen=True, slots=True)
class End:
    """This end has given the session up; `report` holds one line per strategy, for the other's trace."""

    session: bytes
    text: str = ""
    report: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """The payload for an envelope."""
        out = _head(Kind.END, self.session).blob(_ascii(self.text), 1)
        out.uint(min(len(self.report), MAX_SECTIONS), 1)
        for name, line in self.report[:MAX_SECTIONS]:
            out.blob(name.encode(), 1).blob(_ascii(line), 1)
        return bytes(out)


SessionMessage = Offer | Answer | Refusal | Message | End


def decode(payload: bytes) -> SessionMessage:
    """Read one session message.

    Raises:
        ProtocolError: malformed, of another version, or over a bound.
    """
    reader = Reader(payload, "session message")
    kind, version = reader.uint(1, "kind"), reader.uint(1, "version")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the peer speaks session protocol version {version}, this node speaks {PROTOCOL_VERSION}; "
            "update the older of the two"
        )
    session = reader.raw(SESSION_ID, "session")
    match kind:
        case Kind.OFFER:
            message: SessionMessage = _read_offer(reader, session)
        case Kind.ANSWER:
            digest, ephemeral = reader.raw(DIGEST, "offer digest"), reader.raw(EPHEMERAL, "ephemeral key")
            address = reader.blob(2, "address", MAX_ADDRESS)
            message = Answer(session, digest, ephemeral, address, _read_sections(reader))
        case Kind.REFUSAL:
            digest, code = reader.raw(DIGEST, "offer digest"), reader.uint(1, "code")
            known = RefusalCode(code) if code in tuple(RefusalCode) else RefusalCode.OTHER
            message = Refusal(session, digest, known, reader.text("text", MAX_TEXT))
        case Kind.MESSAGE:
            message = _read_message(reader, session)
        case Kind.END:
            text = reader.text("text", MAX_TEXT)
            count = _count(reader)
            message = End(
                session,
                text,
                tuple((_read_name(reader), reader.text("line", MAX_TEXT)) for _ in range(count)),
            )
        case _:
            raise ProtocolError(f"unknown kind of session message: {kind}")
    reader.end()
    return message


def _read_offer(reader: Reader, session: bytes) -> Offer:
    ephemeral, bits = reader.raw(EPHEMERAL, "ephemeral key"), reader.uint(1, "transports")
    if not 1 <= bits <= sum(_TRANSPORTS.values()):
        raise ProtocolError(f"the offer's transports are 0x{bits:02x}; TCP, UDP or both can be offered")
    transports = frozenset(name for name, bit in _TRANSPORTS.items() if bits & bit)
    timeout = reader.uint(4, "timeout") / 1000
    address = reader.blob(2, "address", MAX_ADDRESS)
    return Offer(session, ephemeral, transports, timeout, address, _read_sections(reader))


def _read_message(reader: Reader, session: bytes) -> Message:
    use, name = reader.uint(1, "use"), _read_name(reader)
    data = reader.blob(2, "data", MAX_SECTION)
    if use not in tuple(MessageUse):
        raise ProtocolError(f"unknown use of a message: {use}")
    if use == MessageUse.FAILED and data != _ascii(data.decode("ascii", "replace")):
        raise ProtocolError(f"a failure is told in at most {MAX_TEXT} printable ASCII characters")
    return Message(session, name, data, MessageUse(use))


def _head(kind: Kind, session: bytes) -> Writer:
    return Writer().uint(kind, 1).uint(PROTOCOL_VERSION, 1).raw(session)


def _write_sections(out: Writer, sections: dict[str, bytes | None]) -> Writer:
    if len(sections) > MAX_SECTIONS:
        raise InputError(
            f"{len(sections)} strategies do not fit one offer, at most {MAX_SECTIONS} do; disable some, or "
            "name those to use"
        )
    out.uint(len(sections), 1)
    for name, data in sorted(sections.items()):
        out.blob(name.encode(), 1).uint(data is not None, 1)
        if data is not None:
            out.blob(data, 2)
    return out


def _read_sections(reader: Reader) -> dict[str, bytes | None]:
    sections: dict[str, bytes | None] = {}
    last = ""
    for _ in range(_count(reader)):
        name = _read_name(reader)
        if name <= last:
            raise ProtocolError(f"section {name!r} stands after {last!r}; they come once, in order of name")
        present = reader.uint(1, "present")
        if present > 1:
            raise ProtocolError(f"section {name!r} is there (1) or follows later (0), not {present}")
        sections[name] = reader.blob(2, f"section {name}", MAX_SECTION) if present else None
        last = name
    return sections


def _count(reader: Reader) -> int:
    count = reader.uint(1, "count")
    if count > MAX_SECTIONS:
        raise ProtocolError(f"{count} sections or lines, at most {MAX_SECTIONS} are allowed")
    return count


def _read_name(reader: Reader) -> str:
    name = reader.text("strategy", MAX_NAME)
    if not is_valid_name(name):
        raise ProtocolError(f"{name!r} cannot be the name of a strategy")
    return name


def _ascii(text: str) -> bytes:
    clean = "".join(char if " " <= char <= "~" else "?" for char in text)
    return clean[:MAX_TEXT].encode("ascii")
