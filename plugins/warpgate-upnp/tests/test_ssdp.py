"""SSDP: what routers say is read, what others say is left alone, and restarts are told from repetition."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import Endpoint, ProtocolError
from warpgate_upnp import ssdp
from warpgate_upnp.ssdp import Found, Notice, NoticeKind, Sightings, parse_found, parse_notice, search

IGD2 = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"


def test_a_search_is_what_the_architecture_says() -> None:
    assert search(Endpoint("239.255.255.250", 1900), IGD2) == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\n\r\n"
    )
    assert b"\r\nHOST: [ff02::c]:1900\r\n" in search(Endpoint("ff02::c%7", 1900), IGD2)


def test_recorded_answers(recorded: dict[str, bytes]) -> None:
    four = parse_found(recorded["igd2-ssdp4"])
    assert four is not None
    assert four.target == IGD2
    assert four.location.endpoint.host == "192.168.1.1"
    assert four.location.target == "/rootDesc.xml"
    assert four.boot.isdigit()
    six = parse_found(recorded["igd2-ssdp6"])
    assert six is not None
    assert six.location.endpoint.host == "2001:db8:1::1"
    with pytest.raises(ProtocolError):
        parse_notice(recorded["igd2-ssdp4"])


def test_recorded_announcements(recorded: dict[str, bytes]) -> None:
    for family, host in (("4", "192.168.1.1"), ("6", "[2001:db8:1::1]")):
        alive = parse_notice(recorded[f"igd2-notify{family}-alive"])
        assert alive is not None
        assert (alive.kind, alive.type) == (NoticeKind.ALIVE, IGD2)
        assert alive.location.startswith(f"http://{host}:")
        bye = parse_notice(recorded[f"igd2-notify{family}-byebye"])
        assert bye is not None
        assert (bye.kind, bye.type, bye.location) == (NoticeKind.BYEBYE, IGD2, "")
        with pytest.raises(ProtocolError):
            parse_found(recorded[f"igd2-notify{family}-alive"])


def test_other_devices_are_none_of_ours(recorded: dict[str, bytes]) -> None:
    for other in (b"urn:schemas-upnp-org:device:MediaServer:1", b"upnp:rootdevice", b"x" * 300):
        assert parse_found(recorded["igd2-ssdp4"].replace(IGD2.encode(), other)) is None
        assert parse_notice(recorded["igd2-notify4-alive"].replace(IGD2.encode(), other)) is None


@pytest.mark.parametrize(
    "change",
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 200"),
        (b"LOCATION: http", b"LOCATION: ftp"),
        (b"LOCATION", b"ELSEWHERE"),
        (b"http://192.168.1.1", b"http://router.example"),
    ],
)
def test_damaged_answers(recorded: dict[str, bytes], change: tuple[bytes, bytes]) -> None:
    data = recorded["igd2-ssdp4"].replace(*change)
    if change[1] == b"HTTP/1.1 200":
        assert parse_found(data) is not None
        return
    with pytest.raises(ProtocolError):
        parse_found(data)


def test_an_unknown_kind_of_announcement(recorded: dict[str, bytes]) -> None:
    with pytest.raises(ProtocolError):
        parse_notice(recorded["igd2-notify4-alive"].replace(b"ssdp:alive", b"ssdp:maybe"))


@pytest.mark.parametrize("parse", [parse_found, parse_notice])
@given(data=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(parse: object, data: bytes) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n"):
        with contextlib.suppress(ProtocolError):
            parse(start + data)  # type: ignore[operator]


def test_a_long_datagram_is_refused(recorded: dict[str, bytes]) -> None:
    with pytest.raises(ProtocolError):
        parse_found(recorded["igd2-ssdp4"] + b"x" * ssdp.MAX_DATAGRAM)


def test_every_cut_of_an_answer(recorded: dict[str, bytes]) -> None:
    data = recorded["igd2-ssdp4"]
    for end in range(len(data)):
        with contextlib.suppress(ProtocolError):
            parse_found(data[:end])


def alive(location: str = "http://192.168.1.1:1/d", boot: str = "1", kind: str = IGD2) -> Notice:
    return Notice(NoticeKind.ALIVE, kind, location, boot)


def test_a_restart_is_another_boot_number_or_another_location() -> None:
    for changed in (alive(boot="2"), alive("http://192.168.1.1:2/d")):
        seen = Sightings()
        assert seen.observe(alive()), "nobody knows what it was before"
        assert not seen.observe(alive())
        assert seen.observe(changed)
        assert not seen.observe(changed)


def test_the_answer_to_our_own_search_counts(recorded: dict[str, bytes]) -> None:
    seen = Sightings()
    found = parse_found(recorded["igd2-ssdp4"])
    assert found is not None
    seen.learn(found)
    assert not seen.observe(alive(str(found.location), found.boot))
    assert seen.observe(alive(str(found.location), "another"))


def test_a_goodbye_always_counts_and_what_comes_after_is_compared_with_what_was_before() -> None:
    seen = Sightings()
    assert seen.observe(Notice(NoticeKind.BYEBYE, IGD2))
    seen.observe(alive())
    assert seen.observe(Notice(NoticeKind.BYEBYE, IGD2))
    assert not seen.observe(alive())
    assert seen.observe(alive(boot="2"))


def test_several_devices_of_one_router_are_not_confused() -> None:
    seen, other = Sightings(), "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    seen.observe(alive())
    seen.observe(alive("http://192.168.1.1:9/other", kind=other))
    assert not seen.observe(alive("http://192.168.1.1:9/other", kind=other))
    assert not seen.observe(alive())
    assert sum(seen.observe(alive(kind=f"kind {number}")) for number in range(100)) == ssdp.MAX_TYPES - 2
    assert len(seen._seen) == ssdp.MAX_TYPES
    assert seen.observe(alive(boot="2"))


def test_a_found_device_without_boot_number() -> None:
    location = b"LOCATION: http://192.168.1.1:1/d\r\n"
    found = parse_found(b"HTTP/1.1 200 OK\r\n" + location + b"ST: " + IGD2.encode() + b"\r\n\r\n")
    assert isinstance(found, Found)
    assert found.boot == ""
