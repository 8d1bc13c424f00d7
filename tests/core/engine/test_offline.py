"""How soon a call to a peer that is not there ends, in virtual time, so that the bounds are exact."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.core.worlds import ALICE, BOB, World
from warpgate_core import ConnectError, Endpoint, NodeAddress, Phase, Trace, auto_connect
from warpgate_core.engine.attempt import DIAL_WINDOW
from warpgate_core.engine.paths import CHECK_WINDOW, LAST_RETRY
from warpgate_core.signal.signaller import DELIVERY_TIMEOUT
from warpgate_core.testing.loop import run_virtual

BARELY = 0.3  # s; for the last words of all that has failed


async def _call_nobody(transport: Any, least: float, most: float) -> None:
    """Bob's machine is off: nothing comes back from its address, and nobody acknowledges the offer."""
    world = World()
    async with world.node(ALICE, world.host("alice", "198.51.100.1/24"), 7001) as alice:
        (face,) = alice.address.interfaces
        nowhere = Endpoint("198.51.100.99", 7002)
        address = NodeAddress(BOB.public_key, (replace(face, internal=nowhere, external=nowhere),))
        traces: list[Trace] = []
        with pytest.raises(ConnectError) as caught:
            await auto_connect(alice, address, transport=transport, timeout=60, watch=traces.append)
        assert least <= traces[0].elapsed <= most
        assert "could not be told that we are calling" in caught.value.message
        if transport == "tcp":
            told = [event for event in traces[0] if event.step == "dial" and event.phase is Phase.FAILED]
            assert "did not answer: it is off, or a firewall drops what we send" in told[0].detail


def test_udp_checks_that_were_sent_before_signalling_failed_count() -> None:
    sooner = max(CHECK_WINDOW, DELIVERY_TIMEOUT)
    run_virtual(partial(_call_nobody, "udp", sooner, sooner + LAST_RETRY + BARELY))


def test_a_dial_that_nobody_answers_is_given_up() -> None:
    run_virtual(partial(_call_nobody, "tcp", DIAL_WINDOW, DIAL_WINDOW + BARELY))
