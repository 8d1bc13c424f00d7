"""Endpoints: what the socket module hands out, and what people type."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.endpoint import IP4, IP6, Endpoint, Family
from warpgate_core.errors import InputError

ports = st.integers(0, 65535)
ips = st.one_of(
    st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address),
    st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
)


def test_it_is_the_tuple_that_sockets_use() -> None:
    endpoint = Endpoint("127.0.0.1", 80)
    assert endpoint == ("127.0.0.1", 80)
    assert {endpoint: 1}[("127.0.0.1", 80)] == 1  # type: ignore[index]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert Endpoint.of(sock.getsockname()) == sock.getsockname()


def test_families() -> None:
    assert Endpoint("192.0.2.1", 1).family is IP4 is Family.IP4
    assert Endpoint("2001:db8::1", 1).family is IP6 is Family.IP6
    assert (IP4, IP6) == (4, 6)
    assert IP4.socket_family is socket.AF_INET
    assert IP6.socket_family is socket.AF_INET6
    assert Endpoint("2001:db8::1", 1).ip == ipaddress.IPv6Address("2001:db8::1")


@pytest.mark.parametrize(
    ("sockaddr", "endpoint"),
    [
        (("192.0.2.1", 5), ("192.0.2.1", 5)),
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5)),
        (("2001:db8::1", 5, 0, 0), ("2001:db8::1", 5)),
        (("2001:db8::1", 5, 0, 3), ("2001:db8::1", 5)),
        (("fe80::1", 5, 0, 3), ("fe80::1%3", 5)),
        (("fe80::1%eth0", 5, 0, 3), ("fe80::1%eth0", 5)),
        (("fe80::1", 5, 0, 0), ("fe80::1", 5)),
    ],
)
def test_from_what_sockets_hand_out(sockaddr: tuple[object, ...], endpoint: tuple[str, int]) -> None:
    assert Endpoint.of(sockaddr) == endpoint


@given(ips, ports)
def test_text_comes_back(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    endpoint = Endpoint(str(ip), port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(f" {endpoint}\n", default_port=7) == endpoint
    assert Endpoint.parse(str(ip), default_port=port) == endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("[2001:DB8:0::1]:5", ("2001:db8::1", 5)),
        ("2001:db8::5", ("2001:db8::5", 9)),
        ("[2001:db8::5]", ("2001:db8::5", 9)),
        ("192.0.2.1", ("192.0.2.1", 9)),
        ("[fe80::1%2]:5", ("fe80::1%2", 5)),
    ],
)
def test_what_people_type(text: str, endpoint: tuple[str, int]) -> None:
    assert Endpoint.parse(text, default_port=9) == endpoint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no port"),
        ("192.0.2.1", "no port"),
        ("2001:db8::1", "no port"),
        ("[2001:db8::1]", "no port"),
        ("example.org:80", "not a numeric address"),
        ("010.0.0.1:80", "not a numeric address"),
        (":80", "not a numeric address"),
        ("192.0.2.1:", "no usable port"),
        ("192.0.2.1:65536", "no usable port"),
        ("192.0.2.1:-1", "no usable port"),
        ("192.0.2.1:x", "no usable port"),
        ("192.0.2.1:\u0661", "no usable port"),  # an Arabic digit
        ("[2001:db8::1]:", "no usable port"),
        ("[2001:db8::1:5", "not a numeric address"),
    ],
)
def test_what_is_no_endpoint_says_why(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Endpoint.parse(text)


@given(st.text(max_size=40), st.one_of(st.none(), ports))
def test_any_text_is_an_endpoint_or_the_typed_error(text: str, default: int | None) -> None:
    try:
        endpoint = Endpoint.parse(text, default)
    except InputError:
        return
    assert 0 <= endpoint.port <= 65535
    assert str(endpoint.ip) == endpoint.host
