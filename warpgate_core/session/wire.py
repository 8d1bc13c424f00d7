"""A reader and a writer of length-prefixed fields that cannot run over the end.

Every parser of this package uses it, so truncation has one answer: `ProtocolError` that names the field.
"""

from __future__ import annotations

from warpgate_core.errors import ProtocolError

__all__ = ["Reader", "Writer"]


class Reader:
    """Read fields off the front of `data`.

    Args:
        data: what came from the network.
        what: name of the structure, for the error text.
    """

    __slots__ = ("_data", "_pos", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._pos = 0
        self._what = what

    def raw(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        end = self._pos + size
        if end > len(self._data):
            raise ProtocolError(f"{self._what} ends inside its field {field!r}")
        part = self._data[self._pos : end]
        self._pos = end
        return part

    def uint(self, size: int, field: str) -> int:
        """The next `size` bytes as a big-endian number."""
        return int.from_bytes(self.raw(size, field), "big")

    def blob(self, size_bytes: int, field: str, limit: int) -> bytes:
        """A field whose length stands before it in `size_bytes` bytes, of at most `limit` bytes."""
        size = self.uint(size_bytes, field)
        if size > limit:
            raise ProtocolError(
                f"{self._what}: field {field!r} has {size} bytes, at most {limit} are allowed"
            )
        return self.raw(size, field)

    def text(self, field: str, limit: int) -> str:
        """A printable ASCII field with a one-byte length."""
        raw = self.blob(1, field, limit)
        if not raw.isascii() or not all(32 <= byte < 127 for byte in raw):
            raise ProtocolError(f"{self._what}: field {field!r} is not printable ASCII")
        return raw.decode("ascii")

    def rest(self) -> bytes:
        """All that is left."""
        part = self._data[self._pos :]
        self._pos = len(self._data)
        return part

    def end(self) -> None:
        """Insist that nothing is left."""
        if self._pos != len(self._data):
            raise ProtocolError(f"{self._what} has {len(self._data) - self._pos} bytes too many")


class Writer:
    """Append fields; `bytes(writer)` gives the whole."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def raw(self, data: bytes) -> Writer:
        """As it is."""
        self._parts.append(data)
        return self

    def uint(self, value: int, size: int) -> Writer:
        """A big-endian number."""
        return self.raw(value.to_bytes(size, "big"))

    def blob(self, data: bytes, size_bytes: int) -> Writer:
        """With its length before it."""
        return self.uint(len(data), size_bytes).raw(data)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)
