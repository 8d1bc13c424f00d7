"""Two NATs that count ports up: both ends say where they are, and send to where the other's will be.

In rounds, because a NAT may begin anew in between, or other machines take more ports than were allowed for.
Each round both ends ask how far their NAT is, tell the other, and open a burst of sockets at once.
`order.aims` says where each one sends. Rejected: one socket that sends to many ports; a NAT that maps by
destination makes a mapping for each of them all the same.
"""

from __future__ import annotations

import asyncio

from warpgate_core import Attempt, Endpoint, NetworkError, Phase, Role, StrategyError
from warpgate_probe.descriptors import affordable, descriptors_left
from warpgate_probe.messages import Kind, Message
from warpgate_probe.options import ProbeOptions
from warpgate_probe.order import FEWEST, SKEWS, aims
from warpgate_probe.pairing import Pairing
from warpgate_probe.search import Sockets
from warpgate_probe.talk import Talk

__all__ = ["match_ports"]

ROUNDS = 4  # of 64 sockets: 256 in all
BURST = 4 * SKEWS  # so that each shift is met four times, against loss
PATIENCE = 0.5  # s after a burst: the other's may come one signal later, and a check may get lost


async def match_ports(
    attempt: Attempt, pairing: Pairing, options: ProbeOptions, sockets: Sockets, talk: Talk
) -> None:
    """Be either end.

    Raises:
        StrategyError: they never met, or too few descriptors are left.
        NetworkError: no STUN server says how the NAT maps.
    """
    own = pairing.face(attempt.role)
    peer = Role.RESPONDER if attempt.role is Role.INITIATOR else Role.INITIATOR
    other = pairing.face(peer)
    burst = affordable(min(BURST, options.sockets), descriptors_left())
    if burst < min(FEWEST, options.sockets):
        text = f"only {burst} file descriptors can be spared; raise `ulimit -n`"
        raise StrategyError(attempt.name, "opening ports", text)
    found = asyncio.ensure_future(attempt.found())
    try:
        for number in range(ROUNDS):
            port = await _base(attempt, own.internal, sockets)
            await talk.say(Message(Kind.BASE, number, port=port))
            base = (await talk.hear(Kind.BASE, number)).port
            host = pairing.outside(peer).host
            attempt.note("match", f"{burst} ports of {host} behind {base}, round {number + 1}", Phase.STARTED)
            sockets.free()  # those of the round before, which nobody met
            skewed = attempt.role is Role.RESPONDER
            for aim in aims(base, other.nat.step, burst, skewed=skewed):
                sock = await sockets.add(own.internal)
                if aim:
                    attempt.beacon(Endpoint(host, aim), sock=sock)
            await asyncio.wait((found,), timeout=PATIENCE + (attempt.round_trip or 0.0) / 2)
            if found.done():
                return
    finally:
        found.cancel()
    text = f"in {ROUNDS} rounds no port was where it was expected; other machines use these NATs too"
    raise StrategyError(attempt.name, "matching", text)


async def _base(attempt: Attempt, local: Endpoint, sockets: Sockets) -> int:
    """The port that the NAT gives out just now.

    Asked from a second socket if nobody answers the first: a NAT that has begun anew may have given it a port
    that is still another's, and then no answer comes through.

    Raises:
        NetworkError: nobody answers the second either.
    """
    try:
        return (await attempt.mapped(await sockets.add(local))).port
    except NetworkError as error:
        attempt.note("predict", str(error), Phase.FAILED)
        return (await attempt.mapped(await sockets.add(local))).port
