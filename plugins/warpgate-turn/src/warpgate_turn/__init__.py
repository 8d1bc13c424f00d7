"""TURN relays for Warpgate.

No strategy is registered yet, so this distribution declares no entry point.
"""

__all__: list[str] = []
