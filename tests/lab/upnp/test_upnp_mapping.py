"""A mapping is made at the start, can be seen in the router and in the address, is renewed, and ends."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.lab import Lab, Nat
from tests.lab.upnp.agent import PROTOCOLS, UpnpAgent, mapped, router
from tests.lab.upnp.agent import says as said_by
from warpgate_core import Filtering, Mapping, NodeAddress

LEASE = 10  # s, the shortest that can be asked for


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_made_at_the_start_and_deleted_at_the_end(lab: Lab, protocol: str) -> None:
    name, options, offers = PROTOCOLS[protocol]
    net = lab.internet((4,))
    home = router(net, "a", 1, **offers)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[net.coturn().stun()], options={"upnp": options})
        found = mapped(node, 2)
        port = NodeAddress.parse(node.address).interfaces[0].internal.port
        assert found.external == {("udp", 4): f"25.1.1.1:{port}", ("tcp", 4): f"25.1.1.1:{port}"}
        inside = f"{home.client.ip4}:{port}"
        assert home.daemon.mappings() == {("udp", port): inside, ("tcp", port): inside}
        gateway = home.client.home.network4[1]
        says = f"udp and tcp {inside} is reached at 25.1.1.1:{port}, by {name} with the router {gateway}"
        assert found.said == [says]
        (face,) = NodeAddress.parse(node.refreshed().address).interfaces
        assert face.external == face.tcp_external == ("25.1.1.1", port)
        assert (face.nat.mapping, face.nat.filtering) == (Mapping.EIM, Filtering.EIF)
        took = node.stop()
        assert home.daemon.mappings() == {}
        assert took < 1.0


@pytest.mark.parametrize("protocol", ["PCP", "IGD v2"])
def test_pinholes_in_an_ipv6_firewall(lab: Lab, protocol: str) -> None:
    _, options, offers = PROTOCOLS[protocol]
    net = lab.internet((6,))
    home = router(net, "a", 1, Nat.PORT_RESTRICTED, **offers)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[], options={"upnp": options})
        found = mapped(node, 2)
        (face,) = NodeAddress.parse(node.refreshed().address).interfaces
        assert found.external == {("udp", 6): str(face.internal), ("tcp", 6): str(face.internal)}
        assert face.external == face.tcp_external == face.internal
        assert (face.nat.mapping, face.nat.filtering) == (Mapping.NONE, Filtering.EIF)
        port = face.internal.port
        assert home.daemon.pinholes() == {("udp", port), ("tcp", port)}
        node.stop()
        assert home.daemon.pinholes() == set()


def test_both_families_at_once_and_in_the_first_address(lab: Lab) -> None:
    net = lab.internet()
    home = router(net, "a", 1)
    with UpnpAgent(home.client) as agent:
        node = agent.start(brokers=[], stun=[])
        faces = NodeAddress.parse(node.address).interfaces
        mapped(node, 4)
        assert len(faces) == 2
        assert len(home.daemon.mappings()) == len(home.daemon.pinholes()) == 2


def test_switched_off_it_asks_nobody(lab: Lab) -> None:
    net = lab.internet()
    home = router(net, "a", 1)
    with UpnpAgent(home.client) as agent:
        agent.start(brokers=[], stun=[], disable=["upnp"])
        assert home.daemon.mappings() == {}


def test_a_router_that_offers_nothing(lab: Lab) -> None:
    net = lab.internet()
    client = net.home("a", Nat.PORT_RESTRICTED)
    with UpnpAgent(client) as agent:
        node = agent.start(brokers=[], stun=[])
        assert "no router answers a UPnP search" in said_by(node)
        began = time.monotonic()
        node.stop()
        assert time.monotonic() - began < 0.5


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_renewed_while_it_lives_and_run_out_when_killed(lab: Lab) -> None:
    """Time is what this is about: two lives of a lease pass, and then one more without the node."""
    with ExitStack() as stack:
        net = lab.internet()
        homes = {}
        for number, (protocol, (_, options, offers)) in enumerate(PROTOCOLS.items(), 1):
            homes[protocol] = home = router(net, f"h{number}", number, **offers)
            agent = stack.enter_context(UpnpAgent(home.client))
            node = agent.start(brokers=[], stun=[], options={"upnp": options | {"lease": LEASE}})
            mapped(node, 2 if protocol in ("NAT-PMP", "IGD v1") else 4)
            stack.callback(agent.kill)
        time.sleep(2.2 * LEASE)
        for protocol, home in homes.items():
            assert len(home.daemon.mappings()) == 2, protocol
            assert len(home.daemon.pinholes()) == (0 if protocol in ("NAT-PMP", "IGD v1") else 2), protocol
        stack.close()  # kills the programs
        for protocol, home in homes.items():
            assert len(home.daemon.mappings()) == 2, f"{protocol}: killed, it could not give back"
        time.sleep(LEASE + 2)
        for protocol, home in homes.items():
            assert home.daemon.mappings() == {}, protocol
            assert home.daemon.pinholes() == set(), protocol


def test_started_again_after_a_kill_it_has_its_mapping_again(lab: Lab) -> None:
    """Same identity, same port: the PCP nonce is the same, so the mapping is still ours."""
    net = lab.internet((4,))
    home = router(net, "a", 1)
    first = UpnpAgent(home.client)
    with first:
        mapped(first.start(brokers=[], stun=[], port=4444), 2)
        first.kill()
    assert len(home.daemon.mappings()) == 2
    with UpnpAgent(home.client) as second:
        node = second.start(brokers=[], stun=[], port=4444)
        assert mapped(node, 2).ports == {4444}
        node.stop()
        assert home.daemon.mappings() == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_machines_that_want_the_same_port(lab: Lab, protocol: str) -> None:
    _, options, offers = PROTOCOLS[protocol]
    net = lab.internet((4,))
    home = router(net, "a", 1, **offers)
    other = home.client.home.machine("a2")
    with UpnpAgent(home.client) as one, UpnpAgent(other) as two:
        first = one.start(brokers=[], stun=[], port=4444, options={"upnp": options})
        assert mapped(first, 2).ports == {4444}
        second = two.start(brokers=[], stun=[], port=4444, options={"upnp": options})
        ports = mapped(second, 2).ports
        assert 4444 not in ports
        table = home.daemon.mappings()
        assert len(table) == 4
        assert {inside for (_, port), inside in table.items() if port in ports} == {f"{other.ip4}:4444"}
        second.stop()
        assert set(home.daemon.mappings().values()) == {f"{home.client.ip4}:4444"}


def test_an_address_that_comes_later_is_mapped_and_one_that_goes_is_withdrawn(lab: Lab) -> None:
    net = lab.internet((4,))
    home = router(net, "a", 1)
    client = home.client
    with UpnpAgent(client) as agent:
        node = agent.start(brokers=[], stun=[])
        mapped(node, 2)
        inside = str(client.home.network4[77])
        client.namespace.script(["echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries"])
        client.namespace.ip([f"address add {inside}/24 dev eth0", f"address delete {client.ip4}/24 dev eth0"])
        mapped(node, 2, host=inside)
        mapped(node, 0, host=client.ip4)
        assert inside in {internal.rpartition(":")[0] for internal in home.daemon.mappings().values()}
