"""What may be set. The defaults are the bounds of the design, and may be lowered but not raised."""

from __future__ import annotations

from dataclasses import dataclass, field

from warpgate_probe.gate import Gate

__all__ = ["MAX_PROBES", "MAX_RATE", "MAX_SOCKETS", "MIN_SPACING", "ProbeOptions"]

# DESIGN section 7. By the birthday paradox 256 sockets and 1,200 probes meet among 64,512 ports with
# p = 1 - exp(-256 * 1200 / 64512) = 99.1 %; half of the searches end after 0.9 s at 200 a second.
MAX_SOCKETS = 256
MAX_PROBES = 1_200
MAX_RATE = 200.0
MIN_SPACING = 20.0


@dataclass(frozen=True)
class ProbeOptions:
    """Options of `probe`.

    Args:
        sockets: at most so many open in one search, 1 to 256.
        probes: at most so many sent in one search, 1 to 1,200.
        rate: probes per second, at most 200.
        spacing: seconds from the beginning of one search of this node to that of the next, at least 20.
        gate: what keeps to that; made by itself.
    """

    sockets: int = MAX_SOCKETS
    probes: int = MAX_PROBES
    rate: float = MAX_RATE
    spacing: float = MIN_SPACING
    gate: Gate = field(default_factory=Gate, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.sockets <= MAX_SOCKETS:
            raise ValueError(f"sockets is 1 to {MAX_SOCKETS}, not {self.sockets}")
        if not 1 <= self.probes <= MAX_PROBES:
            raise ValueError(f"probes is 1 to {MAX_PROBES}, not {self.probes}")
        if not 1.0 <= self.rate <= MAX_RATE:
            raise ValueError(f"rate is 1 to {MAX_RATE:g} a second, not {self.rate:g}")
        if not MIN_SPACING <= self.spacing <= 86_400.0:
            raise ValueError(f"spacing is {MIN_SPACING:g} s or more, up to a day, not {self.spacing:g}")
