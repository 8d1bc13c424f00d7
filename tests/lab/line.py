"""A line: the wire between a home's router (or a server) and the network above it.

Without delay it is a veth pair. With delay it is two TUN devices and the forwarder between them. Both
are point to point without ARP, so that routes look the same for either and the first packet is not held
up by a neighbour search. Loss is an nftables rule on the upper side, which keeps no connection state, so
that a lost packet has still made its mapping in the NAT below, as it would on a real line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import forwarder as forwarder_script
from tests.lab.errors import LabError
from tests.lab.namespace import Namespace

__all__ = ["LINE_RULES", "Delay", "Forwarder", "Line", "both_ways"]

# Both ends of an ARP-less Ethernet line must carry the same address, or frames are taken for another's.
MAC = "02:00:5e:00:53:01"  # from the documentation range of RFC 7042 section 2.1.1, local bit set
SHARES = 10000  # loss is set in steps of one in this many
TXQUEUE = 5000  # packets a TUN device holds while the forwarder is busy

# The upper side's table: every line may be cut, and has its own chain for what it loses.
LINE_RULES = """
table inet lines {
  set cut { type ifname; }
  map up { type ifname : verdict; }
  map down { type ifname : verdict; }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @cut drop
    iifname vmap @up
  }
  chain forward {
    type filter hook forward priority mangle; policy accept;
    oifname @cut drop
    oifname vmap @down
  }
}
"""


@dataclass(frozen=True, slots=True)
class Delay:
    """How a delayed line behaves in one direction.

    Args:
        seconds: added to every packet.
        rate: bytes per second, or None for as fast as it goes.
    """

    seconds: float = 0.0
    rate: float | None = None


def both_ways(value: float | tuple[float, float]) -> tuple[float, float]:
    """One number for both directions, or (up, down)."""
    return value if isinstance(value, tuple) else (value, value)


class Forwarder:
    """The delay process of one lab (`tests.lab.forwarder`), and the conversation with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(forwarder_script.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def order(self, **order: Any) -> dict[str, Any]:
        """Give one order and return the answer.

        Raises:
            LabError: it could not be carried out.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise LabError("the delay forwarder has no control channel")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"ok": false}')
        if not answer["ok"]:
            raise LabError(f"the delay forwarder on {order}: {answer.get('error', 'it has ended')}")
        return answer

    def statistics(self) -> dict[str, Any]:
        """Packets carried and dropped per line, and lateness (seconds) since the last call."""
        return self.order(do="statistics")

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()


class Line:
    """A line from `lower` (device `device`) up to `upper` (device `name`).

    Args:
        forwarder: gives the delay process; called only if there is a delay.
        upper: namespace of the network above; must hold `LINE_RULES`.
        name: unique in `upper`, at most 15 characters.
        lower: namespace of the router or server below.
        device: what the line is called there.
        delay: one way, (up, down).
        loss: share of packets lost, (up, down), 0 to 1.
    """

    def __init__(
        self,
        forwarder: Forwarder | None,
        upper: Namespace,
        name: str,
        lower: Namespace,
        device: str,
        delay: tuple[Delay, Delay] = (Delay(), Delay()),
        loss: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.name = name
        self.device = device
        self._forwarder = forwarder
        self._upper = upper
        if forwarder is None:
            other = f"peer name {name} address {MAC} netns {upper.name}"
            lower.ip([f"link add {device} address {MAC} type veth {other}"])
        else:
            ends = [
                {"namespace": str(lower.path), "device": device},
                {"namespace": str(upper.path), "device": name},
            ]
            forwarder.order(do="add", line=name, ends=ends, **_numbers(delay))
        for namespace, end in ((lower, device), (upper, name)):
            namespace.ip([f"link set {end} arp off txqueuelen {TXQUEUE} addrgenmode none up"])
        if any(loss):
            self.set_loss(*loss)

    def set_loss(self, up: float, down: float | None = None) -> None:
        """Lose this share (0 to 1) of the packets going up, and down (None: the same)."""
        orders = []
        for direction, share in (("up", up), ("down", up if down is None else down)):
            chain = f"{direction}_{self.name}"
            orders += [f"add chain inet lines {chain}", f"flush chain inet lines {chain}"]
            if lost := round(share * SHARES):
                orders.append(f"add rule inet lines {chain} numgen random mod {SHARES} < {lost} drop")
            orders.append(f'add element inet lines {direction} {{ "{self.name}" : jump {chain} }}')
        self._upper.nft("\n".join(orders))

    def set_delay(self, up: Delay, down: Delay | None = None) -> None:
        """Change the delay of a delayed line; packets on their way keep theirs.

        Raises:
            LabError: the line was made without delay, so it is a plain veth pair.
        """
        if self._forwarder is None:
            raise LabError(f"{self.name} was made without delay and cannot be given one")
        self._forwarder.order(do="set", line=self.name, **_numbers((up, up if down is None else down)))

    def cut(self) -> None:
        """Let nothing through any more, silently, as when a cable is pulled further up."""
        self._upper.nft(f'add element inet lines cut {{ "{self.name}" }}')

    def mend(self) -> None:
        """Undo `cut`."""
        self._upper.nft(f'delete element inet lines cut {{ "{self.name}" }}')


def _numbers(delay: Sequence[Delay]) -> dict[str, list[float | None]]:
    return {"delay": [way.seconds for way in delay], "rate": [way.rate for way in delay]}
