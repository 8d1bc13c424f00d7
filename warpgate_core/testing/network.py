"""A network in memory: hosts, lines, NATs and faults, on the running loop's clock.

Every packet goes hop by hop and each NAT sees it at its own time, because that is what decides whether a
hole is punched. All randomness comes from one seed. With `run_virtual` an hour of it takes a moment::

    async def main():
        network = MemoryNetwork()
        home = network.lan("home", "203.0.113.1", PORT_RESTRICTED, line=Line(delay=0.02))
        alice = network.edge(network.host("alice", "192.168.1.2/24", zone=home))
        bob = network.edge(network.host("bob", "198.51.100.7/24", line=Line(delay=0.01, loss=0.05)))
        ...

    run_virtual(main, seed=1)

It works on an ordinary loop too, in real time. Rejected: connecting two sockets directly (no NAT can stand
in between), and computing a path's fate when a packet is sent (a NAT opened a moment later would count).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVarTuple

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.nat import Mapping
from warpgate_core.testing.edge import MemoryEdge
from warpgate_core.testing.host import Card, Host
from warpgate_core.testing.line import Line
from warpgate_core.testing.loop import Ambient, VirtualLoop
from warpgate_core.testing.nat import PORT_RESTRICTED, MemoryNat, NatRules
from warpgate_core.testing.packet import Packet, PacketEvent, Protocol
from warpgate_core.testing.tcp import Segment
from warpgate_core.testing.zone import Zone

__all__ = ["MemoryNetwork"]

Ts = TypeVarTuple("Ts")

OBSERVERS: Final = {  # whom a node asks for its mapped endpoint (documentation addresses, RFC 5737, 3849)
    Family.IP4: Endpoint("192.0.2.1", 3478),
    Family.IP6: Endpoint("2001:db8:ffff::1", 3478),
}


class MemoryNetwork:
    """The whole of it. Make it inside a running loop.

    Args:
        seed: of all its randomness; None takes the randomness of the `VirtualLoop` it runs on, else 0.
        shred: cut what goes over TCP into pieces of random size, to test framing.

    Attributes:
        loop: the loop it runs on.
        rng: its randomness.
        internet: the zone that needs no NAT.
        hosts: by name.
        fates: how many packets were sent, delivered, or dropped for which reason; see `PacketEvent`.
    """

    def __init__(self, seed: int | None = None, *, shred: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        if seed is None and isinstance(self.loop, VirtualLoop):
            self.rng = self.loop.random
        else:
            self.rng = random.Random(seed or 0)  # noqa: S311  a simulation must be repeatable
        self.shred = shred
        self.internet = Zone(self, "internet", routers=1)
        self.hosts: dict[str, Host] = {}
        self.fates: Counter[str] = Counter()
        self._cuts: set[frozenset[str]] = set()
        self._watchers: list[Callable[[PacketEvent], None]] = []

    # -- building ----------------------------------------------------------------------------

    def lan(
        self,
        name: str,
        external: str | None = None,
        rules: NatRules = PORT_RESTRICTED,
        *,
        outer: Zone | None = None,
        line: Line | None = None,
        family: Family = Family.IP4,
    ) -> Zone:
        """A zone behind a NAT or a firewall.

        Args:
            name: for people.
            external: the NAT's address in the outer zone; None for a firewall, which translates
                nothing (`FIREWALL`).
            rules: what it does.
            outer: where it is plugged in; None: the internet. Give another LAN for NATs in series.
            line: its access line.
            family: the address family it serves. `add_gateway` adds the other one.

        Raises:
            ValueError: rules and address do not fit each other, or the address is taken.
        """
        zone = Zone(self, name)
        self.add_gateway(zone, external, rules, outer=outer, line=line, family=family)
        return zone

    def add_gateway(
        self,
        zone: Zone,
        external: str | None,
        rules: NatRules = PORT_RESTRICTED,
        *,
        outer: Zone | None = None,
        line: Line | None = None,
        family: Family = Family.IP4,
    ) -> MemoryNat:
        """Put a NAT or firewall in front of a zone, before hosts are plugged in there. See `lan`."""
        if (external is None) != (rules.mapping is Mapping.NONE):
            raise ValueError("a NAT needs an external address, and a firewall (Mapping.NONE) has none")
        nat = MemoryNat(self, zone, outer or self.internet, external, rules, line or Line())
        zone.gateways[family] = nat
        if external is not None:
            nat.outer.plug(external, nat.receive_outside, nat.line)
        return nat

    def host(self, name: str, *addresses: str, zone: Zone | None = None, line: Line | None = None) -> Host:
        """A machine with one network card; `Host.plug` adds more.

        Args:
            name: unique.
            addresses: of the card, "192.168.1.2/24".
            zone: where; None: the internet.
            line: its access line.

        Raises:
            ValueError: the name or an address is taken.
        """
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        host = self.hosts[name] = Host(self, name)
        for address in addresses:
            host.plug(address, zone, line)
        return host

    def edge(self, host: Host, port: int = 0) -> MemoryEdge:
        """The network edge of a node on `host`.

        Args:
            host: the machine.
            port: of its UDP sockets and TCP listeners; 0: a free one.
        """
        return MemoryEdge(self, host, port)

    # -- faults ------------------------------------------------------------------------------

    def at(self, delay: float, fault: Callable[[*Ts], object], *args: *Ts) -> None:
        """Let something happen `delay` seconds from now: ``network.at(1.5, network.cut, alice, bob)``."""
        self.later(delay, fault, *args)

    def cut(self, one: Host, other: Host) -> None:
        """From now on nothing passes between two hosts, and nobody is told."""
        self._cuts.add(frozenset((one.name, other.name)))

    def mend(self, one: Host, other: Host) -> None:
        """End what `cut` began. What was lost stays lost; TCP sends it again."""
        self._cuts.discard(frozenset((one.name, other.name)))

    def reset(self, one: Host, other: Host) -> None:
        """Break every TCP connection between two hosts: both ends get a reset at once."""
        for host, peer in ((one, other), (other, one)):
            for connection in tuple(host.connections.values()):
                if connection.peer_host is peer:
                    connection.break_off(ConnectionResetError("reset by a fault"))

    # -- what happens ------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self.loop.time()

    def watch(self, watcher: Callable[[PacketEvent], None]) -> None:
        """Call `watcher` with everything that happens to a packet."""
        self._watchers.append(watcher)

    def gateways(self, card: Card) -> list[MemoryNat]:
        """The NATs and firewalls between a card and the internet, from inside out."""
        nats: list[MemoryNat] = []
        zone = card.zone
        while (nat := zone.gateways.get(card.family)) is not None:
            nats.append(nat)
            zone = nat.outer
        return nats

    def observe(
        self, card: Card, internal: Endpoint, protocol: Protocol = "udp", *, pin: bool = True
    ) -> Endpoint | None:
        """What a STUN server on the internet sees of an endpoint; it is kept alive until `forget`.

        Args:
            card: of the endpoint.
            internal: the endpoint.
            protocol: "udp" or "tcp".
            pin: False: it is not kept alive.

        Returns:
            None if there is no way to the internet.
        """
        nats = self.gateways(card)
        seen, observer = internal, OBSERVERS[internal.family]
        for nat in nats:
            if not nat.rules.lets_out(protocol, observer):
                return None
            seen = nat.map(protocol, seen, observer, pin=pin)
        return seen if (nats[-1].outer if nats else card.zone) is self.internet else None

    def forget(self, card: Card, internal: Endpoint, protocol: Protocol = "udp") -> None:
        """End the keepalive of `observe`."""
        seen: Endpoint | None = internal
        for nat in self.gateways(card):
            seen = nat.unpin(protocol, seen) if seen is not None else None

    def later(self, delay: float, function: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
        """Run something of the simulated world after `delay` seconds."""
        return self.loop.call_at(self.loop.time() + delay, Ambient(function, *args))

    def is_cut(self, origin: Host | None, host: Host) -> bool:
        """Whether nothing passes between the two."""
        return bool(self._cuts) and origin is not None and frozenset((origin.name, host.name)) in self._cuts

    def drop(self, packet: Packet, fate: str) -> None:
        """A packet ends here, unheard."""
        self.note(packet, fate)

    def refuse(self, packet: Packet, zone: Zone, line: Line) -> None:
        """Answer a TCP segment that nobody wants with a reset."""
        if isinstance(packet.payload, Segment):
            answer = packet.payload.refusal()
            if answer is not None:
                zone.forward(Packet("tcp", packet.destination, packet.source, answer, None), line)

    def note(self, packet: Packet, fate: str, host: Host | None = None) -> None:
        """Count what became of a packet and tell the watchers."""
        self.fates[fate] += 1
        if self._watchers:
            name = host.name if host is not None else ""
            event = PacketEvent(
                self.now, fate, name, packet.protocol, packet.source, packet.destination, packet.payload
            )
            for watcher in self._watchers:
                watcher(event)
