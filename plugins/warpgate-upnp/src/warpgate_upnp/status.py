"""What a person wants to know of a mapping: values, and the sentences made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warpgate_core import Endpoint
from warpgate_upnp.mapping import Mapping

if TYPE_CHECKING:
    from warpgate_upnp.holder import Holder

__all__ = ["MappingStatus", "sentences", "status_of"]


@dataclass(frozen=True, slots=True)
class MappingStatus:
    """One wanted mapping, now.

    Args:
        transport: "udp" or "tcp".
        internal: own endpoint.
        gateway: the router's address.
        external: what is published for it; None if nothing is.
        protocol: by which it was made, "" if it was not.
        expires: seconds until it would run out if it were not renewed; 0 without a mapping.
        problem: why there is none, or why it could not be renewed; "" if all is well.
    """

    transport: str
    internal: Endpoint
    gateway: str
    external: Endpoint | None = None
    protocol: str = ""
    expires: float = 0.0
    problem: str = ""


def status_of(holder: Holder, mapping: Mapping, now: float) -> MappingStatus:
    """The status of one of a holder's mappings."""
    lease = mapping.lease
    return MappingStatus(
        transport=mapping.wish.transport,
        internal=mapping.wish.internal,
        gateway=holder.site.gateway,
        external=holder.published(mapping),
        protocol="" if lease is None else lease.protocol,
        expires=mapping.remaining(now),
        problem=mapping.problem,
    )


def sentences(statuses: Iterable[MappingStatus]) -> list[str]:
    """What `warpgate doctor` prints; one sentence for UDP and TCP together where it is the same."""
    found: dict[str, list[str]] = {}
    for one in statuses:
        found.setdefault(_sentence(one), []).append(one.transport)
    return [text.format(transports=" and ".join(kinds)) for text, kinds in found.items()]


def _sentence(one: MappingStatus) -> str:
    where = f"{{transports}} {one.internal}"
    router = _braced(one.gateway)
    if one.external is not None:
        text = f"{where} is reached at {one.external}, by {one.protocol} with the router {router}"
        return text + (f" (not renewed yet: {_braced(one.problem)})" if one.problem else "")
    if one.problem:
        return f"no port mapping for {where} at the router {router}: {_braced(one.problem)}"
    return f"the router {router} is being asked to map {where}"


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
