"""IGD: descriptions, calls and answers, as miniupnpd sends them and as others might."""

from __future__ import annotations

import re

import pytest

from warpgate_core import Endpoint, ProtocolError
from warpgate_upnp import igd
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.http import Response, ResponseReader, Url
from warpgate_upnp.igd import CONNECTIONS, FIREWALL, Call, Entry, Service

LOCATION = Url(Endpoint("192.168.1.1", 5000), "/rootDesc.xml")
WAN2 = Service(CONNECTIONS[0], Url(LOCATION.endpoint, "/ctl/IPConn"))
PINHOLES = Service(FIREWALL, Url(LOCATION.endpoint, "/ctl/IP6FCtl"))
CLIENT = ("192.168.1.2", 4000)


def response(data: bytes) -> Response:
    reader = ResponseReader()
    reader.feed(data)
    assert reader.response is not None
    return reader.response


def description(*services: tuple[str, str], base: str = "") -> bytes:
    inside = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        for kind, url in services
    )
    return (
        f'<root xmlns="urn:schemas-upnp-org:device-1-0">{base}<device><deviceList><device><serviceList>'
        f"{inside}"
        "</serviceList></device></deviceList></device></root>"
    ).encode()


def test_recorded_descriptions(recorded: dict[str, bytes]) -> None:
    two = igd.parse_services(response(recorded["igd2-description.http"]).body, LOCATION)
    assert two == [WAN2, PINHOLES]
    one = igd.parse_services(response(recorded["igd1-description.http"]).body, LOCATION)
    assert one == [Service(CONNECTIONS[1], WAN2.control)]


def test_the_preferred_service_comes_first_and_strangers_are_left_out() -> None:
    document = description(
        (CONNECTIONS[2], "/ppp"), (FIREWALL, "/six"), (CONNECTIONS[1], "ip"), ("urn:evil#x\r\nA: b", "/evil")
    )
    kinds = [(service.type, service.control.target) for service in igd.parse_services(document, LOCATION)]
    assert kinds == [(CONNECTIONS[1], "/ip"), (CONNECTIONS[2], "/ppp"), (FIREWALL, "/six")]


def test_a_base_url_on_the_same_host_counts() -> None:
    document = description((CONNECTIONS[1], "ctl"), base="<URLBase>http://192.168.1.1:81/a/</URLBase>")
    (service,) = igd.parse_services(document, LOCATION)
    assert service.control == Url(Endpoint("192.168.1.1", 81), "/a/ctl")


@pytest.mark.parametrize(
    "document",
    [
        description((CONNECTIONS[1], "http://203.0.113.5/ctl")),
        description((CONNECTIONS[1], "//203.0.113.5/ctl")),
        description((CONNECTIONS[1], "/ctl"), base="<URLBase>http://203.0.113.5/</URLBase>"),
        description((CONNECTIONS[1], "/ctl"), base="<URLBase>nonsense</URLBase>"),
        description((CONNECTIONS[1], "")),
        description((CONNECTIONS[1], "/a&#13;&#10;Evil: 1")),
        b"<!DOCTYPE a><root/>",
    ],
)
def test_a_device_that_points_elsewhere_is_refused(document: bytes) -> None:
    with pytest.raises(ProtocolError):
        igd.parse_services(document, LOCATION)


def test_many_services_are_bounded() -> None:
    document = description(*[(CONNECTIONS[1], f"/{number}") for number in range(50)])
    assert len(igd.parse_services(document, LOCATION)) == igd.MAX_SERVICES


def test_a_call_on_the_wire() -> None:
    call = igd.add_mapping(WAN2, "tcp", 4001, CLIENT, 600, "me <&> you")
    head, _, body = call.data.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ctl/IPConn HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")
    assert b'\r\nSOAPAction: "urn:schemas-upnp-org:service:WANIPConnection:2#AddPortMapping"' in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    names = re.findall(rb"<(New\w+)>", body)
    assert names == [
        b"NewRemoteHost", b"NewExternalPort", b"NewProtocol", b"NewInternalPort", b"NewInternalClient",
        b"NewEnabled", b"NewPortMappingDescription", b"NewLeaseDuration",
    ]  # fmt: skip
    assert b"<NewPortMappingDescription>me &lt;&amp;&gt; you</NewPortMappingDescription>" in body
    assert b"<NewProtocol>TCP</NewProtocol>" in body


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (igd.external_address(WAN2), "external"),
        (igd.add_any_mapping(WAN2, "tcp", 4000, CLIENT, 600, "x"), "add-any"),
        (igd.add_mapping(WAN2, "tcp", 4001, CLIENT, 600, "x"), "add"),
        (igd.delete_mapping(WAN2, "tcp", 4001), "delete"),
        (igd.generic_entry(WAN2, 0), "entry"),
        (igd.add_pinhole(PINHOLES, "udp", ("2001:db8::2", 4000), 600), "pinhole-add"),
        (igd.update_pinhole(PINHOLES, 1, 600), "pinhole-update"),
        (igd.delete_pinhole(PINHOLES, 1), "pinhole-delete"),
    ],
)
def test_recorded_answers(recorded: dict[str, bytes], call: Call, name: str) -> None:
    found = igd.read_answer(call, response(recorded[f"igd2-{name}.http"]))
    if name == "external":
        assert igd.parse_external_address(found) == "25.1.1.2"
    elif name == "add-any":
        assert igd.parse_port(found) == 4000
    elif name == "pinhole-add":
        assert igd.parse_pinhole(found) == 1
    elif name == "entry":
        assert igd.parse_entry(found) == Entry(4001, "tcp", 4001, "192.168.1.2", "warpgate test", 600)
    for other in (igd.generic_entry(WAN2, 1), igd.external_address(WAN2)):
        if other.action != call.action:
            with pytest.raises(ProtocolError):
                igd.read_answer(other, response(recorded[f"igd2-{name}.http"]))


@pytest.mark.parametrize(
    ("call", "name", "code"),
    [
        (igd.add_mapping(WAN2, "tcp", 80, CLIENT, 600, "x"), "add-denied", 606),
        (igd.generic_entry(WAN2, 9), "entry-end", 713),
        (igd.update_pinhole(PINHOLES, 4711, 600), "pinhole-update-unknown", 402),
    ],
)
def test_recorded_refusals(recorded: dict[str, bytes], call: Call, name: str, code: int) -> None:
    with pytest.raises(RefusalError, match=f"UPnP error {code}") as caught:
        igd.read_answer(call, response(recorded[f"igd2-{name}.http"]))
    assert caught.value.code == code


ENVELOPE = b'<s:Envelope xmlns:s="s"><s:Body>%s</s:Body></s:Envelope>'
ADDRESS = (
    b"<GetExternalIPAddressResponse><NewExternalIPAddress>%s</NewExternalIPAddress>"
    b"</GetExternalIPAddressResponse>"
)
FAULT = b"<s:Fault><detail><UPnPError><errorCode>%s</errorCode></UPnPError></detail></s:Fault>"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (301, ENVELOPE % b"<GetExternalIPAddressResponse/>"),
        (401, b"<html>log in</html>"),
        (404, b""),
        (200, b""),
        (200, b"<html/>"),
        (200, ENVELOPE % b""),
        (200, ENVELOPE % b"<OtherResponse/>"),
        (500, ENVELOPE % b"<GetExternalIPAddressResponse/>"),
        (500, ENVELOPE % (FAULT % b"0")),
        (500, ENVELOPE % (FAULT % b"-1")),
        (500, ENVELOPE % (FAULT % b"1e9")),
        (500, ENVELOPE % (FAULT % b"99999999999")),
    ],
)
def test_answers_that_are_none(status: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        igd.read_answer(igd.external_address(WAN2), Response(status, {}, body))


@pytest.mark.parametrize("text", ["", " ", "0.0.0.0"])
def test_a_router_without_address(text: str) -> None:
    answer = Response(200, {}, ENVELOPE % (ADDRESS % text.encode()))
    assert igd.parse_external_address(igd.read_answer(igd.external_address(WAN2), answer)) == ""


@pytest.mark.parametrize(
    "text", ["router", "1.2.3", "2001:db8::1", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 or so"]
)
def test_an_address_that_is_none(text: str) -> None:
    answer = Response(200, {}, ENVELOPE % (ADDRESS % text.encode()))
    with pytest.raises(ProtocolError):
        igd.parse_external_address(igd.read_answer(igd.external_address(WAN2), answer))


@pytest.mark.parametrize("text", ["", "0", "65536", "-5", "4000.0", "\u0664\u0660\u0660\u0660"])
def test_a_port_that_is_none(text: str) -> None:
    body = f"<AddAnyPortMappingResponse><NewReservedPort>{text}</NewReservedPort></AddAnyPortMappingResponse>"
    call = igd.add_any_mapping(WAN2, "udp", 4000, CLIENT, 600, "x")
    found = igd.read_answer(call, Response(200, {}, ENVELOPE % body.encode()))
    with pytest.raises(ProtocolError):
        igd.parse_port(found)
