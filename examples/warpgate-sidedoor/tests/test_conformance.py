"""The side door passes every check that Warpgate has for strategies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from warpgate_sidedoor import SideDoor


@pytest.mark.warpgate_strategy(cls=SideDoor, network="loopback")
def test_the_side_door_conforms(warpgate_check: Callable[[], None]) -> None:
    warpgate_check()
