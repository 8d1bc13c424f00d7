"""What `warpgate doctor` finds out: a value, gathered by asking everything at once.

The brokers are asked by a router of a throw-away identity each, so that all of them are looked at (a node
listens at three only) and no message for this node is taken away. What the findings mean is in `verdict`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Final

from warpgate_core.cli.nodes import settle
from warpgate_core.cli.text import clean
from warpgate_core.config import NodeConfig
from warpgate_core.endpoint import Endpoint, Family
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.identity import Identity
from warpgate_core.nat import NatProfile
from warpgate_core.net.gateway import Gateway, default_gateways
from warpgate_core.net.interfaces import LocalAddress, enumerate_addresses
from warpgate_core.net.nat_discovery import fresh_client
from warpgate_core.net.ntp import NtpClock
from warpgate_core.net.stun_client import Schedule
from warpgate_core.net.stun_server import StunServer, resolve
from warpgate_core.net.system import SystemEdge
from warpgate_core.node import Node
from warpgate_core.registry import PluginRecord, PluginState, Registry
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.router import Router

__all__ = ["BrokerFinding", "Checkup", "Face", "StunFinding", "examine"]

BROKER_WAIT: Final = 5.0  # s for TCP, TLS and MQTT; a broker slower than this is of no use
STUN_WAIT: Final = 4.0  # s, name lookup included
MAPPING_WAIT: Final = 3.0  # s for a gateway to answer a port-mapping plugin (SSDP waits up to 2)
AT_ONCE: Final = 16  # brokers asked at the same time
SERVICE: Final = "warpgate_node_service"  # the hook by which a plugin makes port mappings


@dataclass(frozen=True, slots=True)
class Face:
    """One address in use.

    Args:
        name: of the card.
        internal: own endpoint.
        external: as STUN saw it, or None.
        nat: what is known of the NAT.
        mapped: endpoints that a port mapping gave, by transport.
        notes: sentences from the discovery.
    """

    name: str
    internal: Endpoint
    external: Endpoint | None
    nat: NatProfile
    mapped: tuple[tuple[str, Endpoint], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.internal.family


@dataclass(frozen=True, slots=True)
class StunFinding:
    """One STUN server in one family: either it answered after `rtt` seconds, or `error` says why not."""

    server: str
    family: Family
    mapped: Endpoint | None = None
    rtt: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BrokerFinding:
    """One broker: either it is up and answered after `latency` seconds, or `error` says why not."""

    url: str
    is_up: bool
    latency: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything found out about a node and its network.

    Args:
        node_id: short id of the node.
        network_error: why no node could be started; "" if it could.
        addresses: all that the machine has.
        gateways: default routes.
        faces: the addresses in use.
        stun: servers, per family.
        brokers: all that are configured.
        turn: servers that are configured, without credentials.
        clock: where the time is from, or why it was not checked.
        skew: seconds that our clock is ahead of the time servers; None if not known.
        plugins: every installed plugin.
        status: what plugins say of what they do for the node, (name, sentence).
    """

    node_id: str
    network_error: str = ""
    addresses: tuple[LocalAddress, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    faces: tuple[Face, ...] = ()
    stun: tuple[StunFinding, ...] = ()
    brokers: tuple[BrokerFinding, ...] = ()
    turn: tuple[str, ...] = ()
    clock: str = ""
    skew: float | None = None
    plugins: tuple[PluginRecord, ...] = ()
    status: tuple[tuple[str, str], ...] = ()

    @property
    def mappers(self) -> tuple[str, ...]:
        """Plugins that may make port mappings."""
        return tuple(p.name for p in self.plugins if SERVICE in p.hooks and p.state is PluginState.LOADED)

    def has_strategy(self, *names: str) -> bool:
        """Whether one of these strategies can be used."""
        return any(p.name in names and p.state is PluginState.LOADED for p in self.plugins)


async def examine(config: NodeConfig, identity: Identity, registry: Registry) -> Checkup:
    """Look at everything, at most some seconds long.

    Args:
        config: of the node; its accept policy should refuse everybody.
        identity: the node's.
        registry: its plugins, for what is said about them.
    """
    servers: Any = config.stun
    brokers: Any = config.brokers
    turn: Any = config.turn
    ntp: Any = config.ntp
    async with asyncio.TaskGroup() as group:
        network = group.create_task(_network(config, identity, tuple(servers)))
        asked = group.create_task(_brokers(tuple(brokers)))
        clock = group.create_task(_clock(tuple(ntp)))
    faces, stun, status, error = network.result()
    text, skew = clock.result()
    return Checkup(
        node_id=identity.node_id,
        network_error=error,
        addresses=enumerate_addresses(),
        gateways=default_gateways(),
        faces=faces,
        stun=stun,
        brokers=asked.result(),
        turn=tuple(str(server) for server in turn),
        clock=text,
        skew=skew,
        plugins=registry.records,
        status=status,
    )


async def _network(
    config: NodeConfig, identity: Identity, servers: tuple[StunServer, ...]
) -> tuple[tuple[Face, ...], tuple[StunFinding, ...], tuple[tuple[str, str], ...], str]:
    node = Node(dataclasses.replace(config, identity=identity, brokers=()))
    try:
        async with node:
            await settle(node)
            await _mappings(node)
            faces = _faces(node)
            findings = await asyncio.gather(
                *(_ask_stun(server, face) for face in _one_per_family(faces) for server in servers)
            )
            status = tuple(
                (name, clean(sentence))
                for name, sentences in node.registry.call("warpgate_node_status")
                for sentence in sentences
            )
    except NetworkError as error:
        return (), (), (), str(error)
    return faces, tuple(findings), status, ""


def _one_per_family(faces: tuple[Face, ...]) -> list[Face]:
    return list({face.family: face for face in reversed(faces)}.values())


def _faces(node: Node) -> tuple[Face, ...]:
    edge, services = node.edge, node.parts.services
    found = []
    for face in edge.interfaces:
        notes: tuple[str, ...] = ()
        if isinstance(edge, SystemEdge):
            notes = edge.diagnosis(face.internal).notes
        mapped = [(kind, services.mapped(face.internal, kind)) for kind in ("udp", "tcp")]
        known = tuple((kind, endpoint) for kind, endpoint in mapped if endpoint is not None)
        found.append(Face(face.name, face.internal, face.external, face.nat, known, notes))
    return tuple(found)


async def _mappings(node: Node) -> None:
    """Give port-mapping plugins, if there are any, the time to reach a gateway."""
    if not any(SERVICE in record.hooks for record in node.registry.records):
        return
    changed = asyncio.Event()
    unwatch = node.on_change(changed.set)
    try:
        async with asyncio.timeout(MAPPING_WAIT):
            while not any(face.mapped for face in _faces(node)):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return  # no mapping: that is the finding
    finally:
        unwatch()


async def _ask_stun(server: StunServer, face: Face) -> StunFinding:
    try:
        async with asyncio.timeout(STUN_WAIT), fresh_client(face.internal.host, face.name) as client:
            answer = await client.binding(
                await resolve(server, face.family), schedule=Schedule(tries=4, last=4.0)
            )
    except (NetworkError, ProtocolError, OSError) as error:  # TimeoutError is an OSError
        text = str(error) or f"no answer within {STUN_WAIT:g} s"
        return StunFinding(str(server), face.family, error=text)
    return StunFinding(str(server), face.family, answer.mapped, answer.rtt)


async def _brokers(brokers: tuple[Broker, ...]) -> tuple[BrokerFinding, ...]:
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(broker: Broker) -> BrokerFinding:
        async with room:
            return await _ask_broker(broker)

    return tuple(await asyncio.gather(*map(ask, brokers)))


async def _ask_broker(broker: Broker) -> BrokerFinding:
    router = Router(Identity.generate(), get_time=time.time, servers=[broker])
    try:
        await router.start()
        is_up = await router.ready(BROKER_WAIT)
        row = router.brokers[0]
    finally:
        await router.close()
    error = "" if is_up else row.error or f"no answer within {BROKER_WAIT:g} s"
    return BrokerFinding(row.name, is_up, row.latency if is_up else None, error)


async def _clock(servers: tuple[str, ...]) -> tuple[str, float | None]:
    if not servers:
        return "not compared; --ntp pool compares it with public time servers", None
    clock = NtpClock(servers)
    await clock.sync()
    return clock.reason, -clock.offset if clock.is_synchronised else None
