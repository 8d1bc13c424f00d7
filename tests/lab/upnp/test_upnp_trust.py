"""Routers that know less than they say: nothing wrong is published, and the reason is told."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.miniupnpd import WAN, Miniupnpd
from tests.lab import Lab, Nat
from tests.lab.upnp.agent import PROTOCOLS, UpnpAgent, mapped, router, says
from warpgate_core import NodeAddress


def test_a_router_behind_a_carriers_nat(lab: Lab) -> None:
    """Its own external address is believed by nobody: STUN sees the carrier's."""
    net = lab.internet((4,))
    isp = net.carrier("isp", Nat.PORT_RESTRICTED)
    client = isp.home("a", Nat.PORT_RESTRICTED, firewall6=False)
    daemon = Miniupnpd(client.home, options=["ext_ip=25.9.9.9"])
    with UpnpAgent(client) as agent:
        node = agent.start(brokers=[], stun=[net.coturn().stun()])
        said = says(node)
        assert "calls 25.9.9.9 its external address" in said
        assert f"is seen as {isp.outer4}" in said
        (face,) = NodeAddress.parse(node.refreshed("settle").address).interfaces
        assert face.external is not None
        assert face.external.host == isp.outer4
        assert face.tcp_external is None
        assert daemon.mappings() == {}, "what is of no use is given back"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_router_that_knows_that_it_is_behind_a_nat(lab: Lab, protocol: str) -> None:
    """miniupnpd sees a reserved address on its outside, and maps nothing."""
    _, options, offers = PROTOCOLS[protocol]
    net = lab.internet((4,))
    isp = net.carrier("isp", Nat.PORT_RESTRICTED)
    client = isp.home("a", Nat.PORT_RESTRICTED, firewall6=False)
    daemon = Miniupnpd(client.home, **offers)
    with UpnpAgent(client) as agent:
        node = agent.start(brokers=[], stun=[], options={"upnp": options})
        assert "no port mapping for udp and tcp" in says(node)
        assert NodeAddress.parse(node.refreshed().address).interfaces[0].tcp_external is None
        assert daemon.mappings() == {}


def test_a_router_that_does_not_allow_it(lab: Lab) -> None:
    net = lab.internet((4,))
    home = router(net, "a", 1, port_control=False, rules=["deny 0-65535 0.0.0.0/0 0-65535"])
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[])
        assert "does not allow it (UPnP error 606)" in says(node)


def test_stun_that_agrees(lab: Lab) -> None:
    net = lab.internet((4,))
    home = router(net, "a", 1)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[net.coturn().stun()])
        found = mapped(node, 2)
        node.call("settle")
        assert mapped(node, 2).external == found.external


def test_the_doctor_tells(lab: Lab) -> None:
    net = lab.internet((4,))
    home = router(net, "a", 1)
    client = net.home("b", Nat.PORT_RESTRICTED)
    stun = net.coturn().stun()
    for machine, wanted in ((home.client, {"udp", "tcp"}), (client, set())):
        found = machine.run(
            ["warpgate", "doctor", "--json"], env=machine.environment(WARPGATE_STUN=stun), check=False
        )
        (face,) = json.loads(found.stdout)["interfaces"]
        assert set(face["port_mappings"]) == wanted
        if wanted:
            assert all(outside.startswith(WAN.format(number=1)) for outside in face["port_mappings"].values())
    assert home.daemon.mappings() == {}
