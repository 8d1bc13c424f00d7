"""A home: a router, and the machines in its LAN."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tests.lab.host import Host
from tests.lab.line import Line
from tests.lab.nat import Nat, ruleset
from tests.lab.nat_rules import Site

if TYPE_CHECKING:
    from tests.lab.trunk import Trunk

__all__ = ["EVERYWHERE", "ROUTER_BASICS", "Client", "Home", "mapping_lifetime"]

FIRST_MACHINE = 2  # host number of the first machine in a home; 1 is the router
GATEWAY6 = "fe80::1"  # of every machine in a home
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}  # `ip -batch` tells the family by the prefix alone
ROUTER_BASICS = [
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
]


class Home:
    """A router with its line up, and the machines in its LAN.

    Args:
        above: the network its line goes to.
        name: of the first machine; the router is called ``<name>-router``.
        number: unique in the whole internet.
        nat: what the router does to IPv4.
        site: devices, addresses and habits of the router.
        families: 4, 6 or both.

    Attributes:
        router: the router, as a machine.
        line: its line; delay, loss and cuts are changed there.
    """

    line: Line

    def __init__(
        self, above: Trunk, name: str, number: int, nat: Nat, site: Site, families: tuple[int, ...]
    ) -> None:
        self.above = above
        self.nat = nat
        self.number = number
        self.site = site
        self.families = families
        self.network4 = ipaddress.IPv4Network(site.lan4)
        self.network6 = ipaddress.IPv6Network(f"2001:db8:{number:x}::/64")
        self.wan6 = f"2001:db8:fffe::{number:x}"
        self.machines: list[Client] = []
        self.router = Host(above.lab, f"{name}-router")
        self.router.namespace.script(
            [
                *ROUTER_BASICS,
                *mapping_lifetime(site.lifetime),
                "ip link add lan type bridge forward_delay 0 mcast_snooping 0",
                "ip link set lan up",
            ]
        )

    @property
    def outer4(self) -> str:
        """The IPv4 address that the internet sees traffic from this home come from, if it is translated."""
        return self.above.outer4 or self.site.wan4

    def connect(self, line: Line) -> None:
        """Put the router on its line: addresses, default routes, rules."""
        self.line = line
        orders: list[str] = []
        if 4 in self.families:
            orders += [
                f"address add {self.site.wan4}/32 dev wan",
                f"address add {self.network4[1]}/{self.network4.prefixlen} dev lan",
                f"route add {EVERYWHERE[4]} dev wan",
            ]
        if 6 in self.families:
            orders += [
                f"address add {self.wan6}/128 dev wan",
                f"address add {self.network6[1]}/64 dev lan",
                f"address add {GATEWAY6}/64 dev lan",
                f"route add {EVERYWHERE[6]} dev wan",
            ]
        self.router.namespace.ip(orders)
        self.router.namespace.nft(ruleset(self.nat, self.site))

    def machine(self, name: str) -> Client:
        """A further machine in this LAN."""
        client = Client(self, name)
        self.machines.append(client)
        return client


class Client(Host):
    """A machine in a home, on ``eth0``.

    Args:
        home: whose LAN it is in.
        name: unique in the lab.
    """

    def __init__(self, home: Home, name: str) -> None:
        super().__init__(home.router.lab, name)
        self.home = home
        number = FIRST_MACHINE + len(home.machines)
        orders = ["link set eth0 up"]
        port = f"port{number}"
        home.router.namespace.ip(
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


def mapping_lifetime(seconds: int) -> list[str]:
    """Shell lines: how long the router's connection tracking keeps an idle UDP mapping."""
    folder = "/proc/sys/net/netfilter"
    return [f"echo {seconds} > {folder}/nf_conntrack_udp_timeout{kind}" for kind in ("", "_stream")]
