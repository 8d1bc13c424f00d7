"""The address of a node: its public key, and where and how it may be reached.

What two people exchange, as bytes or as text. An address is a claim by whoever handed it over: only
the public key in it is proven, and that by connecting. Rejected: a signature in it (64 bytes more, and
it would prove no more than the connection does). The parts are in `address_parts`, the bytes in
`address_codec`, the text in `address_text`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from warpgate_core import address_codec, address_text
from warpgate_core.address_codec import MAX_EXTENSIONS, MAX_HINTS, MAX_INTERFACES, MAX_SIZE
from warpgate_core.address_parts import MAX_NIC, BrokerHint, InterfaceAddress
from warpgate_core.errors import AddressError, IdentityError
from warpgate_core.keys.curve import check_public_key, node_id

__all__ = [
    "MAX_EXTENSIONS",
    "MAX_HINTS",
    "MAX_INTERFACES",
    "MAX_NIC",
    "MAX_SIZE",
    "BrokerHint",
    "InterfaceAddress",
    "NodeAddress",
]


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node may be reached. Equal values have equal bytes and equal text, and the reverse.

    Args:
        public_key: 33 bytes, compressed secp256k1: who must answer.
        interfaces: up to 16, in the order in which the node prefers them.
        hints: up to 8 brokers at which the node is subscribed.
        extensions: (type 0 to 255, value) in ascending order of type, up to 16. Types that a program does
            not know are kept and passed on.

    Raises:
        AddressError: a part that cannot be encoded, or more than 1,024 bytes in all.
    """

    public_key: bytes
    interfaces: tuple[InterfaceAddress, ...] = ()
    hints: tuple[BrokerHint, ...] = ()
    extensions: tuple[tuple[int, bytes], ...] = ()
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public_key", bytes(self.public_key))
        for name in ("interfaces", "hints", "extensions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        try:
            check_public_key(self.public_key)
        except IdentityError as error:
            raise AddressError(f"the public key in the address: {error}") from error
        parts = (self.public_key, self.interfaces, self.hints, self.extensions)
        object.__setattr__(self, "_encoded", address_codec.encode(parts))

    def encode(self) -> bytes:
        """The canonical bytes, 40 to 1,024 of them (docs/protocol.md)."""
        return self._encoded

    @classmethod
    def decode(cls, data: bytes) -> NodeAddress:
        """Read the bytes of an address.

        Raises:
            AddressError: damaged, cut off, too long, of an unknown version, or not in the one encoding
                that its value has.
        """
        data = bytes(data[: MAX_SIZE + 1])  # one more than is allowed is seen as too long
        address = cls(*address_codec.decode(data))
        if address.encode() != data:
            raise AddressError("the address is not in its canonical form; it was not made by this protocol")
        return address

    @classmethod
    def parse(cls, dest: NodeAddress | bytes | str) -> NodeAddress:
        """Take an address in any of its forms: value, bytes or text.

        Raises:
            AddressError: not an address; the text says what is wrong with it.
        """
        if isinstance(dest, NodeAddress):
            return dest
        if isinstance(dest, bytes | bytearray | memoryview):
            return cls.decode(bytes(dest))
        if isinstance(dest, str):
            return cls.decode(address_text.from_text(dest))
        raise AddressError(f"an address is a NodeAddress, bytes or text, not a {type(dest).__name__}")

    @property
    def node_id(self) -> str:
        """Short id of the node for people, as `Identity.node_id`."""
        return node_id(self.public_key)

    def __str__(self) -> str:
        """The text form, one word beginning with ``wg1``."""
        return address_text.to_text(self._encoded)
