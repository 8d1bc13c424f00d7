"""Warpgate: a connected, authenticated pipe between two machines, whatever lies between them."""

from warpgate_core.address import BrokerHint, InterfaceAddress, NodeAddress
from warpgate_core.config import Limits, NodeConfig, TurnServer
from warpgate_core.connect import auto_connect
from warpgate_core.endpoint import IP4, IP6, Endpoint, Family
from warpgate_core.errors import (
    AddressError,
    BrokerError,
    ConfigError,
    ConnectError,
    EnvelopeError,
    IdentityError,
    InputError,
    NetworkError,
    NoBrokerError,
    NodeClosedError,
    PeerLostError,
    PipeClosedError,
    PipeError,
    PluginError,
    ProtocolError,
    RefusedError,
    RemoteError,
    StrategyError,
    VettingError,
    WarpgateError,
)
from warpgate_core.hookspecs import NodeContext, NodeHooks, hookimpl
from warpgate_core.identity import Identity
from warpgate_core.nat import Allocation, Filtering, Mapping, NatProfile
from warpgate_core.net.edge import DatagramSocket, LentSocket, LocalInterface, TcpMapping
from warpgate_core.net.gateway import Gateway
from warpgate_core.net.stream import StreamLink
from warpgate_core.node import Node
from warpgate_core.pipe import SUB_ALL, DatagramPipe, Path, Pipe, StreamPipe
from warpgate_core.registry import Registry
from warpgate_core.signal.embedded import EmbeddedBroker
from warpgate_core.signal.router import Router
from warpgate_core.signal.smart_pipe import SmartPipe
from warpgate_core.strategy import API_VERSION, Attempt, Role, Strategy, StrategySpec, Tier, register
from warpgate_core.trace import Phase, Trace, TraceEvent

__all__ = [
    "API_VERSION",
    "IP4",
    "IP6",
    "SUB_ALL",
    "AddressError",
    "Allocation",
    "Attempt",
    "BrokerError",
    "BrokerHint",
    "ConfigError",
    "ConnectError",
    "DatagramPipe",
    "DatagramSocket",
    "EmbeddedBroker",
    "Endpoint",
    "EnvelopeError",
    "Family",
    "Filtering",
    "Gateway",
    "Identity",
    "IdentityError",
    "InputError",
    "InterfaceAddress",
    "LentSocket",
    "Limits",
    "LocalInterface",
    "Mapping",
    "NatProfile",
    "NetworkError",
    "NoBrokerError",
    "Node",
    "NodeAddress",
    "NodeClosedError",
    "NodeConfig",
    "NodeContext",
    "NodeHooks",
    "Path",
    "PeerLostError",
    "Phase",
    "Pipe",
    "PipeClosedError",
    "PipeError",
    "PluginError",
    "ProtocolError",
    "RefusedError",
    "Registry",
    "RemoteError",
    "Role",
    "Router",
    "SmartPipe",
    "Strategy",
    "StrategyError",
    "StrategySpec",
    "StreamLink",
    "StreamPipe",
    "TcpMapping",
    "Tier",
    "Trace",
    "TraceEvent",
    "TurnServer",
    "VettingError",
    "WarpgateError",
    "auto_connect",
    "hookimpl",
    "register",
]
