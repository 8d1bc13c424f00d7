"""Searches between real NATs of the lab: two homes with a program each, and fresh nodes for every run.

Fresh, because one node searches only every 20 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.lab import Nat
from tests.lab.e2e.agent import Agent, AgentError, Joined, Started
from tests.lab.e2e.world import World
from tests.lab.probe.memory import Summary, summary

__all__ = ["TIMEOUT", "Homes"]

TIMEOUT = 12.0  # s


@dataclass
class Homes:
    """One home for each kind of NAT that is asked for, and the programs there.

    Args:
        world: owner.

    Attributes:
        failures: why nothing came of it, each time.
    """

    world: World
    failures: list[str] = field(default_factory=list)
    _agents: dict[str, Agent] = field(default_factory=dict)

    def agent(self, name: str, nat: Nat) -> Agent:
        """The program in the home of that name, made with that NAT if need be."""
        if name not in self._agents:
            self._agents[name] = self.world.agent(self.world.home(name, nat))
        return self._agents[name]

    def start(self, one: Nat, other: Nat, **config: object) -> tuple[Started, Started]:
        """Two nodes that know what their NATs do, unless they can hear of nobody."""
        services = self.world.services((4,)) | {"disable": ()} | config
        ends = (self.agent(f"a-{one.slug}", one), self.agent(f"b-{other.slug}", other))
        nodes = [agent.start(name, **services) for agent, name in zip(ends, "ab", strict=True)]
        kinds = zip(nodes, (one, other), strict=True)
        known = [node.refreshed("settle" if nat.behaviour.udp else "show") for node, nat in kinds]
        return known[0], known[1]

    def stop(self) -> None:
        """End all nodes."""
        for agent in self._agents.values():
            agent.call("shut")

    def join(self, one: Nat, other: Nat) -> tuple[Joined, Joined]:
        """Connect by `probe` alone. Raises AgentError."""
        a, b = self.start(one, other)
        here = a.connect(b, plugins=["probe"], timeout=TIMEOUT)
        return here, b.accept()

    def seconds(self, one: Nat, other: Nat) -> float | None:
        """How long that took; None if nothing came of it. Nothing is left running."""
        try:
            return self.join(one, other)[0].seconds
        except AgentError as error:
            if error.type != "ConnectError":
                raise
            self.failures.append(str(error))
            return None
        finally:
            self.stop()

    def measure(self, one: Nat, other: Nat, runs: int) -> Summary:
        """The same again and again."""
        return summary([self.seconds(one, other) for _ in range(runs)])
