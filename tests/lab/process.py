"""A program that runs for long in a namespace: started until it says it is ready, paused, killed.

Readiness is the program's own log line, read as it comes. Rejected: trying to connect again and again
(a poll, and it hides a program that dies at once) and a log file (it would have to be watched).
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence

from tests.lab.errors import LabError

__all__ = ["Service", "end"]

LINES_KEPT = 400  # of a service's output, for error messages and tests
READY_WITHIN = 20.0  # seconds; mosquitto and coturn need 0.02 to 0.06 (DEPENDENCIES.md)
LAST_WORDS = 5.0  # seconds between SIGTERM and SIGKILL


class Service:
    """One server program, with a name.

    Args:
        name: for people.
        argv: the command, namespace prefix included.
        ready: regular expression of the log line that means "serving now".
    """

    def __init__(self, name: str, argv: Sequence[str], ready: str) -> None:
        self.name = name
        self.argv = list(argv)
        self._pattern = re.compile(ready)
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._event = threading.Event()
        self._ready = False

    @property
    def running(self) -> bool:
        """Whether the process is there (paused counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running service."""
        if self._process is None:
            raise LabError(f"{self.name} is not running")
        return self._process.pid

    @property
    def output(self) -> str:
        """The last lines it wrote, over all its starts."""
        return "\n".join(self._lines)

    def start(self) -> None:
        """Start it and return when it serves.

        Raises:
            LabError: it ended, or said nothing of being ready in time; the message holds its output.
        """
        if self.running:
            raise LabError(f"{self.name} is running already")
        self._event.clear()
        self._ready = False
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {self.name}", daemon=True)
        self._reader.start()
        in_time = self._event.wait(READY_WITHIN)
        if not self._ready:
            self.kill()
            state = "ended" if in_time else f"was not ready within {READY_WITHIN:.0f} s"
            raise LabError(f"{self.name} {state}: {' '.join(self.argv)}\n{self.output}")

    def stop(self) -> None:
        """End it politely (SIGTERM), or else by force."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word (SIGKILL); its peers learn of it only from their own sockets."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay up and nothing answers, as with an overloaded host."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again at the same address."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if not self.running or self._process is None:
            raise LabError(f"{self.name} is not running")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            end(self._process, number)
            self._process = None
        if self._reader is not None:
            self._reader.join(LAST_WORDS)
            self._reader = None

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            raise LabError(f"{self.name} has no output to read")
        with process.stdout as stream:
            for line in stream:
                self._lines.append(line.rstrip("\n"))
                if self._pattern.search(line):
                    self._ready = True
                    self._event.set()
        self._event.set()  # the end of the output: whoever waits must look


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a process and wait for its end; SIGKILL if it takes too long or is frozen."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
