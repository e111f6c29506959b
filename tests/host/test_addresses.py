# SPDX-License-Identifier: Apache-2.0
"""Hosts with several addresses: each direction by another, and end hosts that move (paper II-A, docs/protocol.md 4.8)."""

import pytest

TO_SERVER = {"filter": "tcp dst port 5001"}


@pytest.fixture
def net(world):
    """Both end hosts have two addresses."""
    world.client = world.add("client", "10.0.0.2", "10.1.0.2")
    world.mb1, world.mb2 = world.chain("mb1", "mb2")
    world.server = world.add("server", "10.0.3.2", "10.1.3.2")
    world.client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    return world


def ways(host, side):
    """The ends of the subsessions of a host on one side."""
    return {(s[f"{side}_sub"]["src"], s[f"{side}_sub"]["dst"]) for s in host.sessions().values()}


def test_a_session_begins_and_ends_at_whichever_address_it_has_been_opened_with(net):
    pairs = net.talk(net.client, net.server, local="10.1.0.2", address="10.1.3.2")
    pairs += net.talk(net.client, net.server, local="10.0.0.2", address="10.1.3.2")
    assert ways(net.client, "right") == {("10.1.0.2", net.names["mb1"]), ("10.0.0.2", net.names["mb1"])}
    assert ways(net.server, "left") == {(net.names["mb1"], "10.1.3.2")}
    for here, _ in pairs:
        assert net.client.reconfigure(net.client.nonce(here), chain=["mb2"], until="10.1.3.2") == ("done", "")
    net.run(0.2)
    assert ways(net.client, "right") == {("10.1.0.2", net.names["mb2"]), ("10.0.0.2", net.names["mb2"])}
    net.finish(pairs)
    net.emptied()


def move(host, nonce, address):
    assert host.core.command("move", nonce=nonce, tuple={"src": address}) == "not"


@pytest.fixture
def moved(net):
    net.names |= {"10.1.3.2": "10.1.3.2", "10.0.3.2": "10.0.3.2"}
    net.pairs = net.talk(net.client, net.server)
    net.nonce = net.client.nonce(net.pairs[0][0])
    return net


def settled(net):
    net.run(0.2)
    net.quiet = True
    net.run(4.0)
    net.quiet = False
    assert not [r for host in net.hosts.values() for r in host.core.reconfig_map.items()]


def test_a_client_moves_and_drops_its_first_address(moved):
    move(moved.client, moved.nonce, "10.1.0.2")
    assert moved.client.reconfigure(moved.nonce) == ("done", "")
    settled(moved)
    assert ways(moved.client, "right") == {("10.1.0.2", moved.names["mb1"])}
    moved.lost = lambda host, s: "10.0.0.2" in (s.src[0], s.dst[0])  # nobody has it any more
    moved.run(0.2)
    assert moved.client.reconfigure(moved.nonce, chain=["mb2"], until="server") == ("done", "")
    moved.run(0.2)
    moved.finish(moved.pairs)
    moved.emptied()


def test_a_server_asks_its_left_neighbour_for_a_path_to_its_second_address(moved):
    move(moved.server, moved.nonce, "10.1.3.2")
    txid = moved.server.core.new_txid(moved.nonce)
    assert moved.server.core.command("trigger", nonce=moved.nonce, txid=txid) == "not"
    moved.run_until(lambda: ways(moved.server, "left") == {(moved.names["mb1"], "10.1.3.2")}, 10)
    settled(moved)
    moved.lost = lambda host, s: "10.0.3.2" in (s.src[0], s.dst[0])
    moved.run(0.2)
    assert moved.client.reconfigure(moved.nonce, until="10.1.3.2") == ("done", "")
    moved.run(0.2)
    moved.finish(moved.pairs)
    moved.emptied()


def test_both_ends_move_at_once(moved):
    """What the sockets know and what is on the wire are other addresses, at both ends."""
    move(moved.client, moved.nonce, "10.1.0.2")
    move(moved.server, moved.nonce, "10.1.3.2")
    assert moved.client.reconfigure(moved.nonce, until="server") == ("done", "")
    settled(moved)
    assert ways(moved.client, "right") == {("10.1.0.2", "10.1.3.2")}
    for socket in moved.pairs[0]:  # the sockets keep what they know
        assert {socket.local[0], socket.remote[0]} == {"10.0.0.2", "10.0.3.2"}
    moved.finish(moved.pairs)
    moved.emptied()


def test_an_address_that_is_not_the_hosts_own_is_no_home(moved):
    assert moved.client.core.command("move", nonce=moved.nonce, tuple={"src": "10.1.3.2"}) == "bad_state"
    assert moved.mb1.core.command("move", nonce=moved.nonce, tuple={"src": moved.names["mb1"]}) == "bad_state"
    moved.finish(moved.pairs)
