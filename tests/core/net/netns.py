"""Network namespaces for the tests in this folder: made, entered by a thread, removed.

Small on purpose, and independent of `tests.lab`: two or three namespaces, one NAT, no delay. Names carry
the process id; everything is removed in `finally`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

CLONE_NEWNET = 0x40000000  # linux/sched.h
_numbers = itertools.count()


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{stdin or ''}"
    return done.stdout


def ip(namespace: str, *lines: str) -> None:
    """Run `ip` commands in a namespace."""
    run("ip", "-netns", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def nft(namespace: str, ruleset: str) -> None:
    """Load nftables rules in a namespace."""
    run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=ruleset)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Let this thread live in the namespace: sockets opened here stay there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(number: int) -> None:
        if libc.setns(number, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")

    with (
        open("/proc/thread-self/ns/net", "rb") as home,
        open(f"/run/netns/{namespace}", "rb") as there,
    ):
        enter(there.fileno())
        try:
            yield
        finally:
            enter(home.fileno())


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[str, ...]]:
    """New namespaces with their loopback up."""
    mark = f"wgn{os.getpid()}x{next(_numbers)}"
    with ExitStack() as stack:
        made = []
        for name in names:
            full = f"{mark}{name}"
            run("ip", "netns", "add", full)
            stack.callback(run, "ip", "netns", "del", full)
            ip(full, "link set lo up")
            made.append(full)
        yield tuple(made)


def cable(one: str, name_one: str, two: str, name_two: str) -> None:
    """A veth between two namespaces, up at both ends."""
    ip(one, f"link add {name_one} type veth peer name {name_two} netns {two}")
    ip(one, f"link set {name_one} up")
    ip(two, f"link set {name_two} up")
