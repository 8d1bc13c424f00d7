"""Which addresses get a mapping, and which external addresses are believed."""

from __future__ import annotations

import dataclasses

import pytest

from warpgate_core import IP4, IP6, Endpoint, Filtering, Gateway, LocalInterface, Mapping, NatProfile
from warpgate_upnp.reach import Site, doubt, is_needless, sites

HOME = LocalInterface(0, "eth0", Endpoint("192.168.1.2", 4000), prefix=24)
HOME6 = LocalInterface(0, "eth0", Endpoint("2001:db8:1::2", 4000), prefix=64)
GATEWAYS = (Gateway(IP4, "192.168.1.1", "eth0", 100), Gateway(IP6, "fe80::1%2", "eth0"))


def seen(face: LocalInterface, host: str) -> LocalInterface:
    return dataclasses.replace(face, external=Endpoint(host, 5))


def test_an_address_with_a_router_of_its_family_on_its_card() -> None:
    assert sites([HOME, HOME6], GATEWAYS) == [
        Site(HOME.internal, "192.168.1.1", "eth0", 24),
        Site(HOME6.internal, "fe80::1%2", "eth0", 64),
    ]
    second = Gateway(IP4, "192.168.1.254", "eth0", 200)
    assert [site.gateway for site in sites([HOME], (*GATEWAYS, second))] == ["192.168.1.1"]
    assert sites([HOME], ()) == []
    assert sites([HOME], [Gateway(IP4, "10.0.0.1", "wlan0")]) == []
    assert sites([HOME], [Gateway(IP6, "fe80::1%2", "eth0")]) == []
    assert sites([HOME], [Gateway(IP4, None, "eth0")]) == [], "a point-to-point link has no router to ask"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.3.4", "::1", "fe80::2", "fd00::2", "fec0::1", "ff02::1", "0.0.0.0"]
)
def test_addresses_that_nobody_outside_could_use(host: str) -> None:
    face = LocalInterface(0, "eth0", Endpoint(host, 4000), prefix=64 if ":" in host else 24)
    assert sites([face], GATEWAYS) == []


def test_who_is_reached_by_everybody_needs_nothing() -> None:
    for mapping in Mapping:
        for filtering in Filtering:
            face = dataclasses.replace(HOME, nat=NatProfile(mapping, filtering))
            assert is_needless(face) is (mapping is Mapping.NONE and filtering is Filtering.EIF)


@pytest.mark.parametrize("host", ["25.1.1.1", "198.51.100.1", "10.0.0.1", "100.64.0.5"])
def test_what_stun_saw_is_believed_whatever_it_is(host: str) -> None:
    assert doubt(host, seen(HOME, host)) == ""


@pytest.mark.parametrize(
    "host", ["10.0.0.4", "172.20.0.1", "192.168.0.5", "100.64.0.5", "169.254.1.1", "192.0.0.2", "127.0.0.1"]
)
def test_a_private_address_means_another_nat(host: str) -> None:
    assert "behind a NAT" in doubt(host, HOME)
    assert "198.51.100.1" in doubt(host, seen(HOME, "198.51.100.1"))


def test_another_address_than_stun_saw_is_not_published() -> None:
    said = doubt("25.1.1.1", seen(HOME, "198.51.100.1"))
    assert "25.1.1.1" in said
    assert "198.51.100.1" in said
    assert doubt("25.1.1.1", HOME) == "", "without STUN a public address is believed"
    assert doubt("203.0.113.9", HOME) == "", "also one of a documentation range"


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_no_address_at_all(host: str) -> None:
    assert "no external address" in doubt(host, HOME)


def test_ipv6() -> None:
    assert doubt("2001:db8:1::2", HOME6) == ""
    assert doubt("2001:db8:1::2", seen(HOME6, "2001:db8:1::2")) == ""
    assert doubt("fd00::2", HOME6)
    assert doubt("2001:db8:1::2", seen(HOME6, "2001:db8:99::2")), "translated once more (RFC 6296)"


def test_on_link() -> None:
    site, six = sites([HOME, HOME6], GATEWAYS)
    assert site.is_on_link("192.168.1.77")
    assert not site.is_on_link("192.168.2.77")
    assert not site.is_on_link("2001:db8:1::1")
    assert six.is_on_link("2001:db8:1::99")
    assert six.is_on_link("fe80::99%2")
    assert not six.is_on_link("fe80::99%3")
    assert not six.is_on_link("fe80::99")
    assert not six.is_on_link("2001:db8:2::99")
    assert not six.is_on_link("192.168.1.77")
