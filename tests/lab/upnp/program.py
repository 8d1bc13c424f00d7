"""The program of `tests.lab.e2e.program`, which also tells of port mappings.

``python -m tests.lab.upnp.program`` runs it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.lab.e2e import program
from warpgate_core import Node
from warpgate_upnp import Upnp

__all__ = ["UpnpProgram"]


class UpnpProgram(program.Program):
    """Adds orders about what plugins have published."""

    async def mapped(self, node: str, count: int, host: str = "", timeout: float = 15.0) -> dict[str, Any]:
        """Wait until the node has this many port mappings (to `host`), and tell which, and what is said."""
        made = self._nodes[node]
        changed = asyncio.Event()
        unwatch = made.on_change(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while len(found := _published(made, host)) != count:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise TimeoutError(f"{len(found)} mappings, not {count}: {found} {_said(made)}") from None
        finally:
            unwatch()
        return {"mapped": found, "said": _said(made)}

    async def said(self, node: str) -> list[str]:
        """What the plugins say of themselves."""
        return _said(self._nodes[node])

    async def settled(self, node: str, timeout: float = 15.0) -> list[str]:
        """Wait until the port-mapping plugin knows what comes of it, and tell what it says."""
        hooks = self._nodes[node].registry._plugins["upnp"].hooks
        plugin = None if hooks is None else hooks._manager.get_plugin("upnp")
        if not isinstance(plugin, Upnp) or plugin._service is None:
            raise RuntimeError("the node has no warpgate-upnp")
        async with asyncio.timeout(timeout):
            for holder, _ in tuple(plugin._service._holders.values()):
                await holder.answered.wait()
        return _said(self._nodes[node])


def _published(node: Node, host: str = "") -> list[tuple[str, str, str]]:
    """Transport, internal and external endpoint; only of that own address if there is one."""
    services = node.parts.services
    return [
        (transport, str(face.internal), str(external))
        for face in node.edge.interfaces
        for transport in ("udp", "tcp")
        if host in ("", face.internal.host)
        and (external := services.mapped(face.internal, transport)) is not None
    ]


def _said(node: Node) -> list[str]:
    return [line for _, lines in node.registry.call("warpgate_node_status") for line in lines]


if __name__ == "__main__":
    program.Program = UpnpProgram  # type: ignore[misc]
    asyncio.run(program.main())
