"""A machine of the lab: a namespace with a name, addresses, a home directory, and programs in it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.lab.process import Service

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["BASICS", "Host"]

RUN_WITHIN = 60.0  # seconds, unless the caller says otherwise
# Every namespace: no duplicate address detection (it holds an IPv6 address back for a second), no
# router advertisements, and bridged frames are not taken through the router's own NAT rules.
BASICS = [
    "for conf in default all; do",
    "  echo 0 > /proc/sys/net/ipv6/conf/$conf/accept_dad",
    "  echo 0 > /proc/sys/net/ipv6/conf/$conf/dad_transmits",
    "  echo 0 > /proc/sys/net/ipv6/conf/$conf/accept_ra",
    "  echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter",
    "done",
    "for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do",
    "  if [ -e $f ]; then echo 0 > $f; fi",
    "done",
    "ip link set lo up",
]


class Host:
    """A machine in the lab.

    Args:
        lab: the lab it belongs to, which ends its programs.
        name: unique in the lab.

    Attributes:
        addresses: its own addresses as text, IPv4 and IPv6, in the order they were given.
        directory: what programs here get as ``WARPGATE_HOME``.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace = lab.namespace(name)
        self.namespace.script(BASICS)
        self.addresses: list[str] = []
        self.directory = lab.directory / name
        self.directory.mkdir()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {' '.join(self.addresses)}>"

    @property
    def ip4(self) -> str:
        """Its first IPv4 address."""
        return next(address for address in self.addresses if ":" not in address)

    @property
    def ip6(self) -> str:
        """Its first IPv6 address."""
        return next(address for address in self.addresses if ":" in address)

    def command(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command that runs `argv` on this machine, for a launcher of one's own."""
        return [*self.namespace.prefix(), *(os.fspath(part) for part in argv)]

    def environment(self, home: str | None = None, **extra: str) -> dict[str, str]:
        """Environment for a program here: its own WARPGATE_HOME and no WARPGATE_* from outside.

        Args:
            home: name of another home directory on this machine, for a second identity; None is the first.
            extra: variables to add.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WARPGATE_")}
        directory = self.directory if home is None else self.lab.directory / f"{self.name}.{home}"
        directory.mkdir(exist_ok=True)
        return clean | {"WARPGATE_HOME": str(directory)} | extra

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | None = None,  # noqa: A002 - the name `subprocess.run` has
        timeout: float = RUN_WITHIN,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end, text in and out.

        Raises:
            subprocess.CalledProcessError: it failed and `check` is true.
            subprocess.TimeoutExpired: it took longer than `timeout` seconds and was killed.
        """
        return subprocess.run(
            self.command(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
            env=self.environment() if env is None else dict(env),
        )

    def python(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run this interpreter here: ``a.python("-c", "print(1)")``; options as for `run`."""
        return self.run([sys.executable, *args], **options)

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.PIPE,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a program here, text in and out; the lab ends it if nobody else does."""
        process = subprocess.Popen(
            self.command(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=self.environment() if env is None else dict(env),
            start_new_session=True,
        )
        self.lab.adopt(process)
        return process

    async def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.PIPE,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        """Start a program here under the running event loop, bytes in and out."""
        return await asyncio.create_subprocess_exec(
            *self.command(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self.environment() if env is None else dict(env),
            start_new_session=True,
        )

    def service(self, name: str, argv: Sequence[str], ready: str) -> Service:
        """Start a server program here and wait for the log line `ready` (a regular expression)."""
        service = Service(name, self.command(argv), ready)
        self.lab.on_close(service.kill)
        service.start()
        return service

    def socket(
        self, kind: socket.SocketKind = socket.SOCK_DGRAM, family: int = 4, *, host: str = "", port: int = 0
    ) -> socket.socket:
        """A bound socket of the calling process that lives on this machine; the caller closes it.

        Args:
            kind: SOCK_DGRAM or SOCK_STREAM.
            family: 4 or 6.
            host: address to bind; any if empty.
            port: port to bind; any if 0.
        """
        with self.namespace.entered():
            made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.settimeout(RUN_WITHIN / 6)
        made.bind((host, port))
        return made
