"""What can happen to bytes on the way, and what a strict reader must make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from warpgate_core.errors import ProtocolError


def flips(data: bytes) -> Iterator[bytes]:
    """Every copy of `data` with one bit of one byte changed, and with one byte inverted."""
    for at in range(len(data)):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            yield data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


def refused_when_cut(data: bytes, decode: Callable[[bytes], object]) -> None:
    """Every truncation is refused with a ProtocolError and nothing else."""
    for size in range(len(data)):
        with pytest.raises(ProtocolError):
            decode(data[:size])


def read(data: bytes, decode: Callable[[bytes], object]) -> object | None:
    """The value, or None if it was refused; any other exception passes and fails the test."""
    try:
        return decode(data)
    except ProtocolError:
        return None
