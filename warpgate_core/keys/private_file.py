"""A small file that only its owner may read, that appears whole or not at all, and is never replaced.

Written to a temporary name, flushed to the disk, then linked to its real name: `link` fails when that
name exists, so of two processes exactly one wins, and no reader ever sees half a file. Rejected:
`rename` (replaces silently on POSIX), a lock file (stays behind after a crash).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from warpgate_core.errors import IdentityError

__all__ = ["create_private", "read_private"]

_MAX_SIZE = 4096  # an identity file has some 300 bytes; whatever is larger is something else


def read_private(path: Path) -> bytes:
    """Read a private file of at most 4,096 bytes.

    Raises:
        FileNotFoundError: there is none.
        IdentityError: not a regular file, open to others, too large, or it cannot be read.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    )  # a FIFO must not hang us
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
        try:
            _check_status(path, os.fstat(descriptor).st_mode)
            data = os.read(descriptor, _MAX_SIZE + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityError(
            f"{path} cannot be read ({error.strerror}); check who owns it and its directory, "
            "or set WARPGATE_HOME to a directory of yours"
        ) from error
    if len(data) > _MAX_SIZE:
        raise IdentityError(f"{path} is larger than {_MAX_SIZE} bytes; that is no identity file")
    return data


def _check_status(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise IdentityError(f"{path} is not a regular file; move it away or name another file")
    if sys.platform != "win32" and mode & 0o077:
        raise IdentityError(
            f"{path} can be read or written by others (mode {stat.S_IMODE(mode):04o}); if nobody has, "
            f"run: chmod 600 {path}; otherwise move it away, and a new identity is made"
        )


def create_private(path: Path, data: bytes) -> None:
    """Create a file of mode 0600 with exactly this content, its directory (0700) too if need be.

    Raises:
        FileExistsError: the name is taken; the file there is untouched.
        IdentityError: the directory or file cannot be written.
    """
    try:
        _make_directory(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _publish(name, path, data)
        finally:
            with contextlib.suppress(FileNotFoundError):  # renamed instead of linked
                os.unlink(name)
        _sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise IdentityError(
            f"{path} cannot be written ({error.strerror}); "
            "set WARPGATE_HOME to a directory that you can write to"
        ) from error


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise IdentityError(f"{directory} is not a directory; name another place for the file") from error


def _publish(temporary: str, path: Path, data: bytes) -> None:
    """Give the finished file its name, unless that is taken."""
    if sys.platform == "win32":
        os.rename(temporary, path)  # refuses an existing name there
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (FAT, Android): exclusive, though not whole at once
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Make the new name itself survive a power cut."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
