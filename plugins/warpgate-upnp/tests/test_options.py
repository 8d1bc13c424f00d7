"""Options, as a person writes them."""

from __future__ import annotations

from typing import Any

import pytest

from warpgate_core import ConfigError, Registry
from warpgate_upnp import Options, Upnp


def with_options(given: dict[str, Any]) -> Options:
    registry = Registry(discover=False, options={"upnp": given})
    record = registry.add(Upnp, name="upnp", distribution="warpgate-upnp")
    assert set(record.hooks) == {"warpgate_node_service", "warpgate_node_status"}
    assert registry.call("warpgate_node_status") == [("upnp", [])], "no node, nothing to say"
    return Options(**given)


def test_defaults_and_changes() -> None:
    assert with_options({}) == Options()
    assert Options().lease == 600
    assert with_options({"lease": 120, "igd": False, "description": "mine"}).lease == 120


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lease": 9}, "10 to 86400"),
        ({"lease": 86_401}, "10 to 86400"),
        ({"lease": "long"}, "lease must be int"),
        ({"leas": 60}, "did you mean 'lease'"),
        ({"description": ""}, "printable"),
        ({"description": "x" * 33}, "printable"),
        ({"description": "a\r\nb"}, "printable"),
        ({"description": "Gerät"}, "printable"),
        ({"pcp": False, "nat_pmp": False, "igd": False}, "all off"),
        ({"pcp": "yes"}, "pcp must be bool"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Registry(discover=False, options={"upnp": given}).add(Upnp, name="upnp")
