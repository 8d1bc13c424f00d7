"""TURN relays for Warpgate (RFC 8656): the strategy `turn`."""

from warpgate_turn.options import TurnOptions
from warpgate_turn.strategy import Turn

__all__ = ["Turn", "TurnOptions"]
