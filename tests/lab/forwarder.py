"""The delay forwarder: one process that carries every delayed line of one lab.

`tc netem` is not in every kernel (it is absent from the one this was written on), so a delayed line
is two TUN devices, one at each end, and this process between them: a packet read from one is written
to the other when its time has come. One process serves a whole topology, because each further one
would compete for the same few cores and add to the jitter of all.

Rejected: AF_PACKET on veth pairs (checksums arrive half-done because the sender trusts the
"hardware", and every packet is seen twice); NFQUEUE (needs a netlink dialogue per packet); a thread
per direction (the interpreter lock adds up to 5 ms); asyncio (0.2 ms per packet more, and timers
rounded to the millisecond by epoll, which is why `select`, with microseconds, is used here).

It runs as a script under ``python -I -S`` (12 ms to start), so it imports nothing of ours. It is told
what to do by one JSON object per line on standard input, answers each with one line, and ends with
its input. `tests.lab.line.Forwarder` is the other end of that conversation.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import heapq
import json
import os
import select
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Direction", "Loop", "main"]

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN = 0x0001  # linux/if_tun.h
IFF_NO_PI = 0x1000  # linux/if_tun.h: no 4 bytes of packet information before each packet
CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_TIMERSLACK = 29  # linux/prctl.h; the default slack is 50 us
LARGEST_PACKET = 65535  # IPv4 total length, 16 bits (RFC 791 section 3.1)
BURST = 64  # packets read from one device before the deadlines are looked at again
QUEUE_LIMIT = 5000  # packets in flight per direction: 7.5 MB, 3 Gbit/s at 20 ms
HISTORY = 20000  # latest lateness values kept for the statistics


@dataclass(slots=True)
class Direction:
    """One way of one line: where packets come from, where they go, and how late."""

    source: int
    target: int
    delay: float
    rate: float | None  # bytes per second
    free_at: float = 0.0  # when the last packet has left a rate-limited line
    in_flight: int = 0
    carried: int = 0
    dropped: int = 0

    def deadline(self, now: float, size: int) -> float | None:
        """When a packet of `size` bytes that came at `now` is due; None if the queue is full."""
        if self.in_flight >= QUEUE_LIMIT:
            return None
        if self.rate is None:
            return now + self.delay
        self.free_at = max(now, self.free_at) + size / self.rate
        return self.free_at + self.delay


@dataclass(slots=True)
class Loop:
    """The forwarder's state: lines by name, packets by deadline."""

    lines: dict[str, tuple[Direction, Direction]] = field(default_factory=dict)
    by_source: dict[int, Direction] = field(default_factory=dict)
    heap: list[tuple[float, int, Direction, bytes]] = field(default_factory=list)
    count: int = 0
    lateness: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def receive(self, source: int) -> None:
        """Read what a device has and note when each packet is due."""
        direction = self.by_source[source]
        for _ in range(BURST):
            try:
                packet = os.read(source, LARGEST_PACKET)
            except BlockingIOError:
                return
            due = direction.deadline(time.monotonic(), len(packet))
            if due is None:
                direction.dropped += 1
                continue
            direction.in_flight += 1
            self.count += 1  # keeps packets of equal deadline in their order
            heapq.heappush(self.heap, (due, self.count, direction, packet))

    def flush(self) -> None:
        """Hand over every packet whose time has come."""
        heap = self.heap
        while heap and heap[0][0] <= (now := time.monotonic()):
            due, _, direction, packet = heapq.heappop(heap)
            direction.in_flight -= 1
            try:
                os.write(direction.target, packet)
            except OSError:  # the device is down: what a real line does then, it loses the packet
                direction.dropped += 1
            else:
                direction.carried += 1
                self.lateness.append(now - due)

    def run(self, control: int) -> None:
        """Forward until the control channel ends."""
        pending = b""
        while True:
            timeout = max(0.0, self.heap[0][0] - time.monotonic()) if self.heap else None
            ready, _, _ = select.select([control, *self.by_source], [], [], timeout)
            for source in ready:
                if source != control:
                    self.receive(source)
                    continue
                data = os.read(control, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    os.write(1, json.dumps(self.obey(json.loads(line))).encode() + b"\n")
            self.flush()

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order of the lab."""
        try:
            match order["do"]:
                case "add":
                    return self.add(order)
                case "set":
                    pair = self.lines[order["line"]]
                    for direction, delay, rate in zip(pair, order["delay"], order["rate"], strict=True):
                        direction.delay, direction.rate = delay, rate
                    return {"ok": True}
                case "statistics":
                    return self.statistics()
        except (OSError, KeyError, ValueError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return {"ok": False, "error": f"unknown order {order['do']!r}"}

    def add(self, order: dict[str, Any]) -> dict[str, Any]:
        """Open both devices of a line, each in its own namespace."""
        one, two = (open_tun(end["namespace"], end["device"]) for end in order["ends"])
        up = Direction(one, two, order["delay"][0], order["rate"][0])
        down = Direction(two, one, order["delay"][1], order["rate"][1])
        self.lines[order["line"]] = (up, down)
        self.by_source[one], self.by_source[two] = up, down
        return {"ok": True}

    def statistics(self) -> dict[str, Any]:
        """Counters per line and how late packets were handed over, in seconds."""
        late = sorted(self.lateness)
        self.lateness.clear()
        return {
            "ok": True,
            "lines": {
                name: {"carried": [d.carried for d in pair], "dropped": [d.dropped for d in pair]}
                for name, pair in self.lines.items()
            },
            "packets": len(late),
            "late_p50": late[len(late) // 2] if late else 0.0,
            "late_p99": late[len(late) * 99 // 100] if late else 0.0,
            "late_max": late[-1] if late else 0.0,
        }


def open_tun(namespace: str, device: str) -> int:
    """Create a TUN device inside a network namespace and return its non-blocking descriptor."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        _setns(there)
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        except OSError:
            os.close(tun)
            raise
        return tun
    finally:
        _setns(home)
        os.close(there)
        os.close(home)


def _setns(descriptor: int) -> None:
    """`os.setns` exists from Python 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def main() -> None:
    """Forward packets until standard input ends."""
    gc.disable()  # nothing here makes reference cycles, and a collection would be jitter
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(PermissionError):  # better timing where it is allowed, else ordinary
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    Loop().run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
