"""What two addresses say about whether, and where, their nodes can meet. Pure.

A hole can be punched without guessing where each end knows an endpoint that the other's packets will come
from, or where the end that does not know lets them in from any port of the right address. The words are
those of RFC 4787. What was measured may be wrong, so this orders attempts and never forbids one.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

from warpgate_core import Allocation, Endpoint, Family, Filtering, LocalInterface, Mapping, NatProfile

__all__ = ["Face", "expected_tcp", "is_fixed", "is_likely", "is_near", "may_be_near", "on_link", "outside"]


class Face(Protocol):
    """One interface, ours (`LocalInterface`) or as an address tells of it (`InterfaceAddress`)."""

    @property
    def internal(self) -> Endpoint:
        """Private address and port."""

    @property
    def external(self) -> Endpoint | None:
        """Mapped endpoint as STUN over UDP saw it."""

    @property
    def nat(self) -> NatProfile:
        """What is known of the NAT."""

    @property
    def tcp_external(self) -> Endpoint | None:
        """TCP endpoint that is reachable from outside."""


def is_fixed(face: Face) -> bool:
    """Whether all others see this interface come from the same endpoint, as far as is known."""
    return face.nat.mapping in (Mapping.NONE, Mapping.EIM, Mapping.UNKNOWN)


def outside(face: Face) -> Endpoint | None:
    """Where others see this interface's UDP socket; IPv6 is hardly ever translated, so no server need say."""
    if face.external is None and face.internal.family is Family.IP6:
        return face.internal
    return face.external


def is_likely(mine: Face, theirs: Face) -> bool:
    """Whether packets of both can meet without guessing a port."""
    if mine.internal.family is not theirs.internal.family:
        return False
    if is_fixed(mine) and is_fixed(theirs):
        return True
    if not (is_fixed(mine) or is_fixed(theirs)):
        return False
    known = mine if is_fixed(mine) else theirs
    return known.nat.filtering is not Filtering.APDF


def is_near(mine: LocalInterface | Face, theirs: Face) -> bool:
    """Whether both are most likely in one LAN, so that internal endpoints are worth trying first."""
    if mine.internal.family is not theirs.internal.family:
        return False
    if mine.external is not None and theirs.external is not None:
        return mine.external.host == theirs.external.host
    return may_be_near(mine, theirs)


def may_be_near(mine: LocalInterface | Face, theirs: Face) -> bool:
    """The same by internal addresses alone: it may be another LAN that uses the same private ones."""
    if mine.internal.host == theirs.internal.host:
        return True
    return isinstance(mine, LocalInterface) and on_link(mine, theirs.internal)


def on_link(mine: LocalInterface, remote: Endpoint) -> bool:
    """Whether `remote` is in the prefix of this interface."""
    if not mine.prefix or mine.family is not remote.family:
        return False
    shift = (32 if mine.family is Family.IP4 else 128) - mine.prefix
    host = remote.host.partition("%")[0]
    own = mine.internal.host.partition("%")[0]
    return int(ipaddress.ip_address(own)) >> shift == int(ipaddress.ip_address(host)) >> shift


def expected_tcp(face: Face) -> Endpoint | None:
    """Where connections from the listener's port of this interface come from, without having asked.

    A forwarded or untranslated port is certain. A NAT that kept the port number for UDP nearly always
    keeps it for TCP, and the listener has the same number. None: TCP STUN must tell.
    """
    if face.tcp_external is not None:
        return face.tcp_external
    external = outside(face)
    if external is None or face.nat.mapping is Mapping.NONE or external == face.internal:
        return external and face.internal
    same = external.port == face.internal.port
    return external if same and face.nat.allocation is Allocation.PRESERVED else None
