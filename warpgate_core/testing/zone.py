"""One network of addresses that reach each other directly: the internet, or a LAN behind a NAT.

Overlapping private addresses are no problem: every zone has its own. Rejected: one global table of routes,
in which two homes could not both be 192.168.1.0/24.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.testing.line import Line
from warpgate_core.testing.packet import Packet

if TYPE_CHECKING:
    from warpgate_core.testing.nat import MemoryNat
    from warpgate_core.testing.network import MemoryNetwork

__all__ = ["Zone"]


@dataclass(frozen=True, slots=True)
class _Port:
    """Where something is plugged in."""

    receive: Callable[[Packet], None]
    line: Line


class Zone:
    """One network. Made by `MemoryNetwork.lan`; the internet is `MemoryNetwork.internet`.

    Attributes:
        name: for people.
        gateways: the NAT or firewall per address family.
        routers: inside it, between any two that are plugged in.
    """

    def __init__(self, network: MemoryNetwork, name: str, routers: int = 0) -> None:
        self.name = name
        self.routers = routers
        self.gateways: dict[Family, MemoryNat] = {}
        self._network = network
        self._ports: dict[str, _Port] = {}

    def __repr__(self) -> str:
        return f"<Zone {self.name}>"

    def plug(self, address: str, receive: Callable[[Packet], None], line: Line) -> None:
        """Give an IP address to something.

        Raises:
            ValueError: it is taken.
        """
        if address in self._ports:
            raise ValueError(f"{address} is taken in {self!r}")
        self._ports[address] = _Port(receive, line)
        firewall = self._firewall(address)
        if firewall is not None:  # what is behind a firewall is addressed directly
            firewall.outer.plug(address, firewall.receive_outside, firewall.line)

    def unplug(self, address: str) -> None:
        """Take an IP address away; harmless if nobody has it."""
        if self._ports.pop(address, None) is not None:
            firewall = self._firewall(address)
            if firewall is not None:
                firewall.outer.unplug(address)

    def forward(self, packet: Packet, line: Line) -> None:
        """Send a packet to where its destination is plugged in, else to the gateway.

        Args:
            packet: the packet.
            line: the line over which it comes.
        """
        network = self._network
        packet.ttl -= 1 + self.routers
        if packet.ttl < 0:
            network.drop(packet, "ttl")
            return
        port = self._ports.get(packet.destination.host) or self._way_out(packet.destination.family)
        if port is None:
            network.drop(packet, "no route")
            return
        delays = [a + b for a in line.sample(network.rng) for b in port.line.sample(network.rng)]
        if not delays:
            network.drop(packet, "lost")
        copies = [packet, *(packet.copy() for _ in delays[1:])]
        for delay, copy in zip(delays, copies, strict=False):
            network.later(delay, port.receive, copy)

    def _way_out(self, family: Family) -> _Port | None:
        gateway = self.gateways.get(family)
        return _Port(gateway.receive_inside, Line()) if gateway is not None else None

    def _firewall(self, address: str) -> MemoryNat | None:
        gateway = self.gateways.get(Endpoint(address, 0).family)
        return gateway if gateway is not None and gateway.address is None else None
