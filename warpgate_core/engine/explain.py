"""The one sentence a person needs when no connection came about. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from warpgate_core.address import NodeAddress
from warpgate_core.errors import StrategyError
from warpgate_core.nat import Mapping
from warpgate_core.strategy import Tier

__all__ = ["explain"]


def explain(
    local: NodeAddress,
    peer: NodeAddress,
    *,
    why: str,
    answered: bool,
    signal_failure: StrategyError | None,
    tiers: AbstractSet[Tier],
) -> str:
    """Say what most likely stood in the way, and what to do.

    Args:
        local, peer: both addresses, with what is known of the NATs.
        why: what ended the attempt.
        answered: whether the peer answered the offer.
        signal_failure: why the offer was not delivered, if it was not.
        tiers: tiers of the strategies that took part.
    """
    name = peer.node_id
    if not tiers:
        return f"no strategy could take part in reaching {name}: {why}"
    if signal_failure is not None and not answered:
        reached = (
            "none of its published endpoints answered directly"
            if peer.interfaces
            else "its address names no endpoint to try directly"
        )
        return f"{name} could not be told that we are calling ({signal_failure.detail}), and {reached}"
    if not answered:
        return f"{name} received the offer but did not answer it: {why}"
    if Tier.RELAY in tiers:
        return f"{name} answered, but no path came about: {why}"
    ours, theirs = _behaviour(local), _behaviour(peer)
    between = f": this side is {ours}, the peer is {theirs}" if ours and theirs else ""
    return (
        f"{name} answered, but no path came about ({why}){between}; no relay took part, so install "
        "warpgate-turn and name a TURN server"
    )


def _behaviour(address: NodeAddress) -> str:
    """The best known NAT among an address's interfaces; "" if one of them has none, or nothing is known."""
    known = [face.nat for face in address.interfaces if face.nat.mapping is not Mapping.UNKNOWN]
    best = min(known, key=lambda nat: nat.mapping, default=None)
    if best is None or best.mapping is Mapping.NONE:
        return ""
    return f"behind {'an' if best.label[0] in 'aeiou' else 'a'} {best.label} NAT"
