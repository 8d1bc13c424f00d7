"""Small checks that many ports get and perhaps one answers: what a search for a port sends.

A candidate path costs an object and timers, and a session has a bounded number of them, so a search over a
thousand ports cannot make a path of each. A beacon costs one entry here: the nonce that was sent from this
socket to that endpoint. A path is made only when a frame comes from there, and it is made with that nonce, so
its proof is the same as any other path's. Sans-I/O, time is an argument.

Rejected: one nonce for the whole search, so that one frame could be sent to all ports. An observer could
then send what came back from another of these ports, and the path there would count as proven.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from warpgate_core.errors import PluginError

if TYPE_CHECKING:
    from warpgate_core.endpoint import Endpoint
    from warpgate_core.net.edge import DatagramSocket

__all__ = ["BEACON_BURST", "BEACON_RATE", "MAX_BEACONS", "Beacons"]

BEACON_BURST: Final = 256  # one from each socket of a search (DESIGN section 7)
BEACON_RATE: Final = 200.0  # per second from then on, same section
MAX_BEACONS: Final = 2_048  # different ones per session: 1,200 probes and 256 sockets, and room
_SLACK: Final = 0.01  # sums of fractions are off by less


@dataclass(slots=True)
class Beacons:
    """Those of one session."""

    _nonces: dict[tuple[int, Endpoint], tuple[DatagramSocket, bytes]] = field(default_factory=dict)
    _tokens: float = BEACON_BURST
    _at: float | None = None

    def send(self, sock: DatagramSocket, remote: Endpoint, fresh: bytes, now: float) -> bytes:
        """Enter one, and say with which nonce: the same each time for the same socket and endpoint.

        Args:
            sock: from where.
            remote: where to; vetted.
            fresh: a random nonce, for the first time.
            now: monotonic seconds.

        Raises:
            PluginError: too many, or too fast. Nothing may be sent then.
        """
        if self._at is not None:
            self._tokens = min(BEACON_BURST, self._tokens + (now - self._at) * BEACON_RATE)
        self._at = now
        if self._tokens < 1.0 - _SLACK:
            raise PluginError(f"more than {BEACON_RATE:g} beacons a second, after the first {BEACON_BURST}")
        key = (id(sock), remote)
        if key not in self._nonces:
            if len(self._nonces) >= MAX_BEACONS:
                raise PluginError(f"more than {MAX_BEACONS} beacons in one session")
            self._nonces[key] = (sock, fresh)  # the socket, so that its id is not given away again
        self._tokens -= 1.0
        return self._nonces[key][1]

    def nonce(self, sock: DatagramSocket, remote: Endpoint) -> bytes | None:
        """With which nonce a path between these two begins; None if no beacon went there."""
        entry = self._nonces.get((id(sock), remote))
        return entry[1] if entry is not None else None

    def clear(self) -> None:
        """The session is over."""
        self._nonces.clear()
