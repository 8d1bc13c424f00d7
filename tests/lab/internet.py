"""The network in the middle, the carriers' NATs below it, and the servers on it.

Address plan (documentation ranges, RFC 5737 and RFC 3849; below a carrier, RFC 6598):

==================  ==========================  ====================================
where               IPv4                        IPv6
==================  ==========================  ====================================
the middle itself   203.0.113.1/32              2001:db8:ffff::1/128
server number n     203.0.113.(10+n)/32         2001:db8:ffff::(10+n)/128
router of home n    198.51.100.n/32             2001:db8:fffe::n/128
carrier number n    198.51.100.(100+n)/32       none: it routes IPv6 as it is
home n below it     100.64.0.n/32               2001:db8:fffe::n/128
inside home n       192.168.n.0/24 (private)    2001:db8:n::/64
inside, no NAT      192.0.2.(8n)/29             2001:db8:n::/64
==================  ==========================  ====================================

The middle drops, without a word, what comes from a source it has no route to (a private address that
some router did not translate) and what goes to where it has no route (the private address of a machine
in another home). It must be silent: a blackhole route answers the sender with EINVAL, after which coturn
relays nothing, and no route at all answers "unreachable", which real networks seldom do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.lab.errors import LabError
from tests.lab.home import EVERYWHERE, Home, mapping_lifetime
from tests.lab.host import Host
from tests.lab.line import Line
from tests.lab.nat import Nat, ruleset
from tests.lab.nat_rules import Site
from tests.lab.services import Broker, Coturn
from tests.lab.trunk import DelayArgument, Trunk

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["Carrier", "Internet"]

HOMES = 31  # as many /29 as 192.0.2.0/24 holds beside the first
SERVERS = 200  # 203.0.113.10 to .209
OWN_ADDRESS = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}  # the middle's, for its ICMP messages
CARRIER_NETWORK = "100.64.0.0/10"  # RFC 6598
CARRIER_LIFETIME = 300  # seconds an idle UDP mapping lives (RFC 6888 refers to RFC 4787 REQ-5)

MIDDLE_RULES = """
table inet middle {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    fib daddr type local accept
    fib saddr . iif oif missing drop
    fib daddr oif missing drop
  }
}
"""


class Internet(Trunk):
    """The router in the middle.

    Args:
        lab: owner.
        families: 4, 6 or both: what it carries unless a home or server says otherwise.
    """

    def __init__(self, lab: Lab, families: tuple[int, ...]) -> None:
        super().__init__(lab, "internet", families)
        self._servers = 0
        self._homes = 0
        self._carriers = 0
        self.namespace.nft(MIDDLE_RULES)
        self.addresses = [OWN_ADDRESS[family] for family in self.families]
        self.namespace.ip([f"address add {address} dev lo" for address in self.addresses])

    def next_home(self, translates: bool) -> tuple[int, str]:
        """Here, any home finds room, up to 31 of them."""
        if self._homes == HOMES:
            raise LabError(f"the address plan has room for {HOMES} homes")
        self._homes += 1
        return self._homes, f"198.51.100.{self._homes}"

    def carrier(self, name: str, nat: Nat, *, delay: DelayArgument = 0.0, hairpin: bool = False) -> Carrier:
        """A carrier's NAT, with room for homes below it (arguments as of `home`)."""
        self._carriers += 1
        return Carrier(self, name, f"198.51.100.{100 + self._carriers}", nat, delay, hairpin)

    def server(
        self,
        name: str,
        addresses: int = 1,
        *,
        delay: DelayArgument = 0.0,
        loss: float | tuple[float, float] = 0.0,
        families: Iterable[int] | None = None,
    ) -> Host:
        """A machine with public addresses: `addresses` of each family."""
        host = Host(self.lab, name)
        chosen = self.families if families is None else tuple(families)
        line = self.line(host, "eth0", delay, loss)
        for _ in range(addresses):
            self._servers += 1
            if self._servers > SERVERS:
                raise LabError(f"the address plan has room for {SERVERS} server addresses")
            for family in chosen:
                address = _server_address(self._servers, family)
                bits = 32 if family == 4 else 128
                host.addresses.append(address)
                host.namespace.ip([f"address add {address}/{bits} dev eth0"])
                self.namespace.ip([f"route add {address}/{bits} dev {line.name}"])
        host.namespace.ip([f"route add {EVERYWHERE[family]} dev eth0" for family in chosen])
        return host

    def brokers(self, count: int = 3, *, delay: DelayArgument = 0.0) -> list[Broker]:
        """Real mosquitto brokers, each on a server of its own, called broker1, broker2..."""
        return [Broker(self.server(f"broker{number}", delay=delay)) for number in range(1, count + 1)]

    def coturn(self, name: str = "stun", *, delay: DelayArgument = 0.0) -> Coturn:
        """A coturn with two addresses per family: STUN with RFC 5780, and TURN."""
        return Coturn(self.server(name, addresses=2, delay=delay))


class Carrier(Trunk):
    """A carrier-grade NAT: homes below it share its outer IPv4 address. IPv6 it only routes.

    Args:
        above: the internet.
        name: of the machine.
        wan4: its outer IPv4 address.
        nat: what it does.
        delay: of its line up.
        hairpin: homes below reach each other by their outer endpoints.
    """

    line_up: Line

    def __init__(
        self, above: Internet, name: str, wan4: str, nat: Nat, delay: DelayArgument, hairpin: bool
    ) -> None:
        super().__init__(above.lab, name, above.families)
        if not nat.behaviour.translates or nat.behaviour.carrier:
            raise LabError(f"a carrier cannot run a NAT of the kind {nat.slug}")
        self.above = above
        self.outer4 = wan4
        self.line_up = above.line(self, "wan", delay, 0.0)
        self.namespace.script(mapping_lifetime(CARRIER_LIFETIME))
        self.namespace.ip([f"route add {EVERYWHERE[family]} dev wan" for family in self.families])
        if 4 in self.families:
            self.namespace.ip([f"address add {wan4}/32 dev wan"])
            above.namespace.ip([f"route add {wan4}/32 dev {self.line_up.name}"])
        site = Site("line*", "wan", CARRIER_NETWORK, wan4, firewall6=False, hairpin=hairpin)
        self.namespace.nft(ruleset(nat, site))

    def next_home(self, translates: bool) -> tuple[int, str]:
        """Numbers are the internet's; addresses are the carrier's own."""
        if not translates:
            raise LabError("below a carrier's NAT there are no public addresses for an open home")
        number, _ = self.above.next_home(translates)
        return number, f"100.64.0.{number}"

    def carrier(self, name: str, nat: Nat) -> Carrier:
        """Three NATs in series: not in this lab."""
        raise LabError("a carrier below a carrier is not in the address plan")

    def attach(self, home: Home) -> None:
        """Route to the home, and have the internet route its IPv6 to here."""
        super().attach(home)
        if 6 in home.families:
            self.above.namespace.ip(
                [
                    f"route add {prefix} dev {self.line_up.name}"
                    for prefix in (f"{home.wan6}/128", home.network6)
                ]
            )


def _server_address(number: int, family: int) -> str:
    return f"203.0.113.{10 + number}" if family == 4 else f"2001:db8:ffff::{10 + number:x}"
