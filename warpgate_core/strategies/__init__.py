"""The strategies that every node has. They use the same contract as any plugin."""

from warpgate_core.strategies.direct import Direct
from warpgate_core.strategies.reverse import Reverse

__all__ = ["BUILT_IN", "Direct", "Reverse"]

BUILT_IN = (Direct, Reverse)
