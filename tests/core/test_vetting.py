"""Which endpoints a peer may make this node send to."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.endpoint import Endpoint
from warpgate_core.engine.vetting import Vetter
from warpgate_core.errors import VettingError
from warpgate_core.net.edge import LocalInterface


def face(host: str, prefix: int, nic: int = 0) -> LocalInterface:
    return LocalInterface(nic, f"eth{nic}", Endpoint(host, 7), prefix=prefix)


HOME = Vetter(
    (face("192.168.1.5", 24), face("2001:db8::5", 64), face("172.16.0.9", 30, 1), face("10.0.0.1", 31, 2)),
    frozenset({Endpoint("203.0.113.10", 1883), Endpoint("2001:db8:1::10", 3478)}),
)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "192.168.1.6",  # private networks are the point
        "10.1.2.3",
        "100.64.0.1",  # carrier-grade NAT, RFC 6598
        "169.254.7.7",
        "203.0.113.7",  # documentation: what labs use
        "198.51.100.1",
        "192.168.1.5",  # ourselves: harmless, and behind hairpinning NATs it may be the peer
        "223.255.255.254",  # the last one below multicast
        "2001:db8::1",
        "fd00::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111",
    ],
)
def test_addresses_of_one_machine_are_sent_to(host: str) -> None:
    endpoint = Endpoint(host, 40000)
    assert HOME.check(endpoint) is endpoint


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("::1", "loopback"),
        ("224.0.0.251", "multicast"),
        ("239.255.255.250", "multicast"),
        ("ff02::1", "multicast"),
        ("ff02::1%eth0", "multicast"),
        ("ff05::2", "multicast"),
        ("0.0.0.0", "not an address of one machine"),
        ("0.1.2.3", "not an address of one machine"),
        ("240.0.0.1", "not an address of one machine"),
        ("255.255.255.255", "not an address of one machine"),
        ("::", "not an address of one machine"),
        ("192.168.1.255", "broadcast"),
        ("192.168.1.0", "broadcast"),
        ("172.16.0.11", "broadcast"),
        ("172.16.0.8", "broadcast"),
        ("::ffff:127.0.0.1", "IPv4 address in IPv6 clothes"),
        ("::ffff:192.168.1.6", "IPv4 address in IPv6 clothes"),
        ("::ffff:c0a8:106", "IPv4 address in IPv6 clothes"),
        ("::7f00:1", "IPv4 address in IPv6 clothes"),
        ("::c0a8:1ff", "IPv4 address in IPv6 clothes"),
    ],
)
def test_what_is_no_single_machine_of_somebody_else_is_not(host: str, why: str) -> None:
    with pytest.raises(VettingError, match=why):
        HOME.check(Endpoint(host, 40000))


@pytest.mark.parametrize("host", ["192.168.1.255", "172.16.0.10", "172.16.1.11", "10.0.0.0", "10.0.0.1"])
def test_a_broadcast_address_is_one_of_our_own_links_only(host: str) -> None:
    elsewhere = Vetter((face("192.168.7.5", 24), face("10.0.0.1", 31), face("10.3.0.1", 32)), frozenset())
    assert elsewhere.check(Endpoint(host, 40000)).host == host


def test_an_interface_without_a_known_prefix_has_no_broadcast_address() -> None:
    assert Vetter((face("192.168.1.5", 0),), frozenset()).check(Endpoint("192.168.1.255", 9))


@pytest.mark.parametrize("port", [0, -1, 65_536, 1_000_000])
def test_ports_are_real(port: int) -> None:
    with pytest.raises(VettingError, match="no usable port"):
        HOME.check(Endpoint("203.0.113.7", port))


@pytest.mark.parametrize("port", [1, 443, 65_535])
def test_any_real_port_will_do(port: int) -> None:
    assert HOME.check(Endpoint("203.0.113.7", port)).port == port


@pytest.mark.parametrize(
    "host", ["", "localhost", "example.org", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "::1::"]
)
def test_names_and_half_addresses_are_refused(host: str) -> None:
    with pytest.raises(VettingError, match="not a numeric address"):
        HOME.check(Endpoint(host, 9))


def test_loopback_is_for_nodes_that_listen_there() -> None:
    here = Vetter((face("127.0.0.1", 8),), frozenset())
    assert here.check(Endpoint("127.0.0.1", 9))
    assert here.check(Endpoint("::1", 9))


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("203.0.113.10", 1883),
        Endpoint("2001:db8:1::10", 3478),
        Endpoint("2001:0db8:0001:0::10", 3478),  # however it is written
        Endpoint("2001:DB8:1::10", 3478),
    ],
)
def test_our_own_servers_are_left_alone(endpoint: Endpoint) -> None:
    with pytest.raises(VettingError, match="own servers"):
        HOME.check(endpoint)
    assert HOME.check(Endpoint(endpoint.host, endpoint.port + 1)), "another port there is another service"


def test_the_error_says_who_named_it() -> None:
    with pytest.raises(VettingError, match=r"\[::1\]:9 was named by the peer and is not sent to: loopback"):
        HOME.check(Endpoint("::1", 9))


@given(st.ip_addresses(), st.integers(-5, 70_000))
def test_any_address_gives_itself_or_a_vetting_error(ip: object, port: int) -> None:
    endpoint = Endpoint(str(ip), port)
    try:
        assert HOME.check(endpoint) is endpoint
    except VettingError:
        return
    assert 0 < port < 65_536
    assert not endpoint.ip.is_multicast
    assert not endpoint.ip.is_loopback
    assert not endpoint.ip.is_unspecified


@given(st.text(max_size=40))
def test_any_text_as_host_gives_itself_or_a_vetting_error(host: str) -> None:
    with contextlib.suppress(VettingError):
        assert HOME.check(Endpoint(host, 9)).host == host
