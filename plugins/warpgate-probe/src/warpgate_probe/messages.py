"""What the two ends say to each other: a section, and at most a few messages. Bounds are checked on reading.

::

    section  version 1 | flags 1                                bit 0: this end's gate is reserved
    GO       1 | round 1                                        this end's gate is free now
    PORTS    2 | round 1 | { first 2 | step 2 signed | count 2 } ...
    BASE     3 | round 1 | port 2                               external port of a socket just opened
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from warpgate_core import ProtocolError
from warpgate_probe.order import LAST_PORT, Run

__all__ = ["MAX_RUNS", "Kind", "Message", "Section"]

VERSION = 1
MAX_RUNS = 64  # of 6 bytes each; a message holds 512 bytes
_RUN = struct.Struct("!HhH")
_PORT = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Section:
    """What is contributed.

    Args:
        reserved: whether this end's gate is reserved for this attempt.
    """

    reserved: bool

    def encode(self) -> bytes:
        """The bytes."""
        return bytes((VERSION, int(self.reserved)))

    @classmethod
    def decode(cls, data: bytes) -> Section:
        """Read one; a later version may append to it.

        Raises:
            ProtocolError: it is none.
        """
        if len(data) < 2 or not data[0]:
            raise ProtocolError(f"the peer's section is no section of probe: {data[:8].hex() or 'empty'}")
        return cls(bool(data[1] & 1))


class Kind(enum.IntEnum):
    """Of a message."""

    GO = 1
    PORTS = 2
    BASE = 3


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Args:
        kind: see `Kind`.
        number: of the round, 0 to 255.
        runs: where the sender's ports are (PORTS).
        port: 1 to 65,535 (BASE).
    """

    kind: Kind
    number: int = 0
    runs: Sequence[Run] = ()
    port: int = 0

    def encode(self) -> bytes:
        """The bytes."""
        head = bytes((self.kind, self.number))
        if self.kind is Kind.BASE:
            return head + _PORT.pack(self.port)
        return head + b"".join(_RUN.pack(run.first, run.step, run.count) for run in self.runs[:MAX_RUNS])

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Read one.

        Raises:
            ProtocolError: it is none.
        """
        try:
            kind, body = Kind(data[0]), data[2:]
            number = data[1]
            if kind is Kind.GO:
                return cls(kind, number)
            if kind is Kind.BASE:
                (port,) = _PORT.unpack(body)
                return cls(kind, number, port=_check(port, 1, LAST_PORT))
            runs = [Run(*fields) for fields in _RUN.iter_unpack(body)]
            _check(len(runs), 1, MAX_RUNS)
            for run in runs:
                _check(run.count * abs(run.step), 1, LAST_PORT)
            return cls(kind, number, runs)
        except (ValueError, IndexError, struct.error) as error:
            raise ProtocolError(
                f"the peer's message is none of probe: {data[:8].hex() or 'empty'}"
            ) from error


def _check(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError(f"{value} is not from {low} to {high}")
    return value
