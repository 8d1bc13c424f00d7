"""The network in the middle, and what hangs on it: homes behind routers, servers with public addresses.

Address plan (documentation ranges throughout, RFC 5737 and RFC 3849):

==================  ==========================  ====================================
where               IPv4                        IPv6
==================  ==========================  ====================================
the middle itself   203.0.113.1/32              2001:db8:ffff::1/128
server number n     203.0.113.(10+n)/32         2001:db8:ffff::(10+n)/128
router of home n    198.51.100.n/32             2001:db8:fffe::n/128
inside home n       192.168.n.0/24 (private)    2001:db8:n::/64
inside, no NAT      192.0.2.(8n)/29             2001:db8:n::/64
==================  ==========================  ====================================

The middle drops, without a word, what comes from a source it has no route to (a private address that
some router did not translate) and what goes to where it has no route (the private address of a machine
in another home). It must be silent: a blackhole route answers the sender with EINVAL, after which coturn
relays nothing, and no route at all answers "unreachable", which real networks seldom do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.line import LINE_RULES, Delay, Line, both_ways
from tests.lab.nat import Nat, Site, ruleset
from tests.lab.services import Broker, Coturn

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["Client", "Home", "Internet"]

HOMES = 31  # as many /29 as 192.0.2.0/24 holds beside the first
SERVERS = 200  # 203.0.113.10 to .209
FIRST_MACHINE = 2  # host number of the first machine in a home; 1 is the router
ROUTER_BASICS = [
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
]
OWN_ADDRESS = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}  # the middle's, for its ICMP messages
GATEWAY6 = "fe80::1"  # of every machine in a home
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}  # `ip -batch` tells the family by the prefix alone

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

DelayArgument = float | Delay | tuple[float | Delay, float | Delay]


class Internet(Host):
    """The router in the middle.

    Args:
        lab: owner.
        families: 4, 6 or both: what it carries unless a home or server says otherwise.
    """

    def __init__(self, lab: Lab, families: tuple[int, ...]) -> None:
        super().__init__(lab, "internet")
        self.families = families
        self.homes: list[Home] = []
        self._servers = 0
        self._lines = 0
        self.namespace.script(ROUTER_BASICS)
        self.namespace.nft(LINE_RULES + MIDDLE_RULES)
        self.addresses = [OWN_ADDRESS[family] for family in self.families]
        self.namespace.ip([f"address add {address} dev lo" for address in self.addresses])

    def home(
        self,
        name: str,
        nat: Nat = Nat.OPEN,
        *,
        delay: DelayArgument = 0.0,
        loss: float | tuple[float, float] = 0.0,
        families: Iterable[int] | None = None,
        firewall6: bool | None = None,
        lan4: str | None = None,
        wan4: str | None = None,
    ) -> Client:
        """A router on its own line, and one machine behind it.

        Args:
            name: of the machine; its router is called ``<name>-router``.
            nat: what the router does to IPv4.
            delay: one way, in seconds or as a `Delay` with a rate; or (up, down).
            loss: share of packets lost on the line, 0 to 1; or (up, down).
            families: what the home has; None is what the internet carries.
            firewall6: keep unsolicited IPv6 out; None is yes, except for `Nat.OPEN`.
            lan4: inner IPv4 network (a /24, or for an open home what the internet shall route to it).
            wan4: outer IPv4 address of the router.

        Returns:
            The machine; its `home` has the router, the line, and `machine` for further ones.
        """
        number = len(self.homes) + 1
        if number > HOMES:
            raise LabError(f"the address plan has room for {HOMES} homes")
        if nat.behaviour.inner_is_public:
            inner = lan4 or f"192.0.2.{8 * number}/29"
        else:
            inner = lan4 or f"192.168.{number}.0/24"
        site = Site(
            lan="lan",
            wan="wan",
            lan4=inner,
            wan4=wan4 or f"198.51.100.{number}",
            firewall6=nat is not Nat.OPEN if firewall6 is None else firewall6,
        )
        chosen = self.families if families is None else tuple(families)
        home = Home(self, name, number, nat, site, chosen)
        home.line = self.line(home.router, "wan", delay, loss)
        home.connect(self)
        self.homes.append(home)
        return home.machine(name)

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

    def brokers(self, count: int = 3, *, delay: DelayArgument = 0.0) -> list[Broker]:
        """Real mosquitto brokers, each on a server of its own, called broker1, broker2..."""
        return [Broker(self.server(f"broker{number}", delay=delay)) for number in range(1, count + 1)]

    def coturn(self, name: str = "stun", *, delay: DelayArgument = 0.0) -> Coturn:
        """A coturn with two addresses per family: STUN with RFC 5780, and TURN."""
        return Coturn(self.server(name, addresses=2, delay=delay))


class Home:
    """A router, its line up, and the machines in its LAN.

    Attributes:
        router: the router, as a machine.
        line: its line; delay, loss and cuts are changed there.
        site: devices and addresses of the router.
    """

    line: Line

    def __init__(
        self, above: Internet, name: str, number: int, nat: Nat, site: Site, families: tuple[int, ...]
    ) -> None:
        self.nat = nat
        self.number = number
        self.site = site
        self.families = families
        self.network4 = ipaddress.IPv4Network(site.lan4)
        self.network6 = ipaddress.IPv6Network(f"2001:db8:{number:x}::/64")
        self.machines: list[Client] = []
        self.router = Host(above.lab, f"{name}-router")
        self.router.namespace.script(
            [
                *ROUTER_BASICS,
                "ip link add lan type bridge forward_delay 0 mcast_snooping 0",
                "ip link set lan up",
            ]
        )

    def connect(self, above: Internet) -> None:
        """Give the router its addresses and rules, and the network above its routes to here."""
        inside: list[str] = []
        outside: list[str] = []
        if 4 in self.families:
            inside += [
                f"address add {self.site.wan4}/32 dev wan",
                f"address add {self.network4[1]}/{self.network4.prefixlen} dev lan",
                f"route add {EVERYWHERE[4]} dev wan",
            ]
            outside.append(f"route add {self.site.wan4}/32 dev {self.line.name}")
            if self.nat.behaviour.inner_is_public:
                outside.append(f"route add {self.network4} dev {self.line.name}")
        if 6 in self.families:
            wan6 = f"2001:db8:fffe::{self.number:x}/128"
            inside += [
                f"address add {wan6} dev wan",
                f"address add {self.network6[1]}/64 dev lan",
                f"address add {GATEWAY6}/64 dev lan",
                f"route add {EVERYWHERE[6]} dev wan",
            ]
            outside += [
                f"route add {wan6} dev {self.line.name}",
                f"route add {self.network6} dev {self.line.name}",
            ]
        self.router.namespace.ip(inside)
        above.namespace.ip(outside)
        self.router.namespace.nft(ruleset(self.nat, self.site))

    def machine(self, name: str) -> Client:
        """A further machine in this LAN."""
        client = Client(self, name)
        self.machines.append(client)
        return client


class Client(Host):
    """A machine in a home, on ``eth0``."""

    def __init__(self, home: Home, name: str) -> None:
        super().__init__(home.router.lab, name)
        self.home = home
        number = FIRST_MACHINE + len(home.machines)
        orders = ["link set eth0 up"]
        port = f"port{number}"
        router = home.router.namespace
        router.ip(
            [
                f"link add {port} type veth peer name eth0 netns {self.namespace.name}",
                f"link set {port} master lan up",
            ]
        )
        if 4 in home.families:
            self.addresses.append(str(home.network4[number]))
            orders += [
                f"address add {home.network4[number]}/{home.network4.prefixlen} dev eth0",
                f"route add {EVERYWHERE[4]} via {home.network4[1]} dev eth0",
            ]
        if 6 in home.families:
            self.addresses.append(str(home.network6[number]))
            orders += [
                f"address add {home.network6[number]}/64 dev eth0",
                f"route add {EVERYWHERE[6]} via {GATEWAY6} dev eth0",
            ]
        else:
            self.namespace.script(["echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        self.namespace.ip(orders)


def _server_address(number: int, family: int) -> str:
    return f"203.0.113.{10 + number}" if family == 4 else f"2001:db8:ffff::{10 + number:x}"
