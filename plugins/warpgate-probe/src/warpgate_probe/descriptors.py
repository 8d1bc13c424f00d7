"""How many file descriptors a search may take, so that the program it runs in does not run out of them."""

from __future__ import annotations

import os

__all__ = ["affordable", "descriptors_left"]

SHARE = 2  # of what is left, at most one half


def descriptors_left() -> int | None:
    """How many more this process may open; None where that has no limit, or the system does not tell."""
    try:
        import resource  # not on Windows, where sockets are no file descriptors
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return max(0, limit - len(os.listdir("/dev/fd")))
    except OSError:
        return max(0, limit - 64)  # what a small program has open


def affordable(wanted: int, left: int | None) -> int:
    """How many sockets to open.

    Args:
        wanted: for the best chance.
        left: see `descriptors_left`.
    """
    return wanted if left is None else min(wanted, left // SHARE)
