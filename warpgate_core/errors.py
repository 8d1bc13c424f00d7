"""The error tree: every exception that leaves this library on purpose.

One root, `WarpgateError`, so that a program can catch all of it with one line. Below it the branches
answer the question a person asks first: is it what I typed (`InputError`), what the other machine sent
(`RemoteError`), the network (`NetworkError`), or a plugin (`PluginError`)? A text says what was wrong,
where, and what to do about it. Secrets never enter a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

__all__ = [
    "AddressError",
    "BrokerError",
    "ConfigError",
    "ConnectError",
    "EnvelopeError",
    "IdentityError",
    "InputError",
    "NetworkError",
    "NoBrokerError",
    "NodeClosedError",
    "PeerLostError",
    "PipeClosedError",
    "PipeError",
    "PluginError",
    "ProtocolError",
    "RefusedError",
    "RemoteError",
    "StrategyError",
    "VettingError",
    "WarpgateError",
]


class WarpgateError(Exception):
    """Root of every error that this library raises on purpose."""


class InputError(WarpgateError, ValueError):
    """Something the caller gave us cannot be used as it is."""


class AddressError(InputError):
    """A node address (bytes or text) is damaged, truncated or of an unknown version."""


class ConfigError(InputError):
    """A setting, environment variable, option or server URL is not usable."""


class IdentityError(InputError):
    """A key, or the file that holds it, is not usable."""


class RemoteError(WarpgateError):
    """What came from another machine breaks the protocol. Never our fault; nothing of it was used."""


class EnvelopeError(RemoteError):
    """A sealed envelope was refused. `reason` is a short stable word for counters and tests.

    Args:
        reason: one of ``malformed``, ``version``, ``sealed`` (cannot be opened), ``signature``,
            ``recipient``, ``stale``, ``future``, ``replay``, ``size``.
        detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason


class ProtocolError(RemoteError):
    """A frame, offer, answer or section is malformed or out of order."""


class RefusedError(RemoteError):
    """The peer received our offer and said no. `code` is stable; see docs/protocol.md."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NetworkError(WarpgateError):
    """The network, a server on it, or the operating system did not do what was asked."""


class BrokerError(NetworkError):
    """A signalling broker could not be used."""


class NoBrokerError(BrokerError):
    """No broker is configured, or none is alive."""


class VettingError(NetworkError):
    """An endpoint named by a peer is one that we do not send to (loopback, multicast, our own servers)."""


class StrategyError(NetworkError):
    """One strategy did not come to a path.

    Args:
        strategy: its name; empty if it is what all of them wait for.
        stage: how far it came, a short phrase ("waiting for an answer", "dialling 203.0.113.4:9").
        detail: one sentence for a person: why, and what would help.
    """

    def __init__(self, strategy: str, stage: str, detail: str) -> None:
        text = f"{strategy}: {detail}" if strategy else detail
        super().__init__(f"{text} (while {stage})" if stage else text)
        self.strategy = strategy
        self.stage = stage
        self.detail = detail


class ConnectError(WarpgateError, ExceptionGroup[Exception]):
    """No strategy came to a pipe. Holds one error per strategy that took part.

    The message is the one sentence a person needs; `exceptions` holds each strategy's own
    `StrategyError` (or the `RefusedError` of the peer).
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(message, exceptions)

    def derive(self, excs: Sequence[Exception], /) -> ConnectError:  # type: ignore[override]
        return ConnectError(self.message, excs)


class PluginError(WarpgateError):
    """A plugin cannot be loaded, registered or configured. The others go on working."""


class PipeError(WarpgateError):
    """A pipe cannot carry what was asked."""


class PipeClosedError(PipeError):
    """The pipe ended in an orderly way: closed by the peer, or by this side."""


class PeerLostError(PipeError):
    """The peer vanished without a goodbye: reset, no consent (RFC 7675), or the network went."""


class NodeClosedError(WarpgateError):
    """The node was closed, or was never started."""
