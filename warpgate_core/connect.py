"""`auto_connect`: the one call that most programs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from warpgate_core.address import NodeAddress
from warpgate_core.errors import ConfigError
from warpgate_core.pipe import Pipe
from warpgate_core.strategy import StrategySpec
from warpgate_core.trace import Trace

if TYPE_CHECKING:
    from warpgate_core.node import Node

__all__ = ["auto_connect"]


async def auto_connect(
    node: Node,
    dest: NodeAddress | bytes | str,
    plugins: Iterable[str] | None = None,
    timeout: float | None = None,
    transport: Literal["tcp", "udp"] | None = None,
    *,
    watch: Callable[[Trace], None] | None = None,
) -> tuple[Pipe, StrategySpec]:
    """Get a connected, authenticated pipe to another node, by whatever way works first.

    All strategies start together, share one offer and one answer, and every path they find is proven by
    the peer's key before it counts. A stream (TCP) is preferred to datagrams, and both to a relay, within
    bounds of time.

    Args:
        node: a started node.
        dest: the peer's address: bytes, text, `NodeAddress`, or a name that a plugin resolves.
        plugins: names of the strategies that may take part; None: all that are installed and enabled.
        timeout: seconds until it is given up; None: the node's configured one (20).
        transport: "tcp": only a stream will do; "udp": only datagrams; None: either.
        watch: called with the attempt's trace before it starts, to show it live.

    Returns:
        The pipe, and the spec of the strategy that made it (`.name`).

    Raises:
        ConnectError: no way worked. Holds one error per strategy, and says in one sentence what to do.
        AddressError: `dest` is damaged.
        PluginError: one of `plugins` is not there.
        ConfigError: `timeout` or `transport` make no sense.
        NodeClosedError: the node is not running.
    """
    if transport not in (None, "tcp", "udp"):
        raise ConfigError(f"transport={transport!r}: write 'tcp', 'udp' or None (either)")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout={timeout!r}: write a number of seconds above 0")
    return await node.connect(dest, plugins=plugins, timeout=timeout, transport=transport, watch=watch)
