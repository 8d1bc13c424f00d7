"""Wheels are built once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.distributions import MEMBERS, ROOT, build_wheels


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels and source distributions of all distributions of the workspace."""
    out = tmp_path_factory.mktemp("wheels")
    build_wheels(out, ROOT, *MEMBERS)
    return out
