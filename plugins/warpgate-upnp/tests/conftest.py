"""The rules of the whole repository (`tests/conftest.py`) hold for the plugin's tests as well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import (  # noqa: F401 - hooks and fixtures that pytest finds here by their names
    no_task_is_left,
    pytest_configure,
    pytest_pyfunc_call,
    pytest_runtest_makereport,
    warpgate_home,
)

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # for `upnp_servers`, which is no test
    sys.path.append(str(HERE))


@pytest.fixture(scope="session")
def recorded() -> dict[str, bytes]:
    """What a miniupnpd 2.3.1 in the lab has said, byte for byte, by the name of its file."""
    return {path.name: path.read_bytes() for path in sorted((HERE / "recorded").iterdir())}
