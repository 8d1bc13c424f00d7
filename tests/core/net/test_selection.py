"""Which addresses are used: the rules of `selection` as tables."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from socket import AF_INET, AF_INET6
from typing import Any

import pytest

from warpgate_core.endpoint import IP4, IP6
from warpgate_core.errors import ConfigError
from warpgate_core.net.interfaces import LocalAddress
from warpgate_core.net.selection import MAX_ADDRESSES, NicWish, choose, read_wishes

LO4 = LocalAddress("lo", 1, "127.0.0.1", 8, is_loopback=True)
LO6 = LocalAddress("lo", 1, "::1", 128, is_loopback=True)
ETH = LocalAddress("eth0", 2, "192.0.2.2", 24, gateway="192.0.2.1", metric=100)
ETH6 = LocalAddress("eth0", 2, "2001:db8::2", 64, gateway="fe80::1%2", metric=100)
ETH_LL = LocalAddress("eth0", 2, "fe80::2%2", 64, metric=100)
WLAN = LocalAddress("wlan0", 3, "198.51.100.9", 24, gateway="198.51.100.1", metric=600)
DOCKER = LocalAddress("docker0", 4, "172.17.0.1", 16, kind="bridge")
AUTO = LocalAddress("eth1", 5, "169.254.7.7", 16)
AUTO_LL = LocalAddress("eth1", 5, "fe80::5%5", 64)


def hosts(*addresses: LocalAddress, wish: object = None, **options: Any) -> list[str]:
    return [address.host for address in choose(addresses, read_wishes(wish), **options)]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([LO4, LO6, ETH, ETH6, ETH_LL], ["192.0.2.2", "2001:db8::2"]),
        ([WLAN, ETH, LO4], ["192.0.2.2", "198.51.100.9"]),  # the lower metric first
        ([DOCKER, ETH], ["192.0.2.2"]),
        ([DOCKER, LO4], ["172.17.0.1"]),  # no card leads outside: better than nothing
        ([AUTO, AUTO_LL, ETH], ["192.0.2.2"]),
        ([AUTO, AUTO_LL, LO4], ["fe80::5%5"]),
        ([AUTO, LO4, LO6], ["127.0.0.1", "::1"]),
        ([LO4, LO6], ["127.0.0.1", "::1"]),
        ([], []),
    ],
)
def test_without_a_wish(addresses: list[LocalAddress], expected: list[str]) -> None:
    assert hosts(*addresses) == expected


def test_a_card_that_is_down_is_not_used() -> None:
    down = LocalAddress("eth9", 9, "192.0.2.99", 24, is_up=False)
    assert hosts(down, ETH) == ["192.0.2.2"]
    assert hosts(down, ETH, wish="eth9") == []


def test_a_bridge_that_leads_outside_is_a_card_like_any_other() -> None:
    bridge = LocalAddress("br0", 4, "192.0.2.3", 24, kind="bridge", gateway="192.0.2.1", metric=0)
    assert hosts(bridge, DOCKER) == ["192.0.2.3"]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"host": "2001:db8::1"}, {"host": "2001:db8::2", "is_temporary": True}),
        ({"host": "2001:db8::1"}, {"host": "fd00::1"}),
        ({"host": "fd00::1"}, {"host": "2001:db8::1", "is_deprecated": True}),
        ({"host": "2001:db8::1", "is_temporary": True}, {"host": "2001:db8::216:3eff:fe00:1"}),
        ({"host": "192.0.2.1"}, {"host": "192.0.2.9", "is_temporary": True}),  # a secondary IPv4 address
        ({"host": "192.0.2.9"}, {"host": "192.0.2.1", "is_deprecated": True}),
    ],
)
def test_of_several_addresses_on_a_card(better: dict[str, Any], worse: dict[str, Any]) -> None:
    one, two = (LocalAddress("eth0", 2, prefix=64, **fields) for fields in (better, worse))
    assert hosts(one, two) == hosts(two, one) == [better["host"]]


def test_an_address_still_being_checked_is_not_used() -> None:
    tentative = LocalAddress("eth0", 2, "2001:db8::3", 64, is_valid=False)
    assert hosts(ETH, tentative) == ["192.0.2.2"]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("lo", ["127.0.0.1", "::1"]),
        ("eth1", ["169.254.7.7", "fe80::5%5"]),
        ("docker0", ["172.17.0.1"]),
        ("198.51.100.9", ["198.51.100.9"]),
        ("[2001:db8::2]", ["2001:db8::2"]),
        ("127.0.0.77", ["127.0.0.77"]),  # all of 127/8 is there without being listed
        ("fe80::5", ["fe80::5%5"]),
        ("fe80::5%eth1", ["fe80::5%5"]),
        ("fe80::5%eth0", []),
        (["lo", "eth0"], ["192.0.2.2", "2001:db8::2", "127.0.0.1", "::1"]),
        (["eth0", "192.0.2.2"], ["192.0.2.2", "2001:db8::2"]),
        ("tun9", []),
        ("203.0.113.1", []),
        ("default", ["192.0.2.2", "2001:db8::2", "198.51.100.9"]),
        ("", ["192.0.2.2", "2001:db8::2", "198.51.100.9"]),
    ],
)
def test_with_a_wish(wish: object, expected: list[str]) -> None:
    assert hosts(LO4, LO6, ETH, ETH6, ETH_LL, WLAN, DOCKER, AUTO, AUTO_LL, wish=wish) == expected


def test_families() -> None:
    assert hosts(ETH, ETH6, families=[IP4]) == ["192.0.2.2"]
    assert hosts(ETH, ETH6, families=[IP6]) == ["2001:db8::2"]
    assert hosts(ETH, LO6, families=[IP6]) == ["::1"]


def test_the_number_of_addresses_is_bounded() -> None:
    many = [LocalAddress(f"eth{n}", n, f"192.0.2.{n}", 24) for n in range(1, 60)]
    assert len(hosts(*many)) == MAX_ADDRESSES


@dataclass
class Nic:
    """What aionetiface's `Interface` looks like from here."""

    name: Any


@dataclass
class Group:
    """What aionetiface's `AFGroup` looks like from here."""

    by_af: dict[int, Nic]


def test_objects_with_a_name_are_wishes() -> None:
    assert read_wishes(Nic("wlan0")) == (NicWish(name="wlan0"),)
    assert read_wishes([Nic("wlan0"), "eth0"]) == (NicWish(name="wlan0"), NicWish(name="eth0"))
    assert read_wishes(Nic("default")) == read_wishes(Nic(None)) == ()


def test_a_group_has_a_card_per_family() -> None:
    group = Group({2: Nic("wlan0"), 10: Nic("eth0")})
    assert hosts(ETH, ETH6, WLAN, wish=group) == ["2001:db8::2", "198.51.100.9"]


@pytest.mark.parametrize("nonsense", [5, object(), [3.5], Nic(7)])
def test_nonsense_is_a_clear_error(nonsense: object) -> None:
    with pytest.raises(ConfigError, match="nics="):
        read_wishes(nonsense)


@pytest.mark.skipif(find_spec("aionetiface") is None, reason="the aionetiface extra is not installed")
def test_real_aionetiface_objects_are_wishes() -> None:
    from aionetiface import AFGroup, Interface

    card = Interface("lo")
    assert read_wishes(card) == (NicWish(name="lo"),)
    group = AFGroup.__new__(AFGroup)
    group.by_af = {AF_INET: card, AF_INET6: card}  # its own constructor wants cards that were started online
    assert read_wishes(group) == (NicWish("lo", family=IP4), NicWish("lo", family=IP6))
