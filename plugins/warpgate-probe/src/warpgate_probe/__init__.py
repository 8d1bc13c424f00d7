"""Cone to symmetric NAT traversal by birthday paradox and port prediction for Warpgate.

No strategy is registered yet, so this distribution declares no entry point.
"""

__all__: list[str] = []
