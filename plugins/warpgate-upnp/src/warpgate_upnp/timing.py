"""How long we wait for a router, in one value, so that tests can be quick."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Waiting times, in seconds.

    Args:
        resend: when a UDP question is repeated, after the one before, doubling (RFC 6886 section 3.1). RFC
            6887 begins with 3 s, which is meant for servers far away.
        tries: how often it is sent. Four take 3.75 s; a router on the LAN that has not answered by then is
            none, and is asked again later.
        search: for which answers to an SSDP search are taken: the second sending plus MX, and some room.
        http: for one whole HTTP exchange, whatever the other side does.
        find: for all of finding a way to speak with a router; the race is over then.
    """

    resend: float = 0.25
    tries: int = 4
    search: float = 2.5
    http: float = 4.0
    find: float = 10.0
