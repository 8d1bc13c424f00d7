"""UDP hole punching and TCP simultaneous open for Warpgate, as two strategies."""

from warpgate_punch.tcp import PunchTcp
from warpgate_punch.udp import PunchUdp, PunchUdpOptions

__all__ = ["PunchTcp", "PunchUdp", "PunchUdpOptions"]
