"""The strategy: whether a search is worth it, whether both ends are free for it, and which half is ours."""

from __future__ import annotations

from warpgate_core import Attempt, NodeAddress, Role, Strategy, StrategyError, register
from warpgate_probe.match import match_ports
from warpgate_probe.messages import Kind, Message, Section
from warpgate_probe.options import ProbeOptions
from warpgate_probe.pairing import Method, Pairing, choose, may_come
from warpgate_probe.search import Sockets, open_ports, try_ports
from warpgate_probe.talk import Talk

__all__ = ["Probe"]


@register("probe", rank=50, transports={"udp"}, options=ProbeOptions)
class Probe(Strategy):
    """Finds the port of a NAT that gives each destination another one: many sockets, many probes."""

    options: ProbeOptions

    def __init__(self, options: ProbeOptions) -> None:
        super().__init__(options)
        self._sockets: Sockets | None = None
        self._inside = False
        self._searched = False

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """UDP if the two NATs are a pair for a search, else nothing."""
        pairing = choose(*((local, peer) if role is Role.INITIATOR else (peer, local)))
        return frozenset(("udp",)) if isinstance(pairing, Pairing) else frozenset()

    async def contribute(self, attempt: Attempt) -> bytes:
        """Reserve the gate if it is free and may be needed, and say so."""
        if may_come(*_in_order(attempt)):
            self._inside = await self.options.gate.try_enter(attempt.now())
        return Section(self._inside).encode()

    async def run(self, attempt: Attempt) -> None:
        """Do our half, and wait for the end of the race."""
        await attempt.peer_answered()
        theirs = Section.decode(await attempt.peer_section())
        pairing = choose(*_in_order(attempt))
        if isinstance(pairing, str):
            raise StrategyError(attempt.name, "choosing", pairing)
        if pairing.method is Method.ASK:
            self._leave()
            await _ask(attempt, pairing)
        else:
            talk = Talk(attempt)
            if not (self._inside and theirs.reserved):
                await self._take_turns(attempt, talk)
            self._searched = True
            await self._search(attempt, pairing, talk)
        await attempt.settled()

    async def close(self) -> None:
        """Free the sockets, but for one that carries a pipe, and let the next search begin in its time."""
        if self._sockets is not None:
            self._sockets.free()
        self._leave()

    async def _search(self, attempt: Attempt, pairing: Pairing, talk: Talk) -> None:
        self._sockets = Sockets(attempt)
        if pairing.method is Method.MATCH:
            await match_ports(attempt, pairing, self.options, self._sockets, talk)
        elif pairing.cone is attempt.role:
            own = pairing.face(attempt.role).internal
            await try_ports(attempt, pairing, self.options, own, talk)
        else:
            await open_ports(attempt, pairing, self.options, self._sockets, talk)

    async def _take_turns(self, attempt: Attempt, talk: Talk) -> None:
        """Not both ends were free: wait for both, the lower public key first (see `gate`)."""
        self._leave()
        attempt.note("wait", "for another search of one of the two nodes to end")
        first = attempt.local.public_key < attempt.peer.public_key
        if not first:
            await talk.hear(Kind.GO)
        await self.options.gate.enter(attempt.now)
        self._inside = True
        await talk.say(Message(Kind.GO))
        if first:
            await talk.hear(Kind.GO)

    def _leave(self) -> None:
        if self._inside:
            self._inside = False
            self.options.gate.leave(spacing=self.options.spacing if self._searched else 0.0)


def _in_order(attempt: Attempt) -> tuple[NodeAddress, NodeAddress]:
    """Both addresses, the initiator's first."""
    ends = (attempt.local, attempt.peer)
    return ends if attempt.role is Role.INITIATOR else ends[::-1]


async def _ask(attempt: Attempt, pairing: Pairing) -> None:
    """The cone lets in whom it has sent to, from whatever port: each sends to what it knows of the other."""
    peer = Role.RESPONDER if attempt.role is Role.INITIATOR else Role.INITIATOR
    remote = pairing.outside(peer)
    own = pairing.face(attempt.role).internal
    sock = next((sock for sock in attempt.sockets if sock.local.host == own.host), None)
    await attempt.check(remote, sock=sock, kind="srflx")
