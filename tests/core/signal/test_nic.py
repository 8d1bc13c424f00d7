"""Ways to say which card to go out by."""

from __future__ import annotations

import socket

import pytest

from warpgate_core.endpoint import IP4, IP6
from warpgate_core.errors import ConfigError
from warpgate_core.net.interfaces import LocalAddress
from warpgate_core.signal.nic import ANY, parse_nic

CARDS = (
    LocalAddress("eth0", 2, "192.0.2.7", 24),
    LocalAddress("eth0", 2, "fe80::1%2", 64),
    LocalAddress("eth0", 2, "2001:db8::dead", 64, is_temporary=True),
    LocalAddress("eth0", 2, "2001:db8::7", 64),
    LocalAddress("wlan0", 3, "192.0.2.99", 24, is_deprecated=True),
    LocalAddress("tun0", 4, "fe80::4%4", 64),
)


class Interface:
    """As aionetiface has it: families, an address for each, a name."""

    name = "eth0"

    def what_afs(self) -> list[int]:
        return [socket.AF_INET, socket.AF_INET6]

    def nic(self, af: int) -> str:
        return {socket.AF_INET: "192.0.2.7", socket.AF_INET6: "2001:db8::7"}[socket.AddressFamily(af)]


class Unresolved(Interface):
    def what_afs(self) -> list[int]:
        raise ValueError("interface is not resolved")


class Group(Interface):
    """AFGroup: no name, and IPv4 alone."""

    name = ""

    def what_afs(self) -> list[int]:
        return [socket.AF_INET]


def test_nothing_lets_the_system_choose() -> None:
    assert parse_nic(None) is ANY
    assert ANY.allows(IP4)
    assert ANY.allows(IP6)
    assert ANY.local(IP4) is None
    assert str(ANY) == "this machine"


def test_an_address_is_itself() -> None:
    binding = parse_nic("2001:DB8::7")
    assert binding.local(IP6) == "2001:db8::7"
    assert binding.allows(IP6)
    assert not binding.allows(IP4)


def test_a_name_is_its_stable_addresses() -> None:
    binding = parse_nic("eth0", lambda: CARDS)
    assert dict(binding.hosts) == {IP4: "192.0.2.7", IP6: "2001:db8::7"}
    assert binding.index == 2
    assert parse_nic(binding) is binding


def test_this_machine_has_a_loopback() -> None:
    assert parse_nic("lo").local(IP4) == "127.0.0.1"


@pytest.mark.parametrize(("nic", "words"), [("eth9", "it has eth0, wlan0, tun0"), ("tun0", "no address")])
def test_a_card_that_does_not_do(nic: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_nic(nic, lambda: CARDS)


def test_aionetiface_objects_by_what_they_can_do() -> None:
    assert dict(parse_nic(Interface()).hosts) == {IP4: "192.0.2.7", IP6: "2001:db8::7"}
    group = parse_nic(Group())
    assert (str(group), group.allows(IP6)) == ("Group", False)


def test_an_interface_that_was_not_awaited_says_so() -> None:
    with pytest.raises(ConfigError, match="await Interface"):
        parse_nic(Unresolved())


@pytest.mark.parametrize("nic", [5, object(), b"eth0"])
def test_anything_else_is_refused(nic: object) -> None:
    with pytest.raises(ConfigError, match="network card"):
        parse_nic(nic)
