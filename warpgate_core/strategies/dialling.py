"""Happy Eyeballs over TCP and UDP at once (RFC 8305): shared by direct and reverse.

Targets are tried in their order, each after its connection attempt delay or as soon as the one before has
failed. TCP and UDP to the same endpoint start together: where both work UDP is proven one round trip
earlier and the race holds it back for the stream; where a firewall eats one of them, the other is under
way already. Rejected: TCP first and UDP after its failure (a silent drop takes minutes to fail).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from warpgate_core.address import NodeAddress
from warpgate_core.errors import StrategyError, WarpgateError
from warpgate_core.net.edge import LocalInterface
from warpgate_core.race.plan import Target, order_targets, udp_is_likely
from warpgate_core.strategy import Attempt

__all__ = ["plausible_transports", "try_targets"]


def plausible_transports(faces: Iterable[LocalInterface], peer: NodeAddress) -> frozenset[str]:
    """By what a direct connection to `peer` may come about, as far as both addresses tell."""
    own = tuple(faces)
    targets = order_targets(own, peer)
    kinds = (
        {"udp"} if any(udp_is_likely(mine, theirs) for mine in own for theirs in peer.interfaces) else set()
    )
    if any(target.tcp and target.likely for target in targets):
        kinds.add("tcp")
    return frozenset(kinds)


async def try_targets(attempt: Attempt, targets: list[Target]) -> None:
    """Try every target by every acceptable transport, until the race is over.

    Returns when at least one path was proven and the others have ended.

    Raises:
        StrategyError: all have failed; says how.
    """
    errors: list[WarpgateError] = []
    proven = 0
    streams = sum(target.tcp for target in targets)

    async def one(target: Target, transport: str) -> None:
        nonlocal proven, streams
        try:
            if transport == "tcp":
                await attempt.dial(target.remote, local=target.local, kind=target.kind)
            else:
                hosts = {sock.local.host: sock for sock in attempt.sockets}
                sock = hosts.get(target.local.host) if target.local is not None else None
                await attempt.check(target.remote, sock=sock, kind=target.kind)
            proven += 1
        except WarpgateError as error:
            errors.append(error)
            streams -= transport == "tcp"
            if not streams:
                attempt.retire("tcp")

    async with asyncio.TaskGroup() as group:
        before: list[asyncio.Task[None]] = []
        for target in targets:
            if target.delay and before:
                await asyncio.wait(before, timeout=target.delay, return_when=asyncio.ALL_COMPLETED)
            kinds = [kind for kind in ("tcp", "udp") if kind in attempt.transports]
            before = [
                group.create_task(one(target, kind)) for kind in kinds if kind == "udp" or target.tcp
            ] or before
    if not proven:
        raise StrategyError(attempt.name, "", _summary(targets, errors))


def _summary(targets: list[Target], errors: list[WarpgateError]) -> str:
    if not targets:
        return "the peer's address names no endpoint of a family that this node has"
    seen: list[str] = []
    for error in errors:
        text = error.detail if isinstance(error, StrategyError) else str(error)
        if text not in seen:
            seen.append(text)
    return f"none of {len(targets)} endpoints answered: " + "; ".join(seen[:6])
