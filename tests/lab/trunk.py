"""A network that homes hang on: what the internet in the middle and a carrier's NAT have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.lab.home import ROUTER_BASICS, Client, Home
from tests.lab.host import Host
from tests.lab.line import LINE_RULES, Delay, Line, both_ways
from tests.lab.nat import Nat
from tests.lab.nat_rules import Site

if TYPE_CHECKING:
    from tests.lab.internet import Carrier
    from tests.lab.lab import Lab

__all__ = ["DelayArgument", "Trunk"]

DelayArgument = float | Delay | tuple[float | Delay, float | Delay]


class Trunk(Host, ABC):
    """A router with lines down to homes, servers and carriers.

    Args:
        lab: owner.
        name: of the machine.
        families: 4, 6 or both: what it carries unless a home or server says otherwise.

    Attributes:
        outer4: the address that a carrier's NAT gives to all its homes, or "" where there is none.
    """

    outer4 = ""

    def __init__(self, lab: Lab, name: str, families: tuple[int, ...]) -> None:
        super().__init__(lab, name)
        self.families = families
        self.homes: list[Home] = []
        self._lines = 0
        self.namespace.script(ROUTER_BASICS)
        self.namespace.nft(LINE_RULES)

    @abstractmethod
    def next_home(self, translates: bool) -> tuple[int, str]:
        """Where the next home goes.

        Args:
            translates: whether its router has a NAT; else it needs public addresses inside.

        Returns:
            A number that is unique in the whole internet, and the outer IPv4 address of its router.

        Raises:
            LabError: there is no room for it.
        """

    @abstractmethod
    def carrier(self, name: str, nat: Nat) -> Carrier:
        """A carrier's NAT below this network."""

    def home(
        self,
        name: str,
        nat: Nat = Nat.OPEN,
        *,
        delay: DelayArgument = 0.0,
        loss: float | tuple[float, float] = 0.0,
        families: Iterable[int] | None = None,
        firewall6: bool | None = None,
        hairpin: bool = False,
        syn_reset: bool = False,
        lifetime: int = 300,
        lan4: str | None = None,
        wan4: str | None = None,
    ) -> Client:
        """A router on its own line, and one machine behind it.

        Args:
            name: of the machine; its router is called ``<name>-router``.
            nat: what the router does to IPv4; with a kind that has a carrier's NAT too, that one is made
                and called ``<name>-carrier``.
            delay: one way, in seconds or as a `Delay` with a rate; or (up, down).
            loss: share of packets lost on the line, 0 to 1; or (up, down).
            families: what the home has; None is what the network above carries.
            firewall6: keep unsolicited IPv6 out; None is yes, except for `Nat.OPEN`.
            hairpin: machines inside reach each other by their outer endpoints.
            syn_reset: an unsolicited SYN is answered with RST.
            lifetime: seconds an idle UDP mapping lives.
            lan4: inner IPv4 network (a /24, or for an open home what the internet shall route to it).
            wan4: outer IPv4 address of the router.

        Returns:
            The machine; its `home` has the router, the line, and `machine` for further ones.
        """
        what = nat.behaviour
        above = self.carrier(f"{name}-carrier", Nat[what.carrier]) if what.carrier else self
        number, outer = above.next_home(what.translates)
        inner = f"192.168.{number}.0/24" if what.translates else f"192.0.2.{8 * number}/29"
        site = Site(
            lan="lan",
            wan="wan",
            lan4=lan4 or inner,
            wan4=wan4 or outer,
            firewall6=what.translates if firewall6 is None else firewall6,
            hairpin=hairpin,
            syn_reset=syn_reset,
            lifetime=lifetime,
            blocked=what.blocked,
        )
        chosen = above.families if families is None else tuple(families)
        home = Home(above, name, number, nat, site, chosen)
        home.connect(above.line(home.router, "wan", delay, loss))
        above.attach(home)
        return home.machine(name)

    def attach(self, home: Home) -> None:
        """Route to a home what belongs to it."""
        prefixes: list[str] = []
        if 4 in home.families:
            prefixes.append(f"{home.site.wan4}/32")
            if not home.nat.behaviour.translates:
                prefixes.append(str(home.network4))
        if 6 in home.families:
            prefixes += [f"{home.wan6}/128", str(home.network6)]
        self.namespace.ip([f"route add {prefix} dev {home.line.name}" for prefix in prefixes])
        self.homes.append(home)

    def line(self, lower: Host, device: str, delay: DelayArgument, loss: float | tuple[float, float]) -> Line:
        """A line from a machine up to here."""
        up, down = delay if isinstance(delay, tuple) else (delay, delay)
        ways = tuple(way if isinstance(way, Delay) else Delay(way) for way in (up, down))
        self._lines += 1
        return Line(
            self.lab.forwarder if ways != (Delay(), Delay()) else None,
            self.namespace,
            f"line{self._lines}",
            lower.namespace,
            device,
            (ways[0], ways[1]),
            both_ways(loss),
        )
