"""Cone to symmetric NAT traversal by birthday paradox and port prediction for Warpgate.

The strategy `probe` is for pairs of NATs where one end's port cannot be known: that end opens many ports,
the other tries many, and by the birthday paradox they meet. See the README for what can be hoped for.
"""

from warpgate_probe.options import ProbeOptions
from warpgate_probe.strategy import Probe

__all__ = ["Probe", "ProbeOptions"]
