"""One network namespace: made, entered, listed, removed.

`ip netns` names are used rather than anonymous namespaces (``unshare``) because a name can be found
and removed after the process that made it was killed. A command gets in with ``ip netns exec``, which
replaces itself by the command, so the process id and its signals are the command's own; that costs
1 to 2 ms and, unlike a ``preexec_fn``, is safe in a process with threads. The test process itself gets
in for the time of a `with` block, to open sockets that stay there.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.errors import LabError

__all__ = ["Namespace", "command"]

CLONE_NEWNET = 0x40000000  # linux/sched.h


def command(argv: Sequence[str], text: str | None = None) -> str:
    """Run a command that must succeed, with `text` as its standard input.

    Raises:
        LabError: it failed; the message holds the command, its input and what it said.
    """
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        given = f"\nwith the input:\n{text}" if text else ""
        raise LabError(f"{' '.join(argv)} answered {done.returncode}: {done.stderr.strip()}{given}")
    return done.stdout


class Namespace:
    """A network namespace of the lab.

    Args:
        name: what ``ip netns`` shall call it; begins with the owner's mark (`tests.lab.sweep`).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        command(["ip", "netns", "add", name])
        self.inode = self.path.stat().st_ino

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return Path("/run/netns") / self.name

    def prefix(self) -> list[str]:
        """What goes before a command so that it runs in here."""
        return ["ip", "netns", "exec", self.name]

    def script(self, lines: Sequence[str]) -> str:
        """Run shell lines in here; the first that fails ends it.

        Raises:
            LabError: one of them failed.
        """
        return command([*self.prefix(), "sh", "-e"], "\n".join(lines) + "\n")

    def ip(self, lines: Sequence[str]) -> None:
        """Run ``ip`` commands (without the word ``ip``) in here, as one batch."""
        command(["ip", "-netns", self.name, "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset in here, as one transaction."""
        command([*self.prefix(), "nft", "-f", "-"], ruleset)

    def nft_list(self, what: str = "ruleset") -> str:
        """What nftables holds in here, as text."""
        return command([*self.prefix(), "nft", "list", *what.split()])

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the namespace; sockets opened meanwhile belong to it for life.

        Only for opening sockets: no `await` inside, or other tasks of the loop come along.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(self.path, os.O_RDONLY)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)


def _setns(descriptor: int) -> None:
    """`os.setns` exists from Python 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
