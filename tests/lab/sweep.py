"""Removing what a lab leaves behind, whoever is still alive to do it.

Three nets, one below the other: `Lab.close` in a ``finally``; a keeper process that notices the end
of the lab's process, however it died, and cleans up at once; and the next lab to start, which removes
everything that belongs to a process no longer there (the keeper may have been killed too).

For that, everything carries its owner in its name: ``wglab.<pid>.<start time>.<number>.<rest>``. The
start time, from ``/proc/<pid>/stat``, keeps a recycled process id from protecting rubbish. Rejected:
PR_SET_PDEATHSIG, which follows the *thread* that forked and so kills a service when a worker thread of
the test runner ends, and which does nothing for namespaces; a registry file, which a crash leaves wrong.

Run as a script (``python -I -S sweep.py PREFIX``) it is the keeper, so it imports nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["MARK", "owner_prefix", "remnants", "stale_prefixes", "sweep"]

MARK = "wglab"
NAMESPACES = Path("/run/netns")  # where `ip netns` keeps its names (man ip-netns)
ROUNDS = 5  # a process may fork between the look and the kill; each round catches one generation


def start_time(pid: int) -> str | None:
    """Field 22 of ``/proc/PID/stat`` (man proc), or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return None if fields[0] in "ZX" else fields[19]


def owner_prefix(pid: int | None = None) -> str:
    """What the name of everything that belongs to a process begins with."""
    number = os.getpid() if pid is None else pid
    return f"{MARK}.{number}.{start_time(number)}."


def remnants(prefix: str) -> list[str]:
    """Namespaces and temporary directories whose name begins with `prefix`, as paths."""
    folders = [NAMESPACES, Path(tempfile.gettempdir())]
    return sorted(str(entry) for folder in folders if folder.is_dir() for entry in folder.glob(f"{prefix}*"))


def stale_prefixes() -> list[str]:
    """Prefixes of labs whose process is gone."""
    found = set()
    for path in remnants(f"{MARK}."):
        mark, pid, started, *_ = Path(path).name.split(".")
        if pid.isdigit() and start_time(int(pid)) != started:
            found.add(f"{mark}.{pid}.{started}.")
    return sorted(found)


def sweep(prefix: str) -> list[str]:
    """Kill the processes in, and delete, all namespaces and directories that begin with `prefix`.

    Returns:
        The paths that were removed.
    """
    paths = [Path(path) for path in remnants(prefix)]
    namespaces = [path for path in paths if path.parent == NAMESPACES]
    inodes = {path.stat().st_ino for path in namespaces}
    for _ in range(ROUNDS):
        inside = _processes_in(inodes)
        if not inside:
            break
        for pid in inside:
            _kill(pid)
    for path in namespaces:
        # Another lab's keeper may be removing the same one: that it is gone is what counts.
        subprocess.run(["ip", "netns", "delete", path.name], check=False, capture_output=True)
    for path in paths:
        if path not in namespaces:
            shutil.rmtree(path, ignore_errors=True)
    return [str(path) for path in paths]


def _processes_in(inodes: set[int]) -> list[int]:
    """Every process whose network namespace is one of these; one pass over /proc for all."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino in inodes:
                    found.append(int(entry.name))
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue  # gone, or somebody else's: then it is in none of ours
    return found


def _kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _wait(descriptor)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _wait(descriptor: int) -> None:
    """A pidfd becomes readable when its process has ended (man pidfd_open)."""
    import select

    select.select([descriptor], [], [], 2.0)


def main() -> None:
    """Be the keeper: clean up when the lab's end of our standard input closes without a farewell."""
    os.setsid()  # a Ctrl-C at the terminal is for the lab, not for what cleans up after it
    prefix = sys.argv[1]
    print("ready", flush=True)
    if sys.stdin.buffer.read() != b"done":
        sweep(prefix)


if __name__ == "__main__":
    main()
