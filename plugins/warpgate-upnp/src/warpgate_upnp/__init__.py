"""Port mappings and IPv6 pinholes (UPnP-IGD, NAT-PMP, PCP) for Warpgate.

Installed is in use: every node asks its router for a mapping of its UDP and TCP port, publishes it in its
address, renews it, and gives it back when it closes. See the README for what can be set.
"""

from warpgate_upnp.options import Options
from warpgate_upnp.service import Upnp
from warpgate_upnp.status import MappingStatus

__all__ = ["MappingStatus", "Options", "Upnp"]
