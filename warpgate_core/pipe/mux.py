"""Several UDP pipes between the same two endpoints, and new sessions beside them.

A node has one UDP socket per interface, so two nodes that dial each other at the same moment, or open a
second pipe, share one pair of endpoints. The header byte of a message holds the pipe's *channel* in its low
six bits; the initiator chooses it and says so in NOMINATE. Of two nodes the one with the lower public key
uses even channels and the other odd ones, so that crossed nominations never meet.

Rejected: demultiplexing by remote endpoint alone (two crossed sessions then swallow each other's frames; a
seeded simulation found it), a socket per pipe (the mapping that was learnt would not be the one used), and a
connection id of eight bytes as in QUIC (it costs that much in every message).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, PipeError
from warpgate_core.net.edge import DatagramSocket

__all__ = ["CHANNELS", "DATA_FIRST", "Channel", "DatagramMux", "data_byte"]

DATA_FIRST: Final = 0x80  # 0x80 to 0xBF: a message on channel 0 to 63; clear of STUN, TURN and our frames
CHANNELS: Final = 64
_CONTROL: Final = range(0xE7, 0xEA)  # consent and close: told apart by their MAC


def data_byte(channel: int) -> int:
    """First byte of every message on a channel."""
    return DATA_FIRST | channel


class DatagramMux:
    """All pipes between one socket and one remote endpoint.

    Args:
        sock: the local end.
        remote: the other end.
        other: takes whatever belongs to no pipe: frames of sessions that are under way.
        idle: called when the last channel is gone.
    """

    def __init__(
        self,
        sock: DatagramSocket,
        remote: Endpoint,
        other: Callable[[bytes], None],
        idle: Callable[[], None],
    ) -> None:
        self.sock = sock
        self.remote = remote
        self._other = other
        self._idle = idle
        self._by_first: dict[int, Callable[[bytes], None]] = {}
        # From anywhere, so that a node that was restarted seldom meets the pipes of its former life.
        self._last = {parity: 2 * secrets.randbelow(CHANNELS // 2) + parity for parity in (0, 1)}

    def reserve(self, parity: int) -> int:
        """A free channel, as long unused as can be: what is under way on an old one shall not meet it.

        Args:
            parity: 0 for even channels, 1 for odd ones.

        Raises:
            PipeError: all 32 are in use.
        """
        for step in range(1, CHANNELS // 2 + 1):
            channel = (self._last[parity] + 2 * step) % CHANNELS
            if data_byte(channel) not in self._by_first:
                self._last[parity] = channel
                return channel
        raise PipeError(f"{CHANNELS // 2} UDP pipes to {self.remote} are open already; close one")

    def in_use(self, channel: int) -> bool:
        """Whether a pipe is open there."""
        return data_byte(channel) in self._by_first

    def channel(self, number: int) -> Channel:
        """What a pipe uses in place of a socket."""
        return Channel(self, number)

    def attach(self, channel: int, receiver: Callable[[bytes], None]) -> None:
        """Give `receiver` the messages of a channel, and all control frames.

        Raises:
            ValueError: the channel is in use.
        """
        first = data_byte(channel)
        if first in self._by_first:
            raise ValueError(f"channel {channel} to {self.remote} is in use")
        if not self._by_first:
            self.sock.attach(self.remote, self._received)
        self._by_first[first] = receiver

    def detach(self, channel: int) -> None:
        """End what `attach` began; harmless if nothing is attached."""
        if self._by_first.pop(data_byte(channel), None) is not None and not self._by_first:
            self.sock.detach(self.remote)
            self._idle()

    def _received(self, data: bytes) -> None:
        if not data:
            return
        receiver = self._by_first.get(data[0])
        if receiver is not None:
            receiver(data)
        elif data[0] in _CONTROL:
            for pipe in tuple(self._by_first.values()):
                pipe(data)
        else:
            self._other(data)


class Channel(DatagramSocket):
    """One channel of a `DatagramMux`, in the shape of a socket."""

    def __init__(self, mux: DatagramMux, number: int) -> None:
        self._mux = mux
        self._send = mux.sock.send
        self.number = number
        self.local = mux.sock.local
        self.name = mux.sock.name
        self.is_relay = mux.sock.is_relay

    def send(self, data: bytes, remote: Endpoint) -> None:
        """See `DatagramSocket`."""
        self._send(data, remote)

    def attach(self, remote: Endpoint, receiver: Callable[[bytes], None]) -> None:
        """See `DatagramSocket`."""
        self._mux.attach(self.number, receiver)

    def detach(self, remote: Endpoint) -> None:
        """See `DatagramSocket`."""
        self._mux.detach(self.number)

    def on_released(self, callback: Callable[[], None]) -> None:
        """See `DatagramSocket`."""
        self._mux.sock.on_released(callback)

    def on_lost(self, callback: Callable[[NetworkError], None]) -> None:
        """See `DatagramSocket`."""
        self._mux.sock.on_lost(callback)
