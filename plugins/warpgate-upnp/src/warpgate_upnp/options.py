"""The plugin's options, as `NodeConfig(options={"upnp": {...}})` takes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]

MIN_LEASE, MAX_LEASE = 10, 86_400  # s; renewal needs twice `mapping.MIN_WAIT`, and PCP knows no longer ones
MAX_DESCRIPTION = 32  # characters; routers cut longer ones, and the node's id follows


@dataclass(frozen=True, slots=True)
class Options:
    """What can be set.

    Args:
        lease: seconds to ask for. When we are killed, a mapping lives on for so long at most and leads to a
        port
            that somebody else on this machine may get, so it is short: ten minutes instead of the hour or the
            day that is usual. It is not shorter because some routers write each renewal to flash memory.
        pcp, nat_pmp, igd: which protocols to use.
        ipv6: open pinholes in IPv6 firewalls as well.
        description: what the router's owner reads beside a mapping, followed by the node's id.

    Raises:
        ValueError: one of these cannot be.
    """

    lease: int = 600
    pcp: bool = True
    nat_pmp: bool = True
    igd: bool = True
    ipv6: bool = True
    description: str = "warpgate"

    def __post_init__(self) -> None:
        if not MIN_LEASE <= self.lease <= MAX_LEASE:
            raise ValueError(f"lease is {MIN_LEASE} to {MAX_LEASE} seconds, not {self.lease}")
        text = self.description
        if not (1 <= len(text) <= MAX_DESCRIPTION and text.isascii() and text.isprintable()):
            raise ValueError(
                f"description is 1 to {MAX_DESCRIPTION} printable ASCII characters, not {text!r}"
            )
        if not (self.pcp or self.nat_pmp or self.igd):
            raise ValueError("pcp, nat_pmp and igd are all off; disable the plugin instead")
