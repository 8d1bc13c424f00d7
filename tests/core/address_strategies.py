"""Any valid address, for property tests."""

from __future__ import annotations

import functools
import ipaddress

from hypothesis import strategies as st

from warpgate_core.address import BrokerHint, InterfaceAddress, NodeAddress
from warpgate_core.endpoint import Endpoint
from warpgate_core.identity import Identity
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile


@functools.cache
def public_key(number: int) -> bytes:
    """The public key of a small secret."""
    return Identity.from_secret(number.to_bytes(32, "big"), "coincurve").public_key


def _is_publishable(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None
    return not (ip.is_unspecified or ip.is_multicast or mapped)


def hosts(version: int) -> st.SearchStrategy[str]:
    """Numeric hosts of one family, from few enough that some are equal."""
    near = ["192.0.2.1", "10.0.0.1", "127.0.0.1"] if version == 4 else ["2001:db8::1", "fd00::1", "::1"]
    anywhere = (
        st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
        if version == 4
        else st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
    )
    return st.one_of(st.sampled_from(near), anywhere.filter(_is_publishable).map(str))


ports = st.one_of(st.sampled_from([1, 1883, 40001, 65535]), st.integers(1, 65535))


def endpoints(version: int) -> st.SearchStrategy[Endpoint]:
    return st.builds(Endpoint, hosts(version), ports)


chunks = st.integers(0, 65535).flatmap(
    lambda first: st.tuples(st.just(first), st.integers(1, min(65535, 65536 - first)))
)
profiles = st.builds(
    NatProfile,
    st.sampled_from(Mapping),
    st.sampled_from(Filtering),
    st.sampled_from(Allocation),
    st.one_of(st.just(0), st.integers(-128, 127)),
    st.one_of(st.none(), chunks),
)


@st.composite
def interfaces(draw: st.DrawFn) -> InterfaceAddress:
    """One interface, whose endpoints are often equal in part."""
    version = draw(st.sampled_from([4, 6]))
    internal = draw(endpoints(version))
    moved = st.builds(Endpoint, hosts(version), st.just(internal.port))
    external = draw(st.one_of(st.none(), st.just(internal), moved, endpoints(version)))
    near = [None, internal] if external is None else [None, internal, external, Endpoint(external.host, 9)]
    tcp = draw(st.one_of(st.sampled_from(near), endpoints(version)))
    return InterfaceAddress(draw(st.integers(0, 15)), internal, external, draw(profiles), tcp)


labels = st.text("abz059_", min_size=1, max_size=63)
names = st.builds("{}.{}-{}.example".format, labels, labels, labels).map(
    lambda name: name[-253:].lstrip(".-")
)
hints = st.builds(
    BrokerHint,
    st.one_of(hosts(4), hosts(6), names),
    st.one_of(st.sampled_from([80, 443, 1883, 8883]), ports),
    st.sampled_from(["mqtt", "mqtts", "ws", "wss"]),
)
extensions = st.dictionaries(st.integers(0, 255), st.binary(max_size=20), max_size=4).map(
    lambda values: tuple(sorted(values.items()))
)
addresses = st.builds(
    NodeAddress,
    st.integers(1, 40).map(public_key),
    st.lists(interfaces(), max_size=6).map(tuple),
    st.lists(hints, max_size=6).map(tuple),
    extensions,
)
