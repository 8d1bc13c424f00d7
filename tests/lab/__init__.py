"""A laboratory of real networks in network namespaces: NATs, delays, losses, brokers, STUN and TURN.

::

    with Lab() as lab:
        net = lab.internet()
        a = net.home("a", nat=Nat.PORT_RESTRICTED, delay=0.020)
        b = net.home("b", nat=Nat.SYMMETRIC_RANDOM, delay=0.020, loss=0.05)
        brokers = net.brokers(3)
        stun = net.coturn()
        a.run(["warpgate", "doctor"], env=a.environment(WARPGATE_BROKERS=brokers[0].url()))

``docs/testing.md`` has the rest; ``python -m tests.lab --help`` uses it from the terminal.
"""

from tests.lab.errors import LabError, LabUnavailable
from tests.lab.home import Client, Home
from tests.lab.host import Host
from tests.lab.internet import Carrier, Internet
from tests.lab.lab import Lab, unavailable
from tests.lab.line import Delay, Line
from tests.lab.nat import Behaviour, Nat
from tests.lab.process import Service
from tests.lab.services import Broker, Coturn

__all__ = [
    "Behaviour",
    "Broker",
    "Carrier",
    "Client",
    "Coturn",
    "Delay",
    "Home",
    "Host",
    "Internet",
    "Lab",
    "LabError",
    "LabUnavailable",
    "Line",
    "Nat",
    "Service",
    "unavailable",
]
