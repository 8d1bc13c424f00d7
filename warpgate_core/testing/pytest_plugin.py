"""The conformance kit as a pytest plugin: one test per check, for the strategies a test module names.

::

    @pytest.mark.warpgate_strategy(cls=MyWay)
    def test_my_way_conforms(warpgate_check):
        warpgate_check()

Mind the ``cls=``: a mark that is called with a class alone decorates that class. What else `Subject` takes
(``network="loopback"``, ``options={...}``) goes beside it.

pytest imports this module at each start wherever warpgate-core is installed, so it imports nothing of
the kit before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["pytest_configure", "pytest_generate_tests"]

FIXTURE = "warpgate_check"
MARKER = "warpgate_strategy"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{MARKER}(cls=..., **settings): the strategy class whose conformance `{FIXTURE}` checks"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise a test that asks for ``warpgate_check`` with every check of the kit."""
    if FIXTURE not in metafunc.fixturenames:
        return
    from warpgate_core.testing.checks import CHECKS  # only who uses the kit pays for it
    from warpgate_core.testing.stage import Subject

    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        raise TypeError(
            f"{metafunc.function.__name__} uses {FIXTURE} but has no @pytest.mark.{MARKER}(cls=...)"
        )
    subject = Subject(*marker.args, **marker.kwargs)
    checks: list[Callable[[], None]] = [check.bind(subject) for check in CHECKS]
    metafunc.parametrize(FIXTURE, checks, ids=[check.name for check in CHECKS])
