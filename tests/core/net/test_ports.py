"""One port number for UDP and TCP, the same on every address if it can be had."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError
from warpgate_core.net import ports
from warpgate_core.net.ports import bind_pair, bind_pairs, bind_tcp, bind_udp, sockaddr


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_pair_has_one_number(host: str) -> None:
    pair = bind_pair(host)
    try:
        assert pair.udp.getsockname()[:2] == pair.tcp.getsockname()[:2] == tuple(pair.endpoint)
        assert not pair.udp.getblocking()
        assert not pair.tcp.getblocking()
    finally:
        pair.close()


def test_all_addresses_get_the_same_number() -> None:
    pairs = bind_pairs(["127.0.0.1", "127.0.0.2", "::1"])
    try:
        assert len({pair.endpoint.port for pair in pairs}) == 1
        assert [pair.endpoint.host for pair in pairs] == ["127.0.0.1", "127.0.0.2", "::1"]
    finally:
        for pair in pairs:
            pair.close()


def test_two_nodes_never_share_a_number() -> None:
    first = bind_pair("127.0.0.1")
    try:
        with pytest.raises(NetworkError, match=f"port {first.endpoint.port} on 127.0.0.1 is taken"):
            bind_pair("127.0.0.1", first.endpoint.port)
    finally:
        first.close()


def test_a_number_taken_for_tcp_alone_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(NetworkError, match="taken by another program"),
    ):
        bind_pair("127.0.0.1", other.getsockname()[1])


def test_a_number_that_tcp_does_not_get_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def taken_twice(host: str, port: int) -> socket.socket:
        asked.append(port)
        if len(asked) <= 2:
            raise OSError(errno.EADDRINUSE, "taken")
        return bind_tcp(host, port)

    monkeypatch.setattr(ports, "bind_tcp", taken_twice)
    pair = bind_pair("127.0.0.1")
    pair.close()
    assert len(asked) == 3
    assert pair.endpoint.port == asked[2]


def test_if_no_number_is_free_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(host: str, port: int) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(ports, "bind_tcp", taken)
    with pytest.raises(NetworkError, match=r"no port on 127\.0\.0\.1 is free for both"):
        bind_pair("127.0.0.1")
    with pytest.raises(NetworkError, match=r"no port on 127\.0\.0\.1 is free for both"):
        bind_pairs(["127.0.0.1", "127.0.0.2"])


def test_addresses_get_numbers_of_their_own_if_none_is_free_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def never_the_same_twice(host: str, port: int) -> socket.socket:
        if port in used:
            raise OSError(errno.EADDRINUSE, "taken")
        used.append(port)
        return bind_tcp(host, port)

    monkeypatch.setattr(ports, "bind_tcp", never_the_same_twice)
    one, two = bind_pairs(["127.0.0.1", "127.0.0.2"])
    one.close()
    two.close()
    assert one.endpoint.port != two.endpoint.port


def test_a_strange_address_is_a_clear_error() -> None:
    with pytest.raises(NetworkError, match=r"192\.0\.2\.77 is not an address of this machine"):
        bind_pairs(["127.0.0.1", "192.0.2.77"])


def test_ipv6_sockets_take_no_ipv4() -> None:
    with bind_udp("::1") as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_scope_becomes_a_number() -> None:
    index = socket.if_nametoindex("lo")
    assert sockaddr(Endpoint("fe80::1%lo", 5)) == ("fe80::1", 5, 0, index)
    assert sockaddr(Endpoint(f"fe80::1%{index}", 5)) == ("fe80::1", 5, 0, index)
    assert sockaddr(Endpoint("fe80::1", 5)) == ("fe80::1", 5)
    with pytest.raises(NetworkError, match="no network card 'tun77'"):
        sockaddr(Endpoint("fe80::1%tun77", 5))
