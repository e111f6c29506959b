# SPDX-License-Identifier: Apache-2.0
"""NATs without an agent on the way (paper II-B): of the source, before the client; of the destination, before what it forwards
ports to."""

import pytest

from tests.host.segments import readdressed

TO_SERVER = {"filter": "tcp dst port 5001"}


def masquerade(gate, inside):
    """`gate` gives what comes from those hosts its own address and ports of its own; what nobody has asked for it drops."""
    given, port = {}, iter(range(61000, 65000))

    def rewrite(s, frame):
        if s.src[0] in {h.addresses[0] for h in inside}:
            if s.src not in given:
                given[s.src] = (gate.addresses[0], next(port))
            return readdressed(frame, src=given[s.src])
        back = {new: old for old, new in given.items()}
        return readdressed(frame, dst=back[s.dst]) if s.dst in back else None

    gate.rewrite = rewrite


def forward_ports(gate, to):
    """What comes to port 5001 of `gate` goes to that host; answers come from the gate again."""
    clients = {}

    def rewrite(s, frame):
        if s.dst == (gate.addresses[0], 5001):
            clients[s.src] = True
            return readdressed(frame, dst=(to.addresses[0], 5001))
        if s.src == (to.addresses[0], 5001) and s.dst in clients:
            return readdressed(frame, src=(gate.addresses[0], 5001))
        return None  # a port that is not forwarded, or what begins inside

    gate.rewrite = rewrite


@pytest.fixture
def behind_nat(world):
    client, gate = world.add("client"), world.add("gate", agent=False)
    mb1, mb2, server = world.chain("mb1", "mb2", "server")
    client.via = {"default": "gate"}
    masquerade(gate, [client])
    client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    world.client, world.gate, world.mb1, world.mb2, world.server = client, gate, mb1, mb2, server
    world.pairs = world.talk(client, server, count=2)
    return world


def test_beyond_a_nat_a_session_is_known_by_its_public_five_tuple(behind_nat):
    for host in (behind_nat.mb1, behind_nat.server):
        assert {s["right_tuple"]["src"] for s in host.sessions().values()} == {behind_nat.gate.addresses[0]}
    flags = [{s["flags"] & 512 for s in h.sessions().values()} for h in (behind_nat.mb1, behind_nat.server)]
    assert flags == [{512}, {0}]  # SESSION_NAT: only the first agent beyond has it on its left
    behind_nat.finish(behind_nat.pairs)
    behind_nat.emptied()


def test_the_private_side_reconfigures_across_it_and_the_other_side_is_refused(behind_nat):
    client, mb1 = behind_nat.client, behind_nat.mb1
    for here, _ in behind_nat.pairs:
        nonce = client.nonce(here)
        assert mb1.core.command("trigger", nonce=nonce, txid=mb1.core.new_txid(nonce), flags=1) == "nat"
        assert client.reconfigure(nonce, chain=["mb2"], until="server") == ("done", "")
        assert client.reconfigure(nonce, until="server") in (("done", ""), ("refused", "busy"))
        behind_nat.run(0.3)
        assert client.reconfigure(nonce, chain=["mb1"], until="server") == ("done", "")
    behind_nat.run(0.3)
    behind_nat.finish(behind_nat.pairs)
    behind_nat.emptied()


def test_two_clients_behind_one_nat_have_the_same_private_five_tuple(world):
    """Twins: the same address, in two networks behind gates of one public address each; same ports."""
    clients, pairs = [], []
    mb1, server = world.chain("mb1", "server")
    for name in ("a", "b"):
        gate = world.add(f"gate {name}", agent=False)
        client = world.add(f"client {name}", "192.168.0.2")
        client.via, gate.via = {"default": f"gate {name}"}, {"192.168.0.2": f"client {name}"}
        masquerade(gate, [client])
        client.policies.add({**TO_SERVER, "chain": ["mb1"]})
        clients.append(client)
        pairs += world.talk(client, server, sport=41000)
    assert len(mb1.sessions()) == len({tuple(s["left_tuple"].values()) for s in mb1.sessions().values()}) == 2
    for client, (here, _) in zip(clients, pairs, strict=True):
        assert client.reconfigure(client.nonce(here), until="server") == ("done", "")
    world.run(0.3)
    world.finish(pairs)
    world.emptied()


# ---- port forwarding ----


@pytest.fixture
def forwarded(world):
    """client - mb1 - (gate) - server: the server is known as gate:5001."""
    client, mb1, mb2, server = world.chain("client", "mb1", "mb2", "server")
    gate = world.add("gate", agent=False)
    server.via = {"default": "gate"}
    forward_ports(gate, server)
    client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    world.client, world.mb1, world.mb2, world.gate, world.server = client, mb1, mb2, gate, server
    world.pairs = world.talk(client, server, address=gate.addresses[0])
    return world


def test_a_server_behind_port_forwarding_is_a_right_anchor(forwarded):
    """It is named by the address that the left side knows it by, and every new path comes in by that."""
    client = forwarded.client
    for here, _ in forwarded.pairs:
        nonce = client.nonce(here)
        for boxes in (["mb2"], [], ["mb1", "mb2"]):
            assert client.reconfigure(nonce, chain=boxes, until="gate") == ("done", "")
            forwarded.run(0.3)
        assert client.reconfigure(nonce, remove=True) == ("done", "")  # up to the neighbour of who leaves: mb2
        forwarded.run(0.3)
        assert client.reconfigure(nonce, remove=True) == ("done", "")  # ... the gate, as mb2 knows the server
        forwarded.run(0.3)
    assert not any(host.counters.get("drop_misaddressed") for host in (client, forwarded.mb1, forwarded.server))
    forwarded.finish(forwarded.pairs)
    forwarded.emptied()


def test_the_name_that_it_has_inside_means_nothing_to_the_left_side(forwarded):
    nonce = forwarded.client.nonce(forwarded.pairs[0][0])
    assert forwarded.client.reconfigure(nonce, until="server") == ("refused", "forwarded")
    server = forwarded.server
    assert server.core.command("trigger", nonce=nonce, txid=server.core.new_txid(nonce), flags=0) == "forwarded"
    forwarded.finish(forwarded.pairs)


def test_heartbeats_pass_port_forwarding(forwarded):
    forwarded.quiet = True
    forwarded.run(0.1)
    for host in (forwarded.client, forwarded.mb1):
        host.expiry.ask_after(1.0)
    forwarded.run(10.0)
    assert forwarded.server.counters["control_received"] > 5
    assert not forwarded.client.told("session_lost") + forwarded.mb1.told("session_lost")
    forwarded.quiet = False
    forwarded.run(0.1)
    forwarded.finish(forwarded.pairs)


def test_past_a_middlebox_behind_port_forwarding_there_is_no_way_in(world):
    """client - (gate) - mb1 - server: mb1 is a right anchor; it leads what lies to its right, and refuses to be passed."""
    client, mb1, mb2, server = world.chain("client", "mb1", "mb2", "server")
    gate = world.add("gate", agent=False)
    mb1.via = {client.addresses[0]: "gate", mb2.addresses[0]: "gate"}
    forward_ports(gate, mb1)
    client.policies.add({**TO_SERVER, "chain": ["gate"]})
    pairs = world.talk(client, server)
    nonce = client.nonce(pairs[0][0])
    assert client.reconfigure(nonce, until="server") == ("refused", "forwarded")
    assert client.reconfigure(nonce, remove=True) == ("refused", "forwarded")
    assert {s["lock"] for h in (client, mb1) for s in h.sessions().values()} == {0}
    assert client.reconfigure(nonce, chain=["mb2"]) == ("done", "")
    world.run(0.3)
    assert len(mb2.sessions()) == 1
    world.finish(pairs)
