"""How a node's parts start together: what fails is told as itself."""

from __future__ import annotations

import pytest

from warpgate_core import ConfigError, Identity, NetworkError, Node, NodeConfig


async def test_a_card_that_is_not_there_is_a_network_error_and_no_group() -> None:
    node = Node(NodeConfig(identity=Identity.generate(), nics="nosuch0", brokers=["127.0.0.1:9"]))
    with pytest.raises(NetworkError, match="no network card or address nosuch0") as caught:
        await node.start()
    assert not isinstance(caught.value, ExceptionGroup)


async def test_wrong_options_of_a_plugin_are_a_config_error() -> None:
    node = Node(NodeConfig(identity=Identity.generate(), options={"direct": {"speed": 9}}))
    with pytest.raises(ConfigError, match="direct"):
        await node.start()
