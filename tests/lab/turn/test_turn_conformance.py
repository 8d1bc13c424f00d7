"""The conformance kit, with a real coturn on loopback, alone: no other strategy takes part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.certificates import Certificates
from tests.lab.turn.coturn import TurnServerProgram
from warpgate_core.testing.conformance import CHECKS, Check, Subject
from warpgate_turn import Turn


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def coturn(certificates: Certificates) -> Iterator[TurnServerProgram]:
    with TurnServerProgram(tls=certificates) as server:
        yield server


@pytest.mark.parametrize("via", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_conformance(
    check: Check, via: str, coturn: TurnServerProgram, certificates: Certificates, tmp_path: Path
) -> None:
    options = {"servers": [coturn.url(via)], "ca_file": str(certificates.cafile)}
    check.bind(Subject(Turn, "loopback", options))()
    coturn.wait_until_empty()


def test_all_of_it_was_about_relays(coturn: TurnServerProgram) -> None:
    assert coturn.made > 50
