"""Finding addresses and gateways: the sources against each other, on this very machine."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from warpgate_core.endpoint import IP4, IP6
from warpgate_core.net import gateway, interfaces, netlink
from warpgate_core.net.gateway import Gateway, default_gateways
from warpgate_core.net.interfaces import enumerate_addresses

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with what Linux says")
needs_netifaces = pytest.mark.skipif(
    importlib.util.find_spec("netifaces") is None, reason="the netifaces extra is not installed"
)

ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
lo\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
"""
ZERO = "0" * 32
ROUTE6 = (
    f"{ZERO} 00 {ZERO} 00 20010db8000000000000000000000001 00000400 1 0 00450003     eth0\n"
    f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 1 0 00200200       lo\n"
    f"fe80{'0' * 28} 40 {ZERO} 00 {ZERO} 00000100 1 0 00000001     eth0\n"
)


def no_netlink() -> netlink.Snapshot:
    raise OSError("forbidden here")


def key(address: interfaces.LocalAddress) -> tuple[str, int, str, int]:
    return (address.name, address.index, address.host, address.prefix)


def test_the_loopback_is_found_wherever_we_run() -> None:
    (loopback,) = (address for address in enumerate_addresses() if address.host == "127.0.0.1")
    assert loopback.is_loopback
    assert loopback.prefix == 8
    assert loopback.is_up


@linux_only
def test_ifaddr_finds_the_same_as_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    by_netlink = enumerate_addresses()
    monkeypatch.setattr(netlink, "snapshot", no_netlink)
    by_ifaddr = enumerate_addresses()
    assert sorted(map(key, by_ifaddr)) == sorted(map(key, by_netlink))
    assert {(a.host, a.gateway, a.metric) for a in by_ifaddr} == {
        (a.host, a.gateway, a.metric) for a in by_netlink
    }, "the routes come from /proc then"


@linux_only
@needs_netifaces
def test_netifaces_finds_the_same_as_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    by_netlink = enumerate_addresses()
    gateways = default_gateways()
    monkeypatch.setattr(netlink, "snapshot", no_netlink)
    monkeypatch.setattr(interfaces, "_from_ifaddr", list)
    assert sorted(map(key, enumerate_addresses())) == sorted(map(key, by_netlink))
    found = {(way.family, way.host, way.interface) for way in gateway._from_netifaces()}
    assert found == {(way.family, way.host, way.interface) for way in gateways}


@linux_only
def test_gateways_agree_with_the_ip_command() -> None:
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    said = subprocess.run(
        ["ip", "-4", "route", "show", "default"], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = [way.host for way in default_gateways() if way.family is IP4]
    assert ours == [said[at + 1] for at, word in enumerate(said) if word == "via"]


def test_proc_tables_are_read_where_netlink_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "snapshot", no_netlink)
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(ROUTE6)
    assert default_gateways(proc=tmp_path) == (
        Gateway(IP4, None, "tun0", 50),
        Gateway(IP4, "192.0.2.1", "eth0", 100),
        Gateway(IP6, "2001:db8::1", "eth0", 1024),
    )


def test_without_any_source_there_is_no_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "snapshot", no_netlink)
    monkeypatch.setattr(gateway, "_from_netifaces", list)
    assert default_gateways(proc=tmp_path / "nowhere") == ()
