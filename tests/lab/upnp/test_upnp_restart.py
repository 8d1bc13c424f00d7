"""The router restarts: at once, politely, or for good."""

from __future__ import annotations

import pytest

from tests.lab import Lab
from tests.lab.upnp.agent import PROTOCOLS, UpnpAgent, mapped, router


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_router_that_loses_everything_has_it_again_within_seconds(lab: Lab, protocol: str) -> None:
    """The lease is ten minutes, so nothing but the router's announcements can be what we act on."""
    _, options, offers = PROTOCOLS[protocol]
    net = lab.internet((4,))
    home = router(net, "a", 1, **offers)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[net.coturn().stun()], options={"upnp": options})
        before = mapped(node, 2)
        home.daemon.reboot()
        assert set(home.daemon.wait_mappings(2)) == {
            (kind, port) for kind in ("udp", "tcp") for port in before.ports
        }
        assert mapped(node, 2).external == before.external
        node.stop()
        assert home.daemon.mappings() == {}


@pytest.mark.parametrize("protocol", ["PCP", "IGD v2"])
def test_pinholes_as_well(lab: Lab, protocol: str) -> None:
    _, options, offers = PROTOCOLS[protocol]
    net = lab.internet((6,))
    home = router(net, "a", 1, **offers)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[], options={"upnp": options})
        mapped(node, 2)
        home.daemon.reboot()
        home.daemon.wait_pinholes(2)
        mapped(node, 2)


def test_another_protocol_takes_over(lab: Lab) -> None:
    """After the restart the router speaks UPnP only."""
    net = lab.internet((4,))
    home = router(net, "a", 1)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[])
        assert "by PCP" in mapped(node, 2).said[0]
        home.daemon.configure(port_control=False)
        home.daemon.reboot()
        home.daemon.wait_mappings(2)
        assert "by UPnP" in mapped(node, 2).said[0]
