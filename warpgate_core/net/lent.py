"""Further UDP sockets of the operating system, for strategies: closed when nobody has a use for them.

A strategy that searches a port opens many and keeps one at most: the one on which a pipe came about, which
lives as long as the pipe. So a lent socket has two kinds of users, the strategy until it lets go, and
whoever is attached; with the last of them it closes.
"""

from __future__ import annotations

from collections.abc import Callable

from warpgate_core.endpoint import Endpoint
from warpgate_core.net.edge import DatagramSocket, LentSocket
from warpgate_core.net.udp import UdpSocket

__all__ = ["LentUdpSocket"]


class LentUdpSocket(UdpSocket, LentSocket):
    """See `LentSocket`; arguments as of `UdpSocket`."""

    def __init__(
        self,
        name: str,
        on_datagram: Callable[[bytes, Endpoint, DatagramSocket], None] | None = None,
    ) -> None:
        super().__init__(name, on_datagram)
        self._is_held = True
        self._on_released: list[Callable[[], None]] = []

    def detach(self, remote: Endpoint) -> None:
        """See `DatagramSocket`; the last one closes the socket, if the strategy has let go of it."""
        super().detach(remote)
        self._close_if_unused()

    def let_go(self) -> None:
        """See `LentSocket`."""
        self._is_held = False
        self._close_if_unused()

    def on_released(self, callback: Callable[[], None]) -> None:
        """See `DatagramSocket`."""
        if self.is_closed or self._is_held or self.attached:
            callback()
        else:
            self._on_released.append(callback)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed (called by the event loop)."""
        super().connection_lost(exc)
        callbacks, self._on_released = self._on_released, []
        for callback in callbacks:
            callback()

    def _close_if_unused(self) -> None:
        if not self._is_held and not self.attached:
            self.close()
