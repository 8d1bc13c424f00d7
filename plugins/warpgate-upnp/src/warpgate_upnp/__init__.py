"""Port mappings and IPv6 pinholes (UPnP-IGD, NAT-PMP, PCP) for Warpgate.

No strategy is registered yet, so this distribution declares no entry point.
"""

__all__: list[str] = []
