"""``warpgate address``: the address to give to a peer, alone on standard output."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from warpgate_core.address import InterfaceAddress, NodeAddress
from warpgate_core.cli.nodes import settle, warn_about_brokers
from warpgate_core.cli.settings import node_config
from warpgate_core.cli.terminal import Terminal
from warpgate_core.cli.text import Span, joined, table
from warpgate_core.node import Node

__all__ = ["run"]


async def run(args: Namespace, terminal: Terminal) -> int:
    """Start a node, long enough to learn its endpoints, and print its address."""
    config = node_config(args, accept=())
    terminal.event("starting")
    async with Node(config) as node:
        await settle(node)
        address = node.address
        warn_about_brokers(node, terminal)
    if terminal.json:
        terminal.result_json(_fields(address))
        return 0
    _details(address, terminal)
    if not config.port:
        terminal.say("the port is another one at each start, unless --port N names one", "dim")
    terminal.result(str(address))
    return 0


def _details(address: NodeAddress, terminal: Terminal) -> None:
    rows: list[list[str | Span]] = [[("node", "bold"), address.node_id]]
    for face in address.interfaces:
        seen = "not known from outside" if face.external is None else f"seen as {face.external}"
        outside = "reachable" if face.external == face.internal else seen
        rows.append([("endpoint", "bold"), f"{face.internal}, {outside}, NAT: {face.nat.label}"])
    rows.append([("brokers", "bold"), joined(map(str, address.hints)) or "none"])
    terminal.show(() if terminal.json else table(rows, terminal.width))


def _fields(address: NodeAddress) -> dict[str, Any]:
    return {
        "address": str(address),
        "bytes": address.encode().hex(),
        "node_id": address.node_id,
        "public_key": address.public_key.hex(),
        "interfaces": [_face(face) for face in address.interfaces],
        "brokers": [str(hint) for hint in address.hints],
    }


def _face(face: InterfaceAddress) -> dict[str, Any]:
    return {
        "nic": face.nic,
        "family": int(face.family),
        "internal": str(face.internal),
        "external": None if face.external is None else str(face.external),
        "tcp_external": None if face.tcp_external is None else str(face.tcp_external),
        "nat": face.nat.label,
    }
