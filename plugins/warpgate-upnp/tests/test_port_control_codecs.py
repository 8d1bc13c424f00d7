"""PCP and NAT-PMP packets: from the RFCs' diagrams and from miniupnpd, whole, cut and at random."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core import ProtocolError
from warpgate_upnp import nat_pmp, pcp
from warpgate_upnp.nat_pmp import PublicAddress, TransportMapping
from warpgate_upnp.pcp import Answer

NONCE = b"0123456789ab"
PORTS = st.integers(1, 65_535)


def test_nat_pmp_questions() -> None:
    """RFC 6886 sections 3.2, 3.3 and 3.4."""
    assert nat_pmp.ask_address().hex() == "0000"
    assert nat_pmp.ask_mapping("udp", 4000, 4001, 600).hex() == "000100000fa00fa100000258"
    assert nat_pmp.ask_mapping("tcp", 4000, 0, 0).hex() == "000200000fa0000000000000"


def test_nat_pmp_answers(recorded: dict[str, bytes]) -> None:
    address = nat_pmp.parse(recorded["igd2-natpmp-address"])
    assert address == PublicAddress(0, 1, "25.1.1.2")
    mapped = nat_pmp.parse(recorded["igd2-natpmp-map"])
    assert mapped == TransportMapping(0, 1, "udp", 4000, 4000, 600)
    gone = nat_pmp.parse(recorded["igd2-natpmp-delete"])
    assert gone == TransportMapping(0, 1, "udp", 4000, 0, 0)
    refused = nat_pmp.parse(bytes.fromhex("00820002000000010fa0000000000000"))
    assert refused == TransportMapping(2, 1, "tcp")
    assert nat_pmp.parse(bytes.fromhex("0080000300000001")) == PublicAddress(3, 1)
    unknown = nat_pmp.parse(bytes.fromhex("0080006300000001"))
    assert unknown == PublicAddress(99, 1)
    assert all(result.saying for result in nat_pmp.Result)


@pytest.mark.parametrize(
    "data",
    ["", "00", "0000", "0080", "00800000000000", "0080000000000001", "008000000000000119010101ff", "01800000",
     "0083000000000001", "00810000000000010fa0", "008100000000000100000000000000000000"],
)  # fmt: skip
def test_nat_pmp_damaged(data: str) -> None:
    with pytest.raises(ProtocolError):
        nat_pmp.parse(bytes.fromhex(data))


def test_pcp_questions(recorded: dict[str, bytes]) -> None:
    """RFC 6887 sections 7.1, 11.1 and 14.1."""
    announce = pcp.ask_announce("192.168.1.2")
    assert announce.hex() == "020000000000000000000000000000000000ffffc0a80102"
    question = pcp.ask_map("192.168.1.2", NONCE, "tcp", 4000, 600)
    assert question[:24].hex() == "020100000000025800000000000000000000ffffc0a80102"
    assert question[24:].hex() == NONCE.hex() + "06000000" + "0fa00fa0" + "00000000000000000000ffff00000000"
    held = pcp.ask_map("192.168.1.2", NONCE, "udp", 4000, 600, ("25.1.1.1", 4001))
    assert held[24:].hex() == NONCE.hex() + "11000000" + "0fa00fa1" + "00000000000000000000ffff19010101"
    six = pcp.ask_map("2001:db8::2", NONCE, "udp", 4000, 0)
    assert six[8:24].hex() == "20010db8000000000000000000000002"
    assert six[44:] == bytes(16)
    assert len(six) % 4 == 0


def test_pcp_answers(recorded: dict[str, bytes]) -> None:
    four = pcp.parse(recorded["igd2-pcp-map4"])
    assert four == Answer(2, True, 0, 600, 1, NONCE, "tcp", 4000, 4000, "25.1.1.2")
    six = pcp.parse(recorded["igd2-pcp-map6"])
    assert (six.external_host, six.external_port) == ("2001:db8:1::2", 4000)
    assert pcp.parse(recorded["igd2-pcp-delete6"]).lifetime == 0
    mismatch = pcp.parse(recorded["igd2-pcp-mismatch"])
    assert (mismatch.result, mismatch.nonce) == (pcp.Result.ADDRESS_MISMATCH, NONCE)
    assert pcp.parse(recorded["igd2-pcp-announce"]) == Answer(2, False, 0, 0, 1)
    for name in ("igd2-announce4-v2", "igd2-announce6-v2"):
        assert not pcp.parse(recorded[name]).is_map
    with pytest.raises(ProtocolError):
        pcp.parse(recorded["igd2-pcp-v1"])
    assert all(result.saying for result in pcp.Result)


def test_pcp_options_in_an_answer_are_stepped_over(recorded: dict[str, bytes]) -> None:
    with_option = recorded["igd2-pcp-map4"] + bytes.fromhex("0200000400000000")
    assert pcp.parse(with_option) == pcp.parse(recorded["igd2-pcp-map4"])


def test_an_older_server_says_so() -> None:
    """RFC 6887 section 9: NAT-PMP answers version 0, two bytes of result; PCP version 1 one byte."""
    for data in ("0080000100000001", "0181000100000001", "01810001"):
        assert pcp.parse(bytes.fromhex(data)).result == pcp.Result.UNSUPP_VERSION


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:23],
        lambda data: data[:59],
        lambda data: data + b"\0",
        lambda data: b"\x03" + data[1:],
        lambda data: data[:1] + b"\x01" + data[2:],
        lambda data: data[:1] + b"\x82" + data[2:],
        lambda data: data[:36] + b"\x63" + data[37:],
        lambda data: data + bytes(pcp.MAX_BYTES),
        lambda data: b"",
        lambda data: b"\x00\x80\x00\x00",
    ],
)
def test_pcp_damaged(recorded: dict[str, bytes], change: object) -> None:
    with pytest.raises(ProtocolError):
        pcp.parse(change(recorded["igd2-pcp-map4"]))  # type: ignore[operator]


@pytest.mark.parametrize("parse", [pcp.parse, nat_pmp.parse])
@given(data=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(parse: object, data: bytes) -> None:
    for start in (b"", b"\0\x80", b"\0\x81", b"\2\x80\0\0", b"\2\x81\0\0"):
        with contextlib.suppress(ProtocolError):
            parse(start + data)  # type: ignore[operator]


@given(
    st.binary(min_size=12, max_size=12),
    st.sampled_from(["udp", "tcp"]),
    PORTS,
    PORTS,
    st.integers(0, 2**32 - 1),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
)
def test_a_mapping_is_answered_as_it_was_asked(
    nonce: bytes, transport: str, internal: int, external: int, lifetime: int, host: object
) -> None:
    """A server that grants just what is asked, by turning the question into an answer."""
    text = str(host)
    if text.lower().startswith("::ffff:"):
        return  # an IPv4 address in another form
    question = pcp.ask_map(text, nonce, transport, internal, lifetime, (text, external))
    answer = bytes((2, 0x81, 0, 0)) + question[4:8] + (77).to_bytes(4) + bytes(12) + question[24:]
    assert pcp.parse(answer) == Answer(2, True, 0, lifetime, 77, nonce, transport, internal, external, text)
