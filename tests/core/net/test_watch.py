"""Watching without a kernel that tells, and with one that tells too much. Real events: `test_lab_watch`."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from warpgate_core.net import netlink
from warpgate_core.net.watch import AddressWatcher
from warpgate_core.testing.loop import run_virtual


def no_events() -> socket.socket:
    raise OSError(errno.EPERM, "not here")


@pytest.mark.parametrize("has_netlink", [False, True])
def test_without_events_a_timer_asks_to_look_again(
    monkeypatch: pytest.MonkeyPatch, has_netlink: bool
) -> None:
    """The event loop with the jumping clock cannot wait for sockets either, and then it is the same."""
    if not has_netlink:
        monkeypatch.setattr(netlink, "open_event_socket", no_events)

    async def main() -> list[float]:
        now = asyncio.get_running_loop().time
        begun, calls = now(), []
        watcher = AddressWatcher(lambda: calls.append(now() - begun))
        watcher.start()
        assert not watcher.uses_events
        await asyncio.sleep(95)
        watcher.close()
        await asyncio.sleep(95)
        return calls

    assert run_virtual(main) == pytest.approx([30.0, 60.0, 90.0])


class EventSocket(socket.socket):
    """A socket whose reads fail in given ways before they succeed."""

    failures: tuple[int, ...] = ()

    def recv(self, *args: int) -> bytes:
        if self.failures:
            number, *rest = self.failures
            self.failures = tuple(rest)
            raise OSError(number, "as if by the kernel")
        return super().recv(*args)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> tuple[socket.socket, EventSocket]:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    events = EventSocket(fileno=theirs.detach())
    events.setblocking(False)
    monkeypatch.setattr(netlink, "open_event_socket", lambda: events)
    return ours, events


async def test_lost_events_are_all_the_more_a_reason_to_look(
    kernel: tuple[socket.socket, EventSocket],
) -> None:
    ours, events = kernel
    looked = asyncio.Event()
    watcher = AddressWatcher(looked.set, settle=0.01)
    watcher.start()
    events.failures = (errno.ENOBUFS, errno.ENOBUFS)
    with ours:
        ours.send(b"x")
        async with asyncio.timeout(5):
            await looked.wait()
    assert watcher.uses_events
    watcher.close()
    assert events.fileno() == -1


async def test_a_broken_event_socket_is_replaced_by_the_timer(
    kernel: tuple[socket.socket, EventSocket],
) -> None:
    ours, events = kernel
    looked = asyncio.Event()
    watcher = AddressWatcher(looked.set, settle=0.01, recheck=0.02)
    watcher.start()
    events.failures = (errno.EIO,)
    with ours:
        ours.send(b"x")
        async with asyncio.timeout(5):
            await looked.wait()
    assert not watcher.uses_events
    assert events.fileno() == -1
    watcher.close()
