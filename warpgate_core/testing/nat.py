"""A NAT or firewall for the in-memory network: mapping x filtering x allocation (RFC 4787).

Simple but true: each packet passes it at its own time, so a probe that comes before the other side has
sent is dropped here exactly as by a real one. Rejected: "cone" and "symmetric" as the parameters, since
those words leave filtering open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from warpgate_core.endpoint import Endpoint
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.testing.line import Line
from warpgate_core.testing.packet import Packet, Protocol

if TYPE_CHECKING:
    from warpgate_core.testing.network import MemoryNetwork
    from warpgate_core.testing.zone import Zone

__all__ = [
    "ADDRESS_RESTRICTED",
    "FIREWALL",
    "FULL_CONE",
    "PORT_RESTRICTED",
    "SYMMETRIC",
    "SYMMETRIC_SEQUENTIAL",
    "MemoryNat",
    "NatRules",
]

UDP_LIFETIME: Final = 120.0  # s, RFC 4787 section 4.3: not less than two minutes
TCP_LIFETIME: Final = 7_440.0  # s, RFC 5382 section 5: not less than 2 hours 4 minutes
FIRST_PORT: Final = 1024  # RFC 6335 section 6: below are the system ports


@dataclass(frozen=True, slots=True)
class NatRules:
    """What a NAT does.

    Args:
        mapping: `Mapping.NONE` makes it a stateful firewall that translates nothing.
        filtering: for UDP.
        allocation: how external ports are chosen.
        step: distance of two successive ports, for sequential allocation.
        chunk: (first port, number of ports), for chunked allocation.
        tcp_filtering: for TCP; what connection tracking does by default.
        unsolicited: what an unexpected packet causes: nothing; a reset, if it is TCP; or "punish": what goes
            to its sender later leaves by a port of its own (connection tracking that took note of it does).
        hairpin: whether the inside reaches its own external endpoints.
        lifetime: seconds that a UDP mapping lives after the last packet from inside.
        udp: False blocks UDP.
        tcp_ports: the only remote ports that TCP may go to; None: all.
    """

    mapping: Mapping = Mapping.EIM
    filtering: Filtering = Filtering.APDF
    allocation: Allocation = Allocation.PRESERVED
    step: int = 1
    chunk: tuple[int, int] | None = None
    tcp_filtering: Filtering = Filtering.APDF
    unsolicited: Literal["drop", "reset", "punish"] = "drop"
    hairpin: bool = False
    lifetime: float = UDP_LIFETIME
    udp: bool = True
    tcp_ports: frozenset[int] | None = None

    def lets_out(self, protocol: Protocol, remote: Endpoint) -> bool:
        """Whether it blocks nothing of this kind on its way there."""
        if protocol == "udp":
            return self.udp
        return self.tcp_ports is None or remote.port in self.tcp_ports

    @property
    def profile(self) -> NatProfile:
        """The same as a node's own discovery would find it."""
        sequential = self.allocation is Allocation.SEQUENTIAL
        return NatProfile(
            self.mapping, self.filtering, self.allocation, self.step if sequential else 0, self.chunk
        )


FULL_CONE: Final = NatRules(filtering=Filtering.EIF)
ADDRESS_RESTRICTED: Final = NatRules(filtering=Filtering.ADF)
PORT_RESTRICTED: Final = NatRules()
SYMMETRIC: Final = NatRules(mapping=Mapping.APDM, allocation=Allocation.RANDOM)
SYMMETRIC_SEQUENTIAL: Final = NatRules(mapping=Mapping.APDM, allocation=Allocation.SEQUENTIAL)
FIREWALL: Final = NatRules(mapping=Mapping.NONE)


@dataclass(slots=True)
class _Binding:
    """One internal endpoint's way out, and who may come back through it."""

    internal: Endpoint
    external: Endpoint
    expires: float
    permitted: dict[Endpoint | str, float] = field(default_factory=dict)
    is_pinned: bool = False


class MemoryNat:
    """A NAT between an inner zone and an outer one. Made by `MemoryNetwork.lan`.

    Args:
        network: draws ports from its randomness.
        inner: the zone it serves.
        outer: the zone where it has `address`.
        address: external IP address; None for a firewall.
        rules: see `NatRules`.
        line: its access line to the outer zone.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        inner: Zone,
        outer: Zone,
        address: str | None,
        rules: NatRules,
        line: Line,
    ) -> None:
        self.inner = inner
        self.outer = outer
        self.address = address
        self.rules = rules
        self.line = line
        self._network = network
        self._bindings: dict[tuple[object, ...], _Binding] = {}
        self._by_external: dict[tuple[Protocol, Endpoint], _Binding] = {}
        self._forwards: dict[tuple[Protocol, Endpoint], Endpoint] = {}
        self._spoiled: set[tuple[object, ...]] = set()
        self._last_port = network.rng.randrange(FIRST_PORT, 60_000)

    def __repr__(self) -> str:
        return f"<MemoryNat {self.address or 'firewall'}: {self.rules.profile.label}>"

    def receive_inside(self, packet: Packet) -> None:
        """A packet on its way out."""
        if not self.rules.lets_out(packet.protocol, packet.destination):
            self._network.drop(packet, "blocked")
            return
        packet.source = self.map(packet.protocol, packet.source, packet.destination)
        if packet.destination.host != self.address:
            self.outer.forward(packet, self.line)
        elif self.rules.hairpin:
            self.receive_outside(packet)
        else:
            self._network.drop(packet, "no hairpin")

    def receive_outside(self, packet: Packet) -> None:
        """A packet on its way in."""
        internal = self._forwards.get((packet.protocol, packet.destination))
        if internal is None:
            binding = self._by_external.get((packet.protocol, packet.destination))
            if binding is None or not self._lets_in(binding, packet):
                self._network.drop(packet, "filtered")
                if self.rules.unsolicited == "reset":
                    self._network.refuse(packet, self.outer, self.line)
                elif self.rules.unsolicited == "punish" and binding is not None:
                    self._spoiled.add((packet.protocol, binding.internal, packet.source))
                return
            internal = binding.internal
        packet.destination = internal
        self.inner.forward(packet, Line())

    def map(self, protocol: Protocol, internal: Endpoint, remote: Endpoint, *, pin: bool = False) -> Endpoint:
        """The external endpoint that `remote` sees, made if need be; `remote` may answer from now on.

        Args:
            protocol: "udp" or "tcp".
            internal: the inside's own endpoint.
            remote: where to.
            pin: keep it alive, as a node's keepalive would.
        """
        now = self._network.now
        static = self.forwarded(protocol, internal)
        if static is not None:
            return static
        key = self._key(protocol, internal, remote)
        binding = self._bindings.get(key)
        if binding is None or (binding.expires < now and not binding.is_pinned):
            if binding is not None:
                del self._by_external[protocol, binding.external]
            binding = _Binding(internal, self._allocate(protocol, internal), now)
            self._bindings[key] = binding
            self._by_external[protocol, binding.external] = binding
        binding.is_pinned |= pin
        binding.expires = now + (self.rules.lifetime if protocol == "udp" else TCP_LIFETIME)
        binding.permitted[remote] = binding.permitted[remote.host] = binding.expires
        return binding.external

    def unpin(self, protocol: Protocol, internal: Endpoint) -> Endpoint | None:
        """End the keepalive of `map`; returns the external endpoint that was kept, if any."""
        for (bound, external), binding in self._by_external.items():
            if bound == protocol and binding.internal == internal and binding.is_pinned:
                binding.is_pinned = False
                return external
        return None

    def forward(self, protocol: Protocol, external_port: int, internal: Endpoint) -> None:
        """A static port mapping, such as UPnP makes: let everybody in to `internal`."""
        external = Endpoint(self.address or internal.host, external_port)
        self._forwards[protocol, external] = internal

    def forwarded(self, protocol: Protocol, internal: Endpoint) -> Endpoint | None:
        """The external endpoint of a static port mapping to `internal`, if there is one."""
        found = (
            port[1] for port, inside in self._forwards.items() if (port[0], inside) == (protocol, internal)
        )
        return next(found, None)

    def reboot(self) -> None:
        """Forget every mapping, as after a power cut."""
        self._bindings.clear()
        self._by_external.clear()
        self._spoiled.clear()

    def _key(self, protocol: Protocol, internal: Endpoint, remote: Endpoint) -> tuple[object, ...]:
        each = (protocol, internal, remote)
        if self.rules.mapping is Mapping.APDM or each in self._spoiled:
            return each
        if self.rules.mapping is Mapping.ADM:
            return (protocol, internal, remote.host)
        return (protocol, internal)

    def _lets_in(self, binding: _Binding, packet: Packet) -> bool:
        now = self._network.now
        if binding.expires < now and not binding.is_pinned:
            return False
        rule = self.rules.filtering if packet.protocol == "udp" else self.rules.tcp_filtering
        if rule is Filtering.EIF:
            return True
        who = packet.source.host if rule is Filtering.ADF else packet.source
        return binding.permitted.get(who, 0.0) >= now

    def _allocate(self, protocol: Protocol, internal: Endpoint) -> Endpoint:
        if self.address is None:
            return internal
        for port in self._ports(internal.port):
            external = Endpoint(self.address, port)
            taken = (protocol, external)
            if taken not in self._by_external and taken not in self._forwards:
                return external
        raise RuntimeError(f"{self!r} has no free port")

    def _ports(self, preserved: int) -> Iterator[int]:
        """External ports to try, in the order of the rules."""
        rules = self.rules
        first, count = rules.chunk or (FIRST_PORT, 65_536 - FIRST_PORT)
        if rules.allocation is Allocation.PRESERVED:
            yield preserved
        if rules.allocation is Allocation.SEQUENTIAL:
            for _ in range(count):
                self._last_port = first + (self._last_port - first + rules.step) % count
                yield self._last_port
        start = self._network.rng.randrange(count)
        for number in range(count):  # a random one, else the next that is free
            yield first + (start + number) % count
