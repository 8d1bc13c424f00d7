"""The test's end of `tests.lab.upnp.program`, and homes whose router runs miniupnpd."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Self

from tests.fixtures.miniupnpd import WAN, Miniupnpd
from tests.lab import Client, Internet, Nat
from tests.lab.e2e import agent
from tests.lab.e2e.agent import Agent, Started

__all__ = ["PROTOCOLS", "Mapped", "Mapper", "UpnpAgent", "mapped", "router", "says"]

PROGRAM = (sys.executable, "-m", "tests.lab.upnp.program")

# What a node must be told to use just that protocol, how it is called, and what the router must offer.
PROTOCOLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "PCP": ("PCP", {"nat_pmp": False, "igd": False}, {"upnp": False}),
    "NAT-PMP": ("NAT-PMP", {"pcp": False, "igd": False}, {"upnp": False}),
    "IGD v1": ("UPnP", {"pcp": False, "nat_pmp": False}, {"port_control": False, "version": 1}),
    "IGD v2": ("UPnP", {"pcp": False, "nat_pmp": False}, {"port_control": False, "version": 2}),
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a node has published.

    Args:
        external: (transport, IP version) to the external endpoint, as text.
        said: what its plugins say.
    """

    external: dict[tuple[str, int], str]
    said: list[str]

    @property
    def ports(self) -> set[int]:
        """External ports."""
        return {int(endpoint.rpartition(":")[2]) for endpoint in self.external.values()}


class UpnpAgent(Agent):
    """A process with nodes that tell of their port mappings."""

    def __enter__(self) -> Self:
        usual, agent.PROGRAM = agent.PROGRAM, PROGRAM
        try:
            return super().__enter__()
        finally:
            agent.PROGRAM = usual


@dataclass(frozen=True, slots=True)
class Mapper:
    """A machine in a home whose router maps ports."""

    client: Client
    daemon: Miniupnpd


def router(net: Internet, name: str, number: int, nat: Nat = Nat.SYMMETRIC_RANDOM, **options: Any) -> Mapper:
    """A home with miniupnpd.

    Args:
        net: where.
        name: of the machine.
        number: unique, for the address of the router.
        nat: what its router does without any mapping.
        options: of `Miniupnpd`; ``home`` in it goes to `Internet.home`.
    """
    home = {"wan4": WAN.format(number=number), "firewall6": False} | options.pop("home", {})
    client = net.home(name, nat, **home)
    return Mapper(client, Miniupnpd(client.home, **options))


def mapped(node: Started, count: int, *, host: str = "", timeout: float = 15.0) -> Mapped:
    """Wait until the node has so many mappings (to that own address). Raises AgentError."""
    told = node.call("mapped", count=count, host=host, timeout=timeout)
    external = {
        (transport, 6 if internal.startswith("[") else 4): outside
        for transport, internal, outside in told["mapped"]
    }
    return Mapped(external, told["said"])


def says(node: Started) -> str:
    """What the plugin says, once it knows what comes of it."""
    return "; ".join(node.call("settled"))
