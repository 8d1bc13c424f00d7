"""What a strategy is: one way of making a path between two nodes.

Write a class with two coroutines, put `register` on it, and name it as an entry point of the group
``warpgate.plugins`` in your distribution::

    @register("my-way", rank=50, transports={"tcp"})
    class MyWay(Strategy):
        async def contribute(self, attempt: Attempt) -> bytes:
            return b"what the other end needs to know"

        async def run(self, attempt: Attempt) -> None:
            section = await attempt.peer_section()
            await attempt.dial(decode(section))

One fresh object serves one attempt, so its attributes are the attempt's own state. Everything that
must be right for safety is the core's: proof of who is at the other end, which path wins, cancelling,
tracing, limits, and vetting of every endpoint that the peer named. Rejected: a strategy that returns a
connected socket on both ends (two ends then disagree which of several sockets is the pipe), and a base
class with a dozen overridable steps (nobody can say in which order they run).
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from warpgate_core.errors import PluginError

if TYPE_CHECKING:
    from warpgate_core.address import NodeAddress
    from warpgate_core.endpoint import Endpoint
    from warpgate_core.net.edge import DatagramSocket, LentSocket, LocalInterface, TcpMapping
    from warpgate_core.net.stream import StreamLink
    from warpgate_core.pipe import Path
    from warpgate_core.trace import Phase

__all__ = [
    "API_VERSION",
    "MAX_SECTION",
    "OLDEST_API_VERSION",
    "Attempt",
    "Role",
    "Strategy",
    "StrategySpec",
    "Tier",
    "is_valid_name",
    "register",
]

API_VERSION = 1  # raised when this module gains what older cores do not have
OLDEST_API_VERSION = 1  # raised when a strategy written for the older contract would break
MAX_SECTION = 512  # bytes; seven strategies' sections and an address still fit one 1,200-byte datagram
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_MAX_NAME = 24


class Role(enum.StrEnum):
    """Which end of the session this node is."""

    INITIATOR = "initiator"  # made the offer; nominates the winner
    RESPONDER = "responder"


class Tier(enum.IntEnum):
    """What a path of this strategy costs to use. A lower tier is preferred, within bounds of time."""

    DIRECT = 0
    RELAY = 1


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """What `register` stamps on a strategy class as its `spec`.

    Args:
        name: lower-case words joined by hyphens, at most 24 characters; travels in offers.
        rank: 0 to 100; of two paths of the same tier and transport, the lower rank wins.
        transports: what its paths can be: "tcp", "udp" or both.
        tier: see `Tier`.
        options: a dataclass with a default for every field, or None if it takes no options.
        api_version: the contract that it was written for.
        summary: one line for ``warpgate plugins``: the first line of the class's docstring.
    """

    name: str
    rank: int
    transports: frozenset[str]
    tier: Tier
    options: type[Any] | None
    api_version: int
    summary: str


class Attempt(ABC):
    """One strategy's view of one session: what it may know, and what it may do.

    Attributes:
        role: initiator or responder.
        name: the strategy's own name.
        local: this node's address as the offer or answer holds it.
        transports: what the initiator will accept, a subset of {"tcp", "udp"}.
        tag: eight bytes that name the session on the wire.
    """

    role: Role
    name: str
    local: NodeAddress
    transports: frozenset[str]
    tag: bytes

    @property
    @abstractmethod
    def peer(self) -> NodeAddress:
        """The peer's address: what the caller gave, and what the peer itself said once it has."""

    @property
    @abstractmethod
    def interfaces(self) -> tuple[LocalInterface, ...]:
        """This node's interfaces now."""

    @property
    @abstractmethod
    def sockets(self) -> tuple[DatagramSocket, ...]:
        """The node's long-lived UDP sockets."""

    @property
    @abstractmethod
    def round_trip(self) -> float | None:
        """Seconds from offer to answer through signalling; None while unknown (always, as responder)."""

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds, the event loop's own time."""

    @abstractmethod
    def note(self, step: str, detail: str = "", phase: Phase | None = None) -> None:
        """Add a step to the trace, under this strategy's name."""

    @abstractmethod
    async def peer_section(self) -> bytes:
        """Wait for what the peer's same strategy contributed.

        Returns:
            Its section; empty if it contributed nothing of substance.

        Raises:
            StrategyError: the peer does not run this strategy.
        """

    @abstractmethod
    async def peer_answered(self) -> None:
        """Wait until both ends share the session's secret; returns at once as responder."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send a message to the peer's same strategy, inside the session, through signalling.

        Args:
            data: at most `MAX_SECTION` bytes.

        Raises:
            StrategyError: no broker delivered it.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next message from the peer's same strategy, in the order they were sent."""

    @abstractmethod
    def vet(self, endpoint: Endpoint) -> Endpoint:
        """Check an endpoint that the peer named before anything is sent there.

        Raises:
            VettingError: loopback (unless both ends are on this machine), multicast, broadcast,
                unspecified, port 0, our own infrastructure, or too many endpoints in this session.
        """

    @abstractmethod
    async def dial(self, remote: Endpoint, *, local: Endpoint | None = None, kind: str = "host") -> Path:
        """Vet, open a TCP connection, and prove it.

        Args:
            remote: where to.
            local: bind there first (the listener's port may be shared); None: any.
            kind: the remote candidate's kind: host, srflx, prflx or relay.

        Returns:
            The path, once the peer at its end has proven itself. The race has it then.

        Raises:
            VettingError: see `vet`.
            NetworkError: no connection.
            ProtocolError: something else than the peer is there.
        """

    @abstractmethod
    async def open_stream(self, remote: Endpoint, *, local: Endpoint | None = None) -> StreamLink:
        """Vet and open a TCP connection, and no more: the first half of `dial`.

        For whom a connection is worth a short wait only, or that dials the same way again and again; it
        makes no entry in the trace. Give the link to `prove_stream`. Cancelling leaves no socket behind.

        Args:
            remote: where to.
            local: bind there first; None: any.

        Raises:
            VettingError: see `vet`.
            NetworkError: no connection; chained to the system's own error.
        """

    @abstractmethod
    def tcp_mapping(self, local: Endpoint) -> AbstractAsyncContextManager[TcpMapping]:
        """Learn how the NAT maps TCP from a port of ours, and hold that mapping meanwhile.

        Takes two round trips to a STUN server. `LocalInterface.tcp_seen` tells of the last time.

        Args:
            local: `internal` of one of `interfaces` (the listener's port), or with port 0 for a fresh port.

        Raises:
            NetworkError: no such interface, or (on entering) no STUN server answered over TCP.
        """

    @abstractmethod
    async def prove_stream(self, link: StreamLink, *, kind: str = "host") -> Path:
        """Prove a TCP connection that the strategy made by its own means. Takes over its ownership."""

    @abstractmethod
    def accept_stream(self, link: StreamLink) -> None:
        """Hand over a TCP connection that came in at a listener of the strategy's own.

        For use as ``StreamLink(attempt.accept_stream)`` in the listener's protocol factory. Whoever is
        there must say within seconds which session it belongs to, and prove it, as at the node's own
        listener; else the connection is closed. The race has the path once it is proven.
        """

    @abstractmethod
    def accept_datagram(self, data: bytes, remote: Endpoint, sock: DatagramSocket) -> None:
        """Hand over a datagram that came in at a UDP socket of the strategy's own.

        Whatever is attached to no pipe goes here, as at the node's own sockets: proof, nomination and the
        pipe are the core's then. Costs little when it is nothing of ours.

        Args:
            data: as received.
            remote: where it came from.
            sock: the socket, through which it is answered.
        """

    @abstractmethod
    async def check(
        self, remote: Endpoint, *, sock: DatagramSocket | None = None, kind: str = "host", hops: int = 0
    ) -> Path:
        """Vet, then send connectivity checks over UDP until the peer answers with its proof.

        Before the answer is known, the initiator sends its sealed offer as the check, so that a peer
        that is reachable there needs no signalling at all.

        Args:
            remote: where to.
            sock: one of `sockets`, or a socket of the strategy's own; None: the best of `sockets`.
            kind: the remote candidate's kind.
            hops: of routers that checks may pass, until the peer can have sent towards us (as responder:
                three of them); they open our own NAT then and do not get as far as the peer's. 0: no limit.

        Returns:
            The path, once packets were proven to pass both ways. The race has it then.

        Raises:
            VettingError: see `vet`.
            StrategyError: the checks were exhausted without an answer.
        """

    @abstractmethod
    async def open_socket(self, local: Endpoint) -> LentSocket:
        """Open one more UDP socket, on a port of its own. What comes in there is the core's at once.

        It is the strategy's to `let_go`, at the latest in `close`. If a pipe came about on it, it closes
        with the pipe, else at once.

        Args:
            local: `internal` of one of `interfaces`; its port does not matter.

        Raises:
            NetworkError: no such interface, or too many open files.
        """

    @abstractmethod
    async def mapped(self, sock: LentSocket) -> Endpoint:
        """Ask a STUN server how it sees a socket of `open_socket`: one round trip, one mapping.

        Raises:
            NetworkError: none answered within about a second each.
        """

    @abstractmethod
    def beacon(self, remote: Endpoint, *, sock: DatagramSocket | None = None) -> None:
        """Vet, then send one small check and no second one: for a search over many ports.

        Costs next to nothing until the peer answers it, which makes a path; the core goes on from there.
        It may be sent again. Both ends share the session's secret first: see `peer_answered`.

        Args:
            remote: where to.
            sock: one of `sockets` or of `open_socket`; None: the best of `sockets`.

        Raises:
            VettingError: see `vet`.
            PluginError: before the peer has answered, over 2,048 in a session, or over 200 a second once
                256 were sent.
        """

    @abstractmethod
    async def found(self) -> Path:
        """Wait until a path came of a beacon of this strategy and is proven. The race has it then."""

    @abstractmethod
    def retire(self, transport: str) -> None:
        """Say that nothing more will come of this strategy by "tcp" or "udp".

        Optional, and for speed only: no path of a worse class is held back for it any longer. When `run`
        ends, all of it is retired.
        """

    @abstractmethod
    async def settled(self) -> None:
        """Wait until the race is over: what a strategy does that only waits for the other end."""


class Strategy(ABC):
    """Base class of every strategy. See the module's text for a whole one.

    Args:
        options: an instance of the spec's options dataclass, or None.
    """

    spec: ClassVar[StrategySpec]

    def __init__(self, options: Any = None) -> None:
        self.options = options

    @classmethod
    def plausible(cls, role: Role, local: NodeAddress, peer: NodeAddress) -> frozenset[str]:
        """The transports by which a path of this strategy may come about. Pure, and quick.

        The race holds a worse path back only while a better one is plausible; nothing is forbidden by
        it. The base class says: all that the spec names.

        Args:
            role: of this node.
            local: this node's address, with what is known of its NAT.
            peer: the peer's address.
        """
        return cls.spec.transports

    async def contribute(self, attempt: Attempt) -> bytes:
        """Return what the peer's same strategy needs to know: at most `MAX_SECTION` bytes.

        Runs before the offer (or answer) is sent, concurrently with all others. What is not ready
        within a short bound follows as a message of its own, so that nobody waits for it. What it
        opens, `close` must release: the race may be over before `run` ever starts.
        """
        return b""

    @abstractmethod
    async def run(self, attempt: Attempt) -> None:
        """Make paths by `attempt.dial`, `attempt.check` or `attempt.prove_stream`, then return.

        Starts as soon as the race plan says so: as initiator usually before the peer has answered. Is
        cancelled when a path has won; must then release what it holds and let `CancelledError` pass.
        Raise `StrategyError` to say in one sentence why nothing came of it.
        """

    async def close(self) -> None:  # noqa: B027 - optional, like contribute
        """Release what `contribute` opened and `run` did not.

        Called once per object: after `run` has ended in whatever way, or instead of it. Bounded by the
        same grace as cancelling.
        """


S = TypeVar("S", bound=type[Strategy])


def is_valid_name(name: object) -> bool:
    """Whether a plugin may be called that: lower-case words joined by hyphens, at most 24 characters."""
    return isinstance(name, str) and len(name) <= _MAX_NAME and _NAME.match(name) is not None


def register(
    name: str,
    *,
    rank: int = 50,
    transports: Iterable[str] = ("tcp", "udp"),
    tier: Tier = Tier.DIRECT,
    options: type[Any] | None = None,
    api_version: int = API_VERSION,
) -> Callable[[S], S]:
    """Validate a strategy class and stamp its `StrategySpec`; the class itself is returned unchanged.

    Nothing global happens: the class enters a node's registry by its entry point, or by
    ``registry.add(cls)``.

    Args:
        name, rank, transports, tier, options, api_version: see `StrategySpec`.

    Raises:
        PluginError: something about it is wrong; the text says what.
    """

    def stamp(cls: S) -> S:
        where = f"@register({name!r}) on {getattr(cls, '__qualname__', cls)!s}"
        if not (isinstance(cls, type) and issubclass(cls, Strategy)):
            raise PluginError(f"{where}: not a class derived from warpgate_core.Strategy")
        if not is_valid_name(name):
            raise PluginError(f"{where}: a name is lower-case words joined by '-', at most {_MAX_NAME} long")
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank <= 100:
            raise PluginError(f"{where}: rank must be a whole number from 0 (best) to 100, not {rank!r}")
        kinds = frozenset((transports,)) if isinstance(transports, str) else frozenset(transports)
        if not kinds or not kinds <= {"tcp", "udp"}:
            raise PluginError(f"{where}: transports must be 'tcp', 'udp' or both, not {transports!r}")
        if tier not in tuple(Tier):
            raise PluginError(f"{where}: tier must be Tier.DIRECT or Tier.RELAY, not {tier!r}")
        if not isinstance(api_version, int) or isinstance(api_version, bool) or api_version < 1:
            raise PluginError(f"{where}: api_version must be a whole number from 1, not {api_version!r}")
        _check_options(where, options)
        doc = (cls.__dict__.get("__doc__") or "").strip()
        summary = doc.splitlines()[0] if doc else ""
        cls.spec = StrategySpec(name, rank, kinds, Tier(tier), options, api_version, summary)
        return cls

    return stamp


def _check_options(where: str, options: type[Any] | None) -> None:
    if options is None:
        return
    if not (isinstance(options, type) and is_dataclass(options)):
        raise PluginError(f"{where}: options must be a dataclass, not {options!r}")
    for field in fields(options):
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            raise PluginError(
                f"{where}: field {field.name!r} of {options.__qualname__} needs a default, because the "
                "strategy is also made where nobody configured it"
            )
