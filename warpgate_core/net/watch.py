"""When addresses, cards or default routes change: an event, within a quarter of a second.

On Linux the kernel tells (rtnetlink); nothing is polled, and an idle node is never woken. Events come in
bunches (a cable plugged in makes a dozen), so a bunch is reported once, 100 ms after its first event;
the listener looks at the new state as a whole and compares.

On other systems, and where netlink is forbidden, there is NO event source in this library: a timer
asks the listener to look again every 30 s, and `uses_events` is False so that `doctor` can say so. The system
calls that would do it (PF_ROUTE sockets, NotifyIpInterfaceChange) are not reachable from the standard library
without ctypes, and could not be tested here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from warpgate_core.net import netlink

__all__ = ["AddressWatcher"]

SETTLE = (
    0.1  # s; the events of one change arrive within 20 ms (measured), duplicate detection is its own event
)
RECHECK = 30.0  # s between looks where there are no events; half of what a NAT mapping lives at least
_READS = 64  # messages taken at once; more stay in the kernel and wake us again
_RECEIVE_BYTES = 65_536  # bytes; the kernel's largest netlink message is 32 KiB


class AddressWatcher:
    """Calls back when something may have changed. The callback runs in the event loop and must be short.

    Args:
        on_change: called without arguments; it looks at the state itself.
        settle: seconds from the first event of a bunch to the call.
        recheck: seconds between calls where the system has no events.
    """

    def __init__(
        self, on_change: Callable[[], None], *, settle: float = SETTLE, recheck: float = RECHECK
    ) -> None:
        self._on_change = on_change
        self._settle = settle
        self._recheck = recheck
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def uses_events(self) -> bool:
        """Whether the system tells of changes; else a timer asks to look again."""
        return self._sock is not None

    def start(self) -> None:
        """Begin; in the event loop."""
        self._loop = asyncio.get_running_loop()
        try:
            sock = netlink.open_event_socket()
        except OSError:  # no netlink here
            self._use_timer()
            return
        try:
            self._loop.add_reader(sock.fileno(), self._readable)
        except NotImplementedError:  # an event loop that cannot wait for sockets
            sock.close()
            self._use_timer()
        else:
            self._sock = sock

    def close(self) -> None:
        """End; harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_socket()
        self._loop = None

    def _drop_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())
            sock.close()

    def _use_timer(self) -> None:
        self._drop_socket()
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._recheck, self._tick)

    def _readable(self) -> None:
        assert self._sock is not None
        assert self._loop is not None
        for _ in range(_READS):
            try:
                self._sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # events were lost, so all the more there is to look at
                    continue
                self._use_timer()
                break
        if self._timer is None:
            self._timer = self._loop.call_later(self._settle, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._on_change()

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self._recheck, self._tick)
        self._on_change()
