"""A coturn of its own for each test, that tells what it holds.

What it holds is read from its own log: every session that allocated says "new" once and "delete" once. The
count waits for lines, it does not ask again and again.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fixtures.certificates import Certificates
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.host import Host
from tests.lab.process import Service

__all__ = ["PASSWORD", "REALM", "SECRET", "USER", "TurnServerProgram", "free_udp_port"]

USER, PASSWORD, REALM = "alice", "wonderland", "lab"
SECRET = "north-wind"  # of use-auth-secret
LINES = 50_000
SEEN_WITHIN = 5.0  # s from the packet to coturn's line about it; it takes milliseconds

_NEW = re.compile(r"session (\d+): new, realm=.*lifetime=(\d+)")
_END = re.compile(r"session (\d+): delete: realm=")
_REFRESH = re.compile(r"session (\d+): refreshed, realm=.*lifetime=(\d+)")


def free_udp_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses at this moment, over UDP and TCP."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind((host, 0))
        tcp.bind(udp.getsockname())
        return int(udp.getsockname()[1])


class TurnServerProgram(Service):
    """coturn on loopback, or on a machine of the lab. A context manager.

    Args:
        host: the machine; None: this one, on 127.0.0.1.
        options: further command-line options.
        port: 0: any that is free.
        tls: certificates; then it listens for TLS at `tls_port` too.
        secret: use-auth-secret in place of user and password; None: neither.
        tls_port: 0: any that is free.
    """

    def __init__(
        self,
        host: Host | None = None,
        options: Sequence[str] = (),
        *,
        port: int = 0,
        tls: Certificates | None = None,
        secret: bool | None = False,
        tls_port: int = 0,
    ) -> None:
        program = shutil.which("turnserver")
        if program is None:
            raise LabUnavailable("turnserver is not installed: apt-get install coturn")
        self.host = host
        self.address = "127.0.0.1" if host is None else host.ip4
        self.port = port or free_udp_port()
        self.tls_port = tls_port or free_udp_port()
        self._directory = Path(tempfile.mkdtemp(prefix="warpgate-coturn-"))
        addresses = ["127.0.0.1"] if host is None else host.addresses
        logins: dict[bool | None, tuple[str, ...]] = {
            True: ("--use-auth-secret", "--static-auth-secret", SECRET),
            False: ("--lt-cred-mech", "--user", f"{USER}:{PASSWORD}"),
            None: (),
        }
        argv = [
            *(program, "-n", "--log-file", "stdout", "--simple-log", "--verbose", "--no-cli", "--no-dtls"),
            *("--listening-port", str(self.port), "--tls-listening-port", str(self.tls_port)),
            *(part for one in addresses for part in ("--listening-ip", one)),
            *(part for one in addresses for part in ("--relay-ip", one)),
            *(("--allow-loopback-peers", "--relay-threads", "1") if host is None else ()),
            *(
                ("--cert", str(tls.certfile), "--pkey", str(tls.keyfile))
                if tls is not None
                else ("--no-tls",)
            ),
            *(*logins[secret], "--realm", REALM, "--no-rfc5780"),
            *("--db", str(self._directory / "turndb"), "--pidfile", str(self._directory / "pid")),
            *options,
        ]
        super().__init__(
            "coturn" if host is None else host.name,
            argv if host is None else host.command(argv),
            ready="SQLite DB connection success",
        )
        self._lines: deque[str] = deque(maxlen=LINES)
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- where it is -----------------------------------------------------------------------------

    def url(self, via: str = "udp", user: str = USER, password: str = PASSWORD, family: int = 4) -> str:
        """A URL for `NodeConfig.turn`, credentials inside; `via` is udp, tcp or tls."""
        login = f"{user}:{password}@" if user else ""
        where = self.address if family == 4 or self.host is None else f"[{self.host.ip6}]"
        if via == "tls":
            return f"turns:{login}{where}:{self.tls_port}"
        return f"turn:{login}{where}:{self.port}?transport={via}"

    def hmac_url(self, label: str = "bob", via: str = "udp") -> str:
        """The same for use-auth-secret."""
        return f"turn:{label}:{SECRET}@{self.address}:{self.port}?transport={via}&auth=hmac"

    # -- what it says ----------------------------------------------------------------------------

    @property
    def made(self) -> int:
        """How many allocations it has made."""
        return len({m[1] for m in map(_NEW.search, tuple(self._lines)) if m})

    @property
    def held(self) -> int:
        """How many of them nobody has given back yet."""
        lines = tuple(self._lines)
        ended = {m[1] for m in map(_END.search, lines) if m}
        ended |= {m[1] for m in map(_REFRESH.search, lines) if m and m[2] == "0"}
        return len({m[1] for m in map(_NEW.search, lines) if m} - ended)

    @property
    def kept(self) -> int:
        """How many of them it still has; it takes up to a second to clear away what was given back."""
        lines = tuple(self._lines)
        ended = {m[1] for m in map(_END.search, lines) if m}
        return len({m[1] for m in map(_NEW.search, lines) if m} - ended)

    @property
    def refreshes(self) -> list[int]:
        """Lifetimes it granted on refreshes, in order; 0 is the end."""
        return [int(m[2]) for m in map(_REFRESH.search, tuple(self._lines)) if m]

    def wait_until_empty(self) -> None:
        """Wait until its log says that every allocation is gone.

        Raises:
            LabError: some are not.
        """
        self.wait_for(lambda: self.kept == 0, "every allocation is deleted")

    def wait_for(self, predicate: Any, what: str) -> None:
        """Wait until something is true of the log; looked at with each new line.

        Raises:
            LabError: it did not become true in time.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, SEEN_WITHIN):
                raise LabError(f"coturn never said: {what}\n" + "\n".join(list(self._lines)[-60:]))

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            raise LabError(f"{self.name} has no output to read")
        with process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
                if self._pattern.search(line):
                    self._ready = True
                    self._event.set()
        self._event.set()
