"""The connected, authenticated channel that everything else in this library exists to make.

`Pipe` is what both kinds share; `StreamPipe` carries raw bytes over TCP, `DatagramPipe` one message per
UDP datagram. See `docs/protocol.md` for the bytes.
"""

from warpgate_core.pipe.base import SUB_ALL, Path, Pipe, Sub
from warpgate_core.pipe.consent import Consent, ConsentState, Frame
from warpgate_core.pipe.datagram import MAX_MESSAGE, DatagramPipe
from warpgate_core.pipe.mux import Channel, DatagramMux
from warpgate_core.pipe.stream import Preamble, StreamPipe

__all__ = [
    "MAX_MESSAGE",
    "SUB_ALL",
    "Channel",
    "Consent",
    "ConsentState",
    "DatagramMux",
    "DatagramPipe",
    "Frame",
    "Path",
    "Pipe",
    "Preamble",
    "StreamPipe",
    "Sub",
]
