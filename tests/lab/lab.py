"""The lab: what owns every namespace, program and file of one topology, and removes them.

One lab is one `with` block. Synchronous on purpose: building is a chain of `ip` commands that depend on
each other, the pair stands in a tenth of a second, and sync code serves pytest, asyncio tests (which build
before they start) and the terminal alike.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import sweep
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.internet import Internet
from tests.lab.line import Forwarder
from tests.lab.namespace import Namespace
from tests.lab.process import end

__all__ = ["Lab", "unavailable"]

PACKAGES = {"ip": "iproute2", "nft": "nftables"}  # Debian packages of the commands


def unavailable() -> str | None:
    """Why this machine cannot run a lab, or None if it can."""
    missing = [package for name, package in PACKAGES.items() if shutil.which(name) is None]
    if not sys.platform.startswith("linux"):
        return "the lab needs Linux network namespaces"
    if missing:
        return f"the lab needs {' and '.join(missing)}: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "the lab needs root, or a user namespace, which `uv run python -m tests --stage lab` enters"
    name = f"{sweep.owner_prefix()}0.probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"this system allows no network namespaces: ip netns add: {made.stderr.strip()}"
    tried = subprocess.run(
        ["ip", "netns", "exec", name, "nft", "add", "table", "ip", "probe"],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "delete", name], check=True, capture_output=True)
    if tried.returncode != 0:
        return f"nftables cannot be used in a network namespace here: {tried.stderr.strip()}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "the lab's delayed lines need /dev/net/tun, which cannot be opened here"
    return None


class Lab:
    """A laboratory of networks, for one `with` block.

    Raises:
        LabUnavailable: on entering, when this machine cannot run it; the message says why.
    """

    def __init__(self) -> None:
        self.prefix = ""
        self.directory = Path()
        self._stack = ExitStack()
        self._namespaces: list[Namespace] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._forwarder: Forwarder | None = None
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if reason := unavailable():
            raise LabUnavailable(reason)
        for prefix in sweep.stale_prefixes():
            sweep.sweep(prefix)
        self.prefix = f"{sweep.owner_prefix()}{secrets.token_hex(3)}."  # several labs in one process
        self.directory = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.directory.chmod(0o755)  # programs that give up root must reach their own folder
        try:
            self._start_keeper()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def internet(self, families: Iterable[int] = (4, 6)) -> Internet:
        """A new internet to attach homes and servers to.

        Args:
            families: 4, 6 or both: what it carries.
        """
        return Internet(self, tuple(families))

    def namespace(self, name: str) -> Namespace:
        """A new namespace of this lab."""
        namespace = Namespace(f"{self.prefix}{name}")
        self._namespaces.append(namespace)
        return namespace

    @property
    def forwarder(self) -> Forwarder:
        """The process that carries the delayed lines; started when first needed."""
        if self._forwarder is None:
            self._forwarder = Forwarder()
            self.on_close(self._forwarder.close)
        return self._forwarder

    def adopt(self, process: subprocess.Popen[str]) -> None:
        """End this process when the lab closes, if it still runs then."""
        self._processes.append(process)

    def on_close(self, call: Callable[[], None]) -> None:
        """Call this when the lab closes, the latest first."""
        self._stack.callback(call)

    def close(self) -> None:
        """Remove everything, whatever fails meanwhile; the second call finds nothing to do."""
        with ExitStack() as last:
            last.callback(self._dismiss_keeper)
            if self.prefix:
                last.callback(sweep.sweep, self.prefix)
            last.callback(self._stack.close)
            while self._processes:
                last.callback(_dispose, self._processes.pop())

    def _start_keeper(self) -> None:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(sweep.__file__)), self.prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._keeper = keeper
        if keeper.stdout is None or keeper.stdout.readline() != "ready\n":
            raise LabError("the keeper, which cleans up after a killed lab, did not start")

    def _dismiss_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate("done", timeout=10)


def _dispose(process: subprocess.Popen[str]) -> None:
    end(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # unsent input of a program that is gone
                stream.close()
