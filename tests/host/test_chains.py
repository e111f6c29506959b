# SPDX-License-Identifier: Apache-2.0
"""Where chains begin and end, and who decides: types, policies, edges, several chains, dysco_next (paper II-A, II-B)."""

from collections import Counter

import pytest

from dysco_ns.agent.policies import BadPolicy
from dysco_ns.agent.types import BadType

TO_SERVER = {"filter": "tcp dst port 5001"}
BOXES = ("mb1", "mb2", "mb3")


def taken(world, host):
    """How many live sessions of a host go to which neighbour on the right, by name."""
    names = {address: name for name, address in world.names.items()}
    return Counter(names[s["right_sub"]["dst"]] for s in host.sessions().values() if not s["over_ns"])


def test_a_chain_and_its_change_are_a_control_for_the_rest(world):
    client, mb1, mb2, server = world.chain("client", "mb1", "mb2", "server")
    client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    pairs = world.talk(client, server, count=2)
    for here, _ in pairs:
        assert client.reconfigure(client.nonce(here), chain=["mb2"], until="server") == ("done", "")
    world.run(0.2)
    assert (len(mb1.sessions()), len(mb2.sessions())) == (2, 2)
    assert world.seen("mb1", lambda s: s.length and s.time_s > world.now - 0.1) == []
    world.finish(pairs)
    world.emptied()


# ---- types ----


@pytest.fixture
def typed(world):
    """A client whose policy names a type with three members."""
    client, *_, server = world.chain("client", *BOXES, "server")

    def choose(how, members=BOXES):
        client.policies.set_type("scrubber", [world.names[box] for box in members], how)
        if not client.policies.policies:
            client.policies.add({**TO_SERVER, "chain": ["scrubber"]})

    world.client, world.server, world.choose = client, server, choose
    return world


def test_a_type_gives_its_members_by_turns(typed):
    typed.choose("round-robin")
    pairs = typed.talk(typed.client, typed.server, count=6)
    assert taken(typed, typed.client) == dict.fromkeys(BOXES, 2)
    typed.finish(pairs)
    typed.emptied()


def sessions_to(world, pairs, box):
    """Those pairs whose session goes to a middlebox."""
    client = world.client
    return [p for p in pairs if client.sessions()[client.nonce(p[0])]["right_sub"]["dst"] == world.names[box]]


@pytest.mark.parametrize("how", ["by a FIN each way", "by a reset", "by the loss of its middlebox"])
def test_a_type_gives_the_member_with_fewest_live_sessions(typed, how):
    typed.choose("fewest")
    pairs = typed.talk(typed.client, typed.server, count=6)
    assert taken(typed, typed.client) == dict.fromkeys(BOXES, 2)
    ending = sessions_to(typed, pairs, "mb2")
    if how == "by a reset":
        ending[0][0].abort()
        ending[1][1].abort()
        typed.run(0.1)
    elif how == "by a FIN each way":
        typed.finish(ending)
    else:
        typed.quiet = True
        typed.run(0.1)
        for host in (typed.client, typed.server):
            host.expiry.ask_after(1.0)
        typed.hosts["mb2"].dead = True
        typed.run_until(lambda: len(typed.client.told("session_lost")) == 2, 30)
        typed.hosts["mb2"].dead = typed.quiet = False
    pairs = [p for p in pairs if p not in ending] + typed.talk(typed.client, typed.server, count=3)
    counts = taken(typed, typed.client)
    assert counts["mb2"] == 2  # two of the three have filled up what had ended
    assert sorted(counts.values()) == [2, 2, 3]
    typed.finish(pairs, allowed=("reset",))


def test_a_session_that_never_comes_about_is_not_counted(typed):
    """Its middlebox is dead: the type gives it again, as it has none."""
    typed.choose("fewest", ("mb1", "mb2"))
    typed.hosts["mb1"].dead = typed.hosts["mb2"].dead = True
    sockets = [typed.client.connect(typed.server.addresses[0]) for _ in range(4)]
    typed.run_until(lambda: all(s.reset for s in sockets), 20)  # refused: no agent
    assert len(typed.client.told("no_agent")) == 4
    assert set(typed.client.core.member_sessions().values()) == {0}


def test_sessions_keep_their_member_when_the_type_changes(typed):
    typed.choose("round-robin")
    before = typed.talk(typed.client, typed.server, count=3)
    typed.choose("round-robin", ("mb3",))
    after = typed.talk(typed.client, typed.server, count=2)
    assert taken(typed, typed.client) == {"mb1": 1, "mb2": 1, "mb3": 3}
    with pytest.raises(BadType, match="is used by policy"):
        typed.client.policies.remove_type("scrubber")
    typed.finish(before + after)


def test_a_middlebox_by_type_beside_one_by_name(typed):
    client = typed.client
    client.policies.set_type("scrubber", [typed.names["mb1"], typed.names["mb3"]], "round-robin")
    client.policies.add({**TO_SERVER, "chain": ["scrubber", "mb2"]})
    pairs = typed.talk(client, typed.server, count=4)
    assert taken(typed, client) == {"mb1": 2, "mb3": 2}
    assert [len(typed.hosts[box].sessions()) for box in BOXES] == [2, 4, 2]
    typed.finish(pairs)


# ---- policies ----


def test_policies_change_while_sessions_live_and_those_keep_their_chain(world):
    client, *_, server = world.chain("client", *BOXES, "server")
    first = client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    pairs = world.talk(client, server)
    client.policies.apply([{"filter": "tcp dst port 7", "chain": ["mb3"]}, {**TO_SERVER, "chain": ["mb2", "mb3"]}])
    pairs += world.talk(client, server)
    with pytest.raises(BadPolicy, match="unknown host"):
        client.policies.apply([{**TO_SERVER, "chain": ["mb1"]}, {**TO_SERVER, "chain": ["nobody"]}])
    pairs += world.talk(client, server)
    with pytest.raises(BadPolicy, match="no policy"):
        client.policies.remove(first)
    client.policies.remove(client.policies.policies[1].id)
    pairs += world.talk(client, server)
    assert taken(world, client) == {"mb1": 1, "mb2": 2}  # the last one is no session of Dysco's
    assert [len(world.hosts[box].sessions()) for box in BOXES] == [1, 2, 2]
    world.finish(pairs)


def test_a_middlebox_adds_to_what_is_still_to_come(world):
    client, mb1, *_, server = world.chain("client", *BOXES, "server")
    client.policies.add({**TO_SERVER, "chain": ["mb1", "mb2"]})
    mb1.policies.add({**TO_SERVER, "chain": ["mb3", "mb2"]})
    pairs = world.talk(client, server)
    hops = [taken(world, world.hosts[name]) for name in ("client", "mb1", "mb3", "mb2")]
    assert hops == [{"mb1": 1}, {"mb3": 1}, {"mb2": 1}, {"server": 1}]
    world.finish(pairs)


# ---- edges ----


@pytest.fixture
def edged(world):
    """client - edge1 - (mb1, mb2) - edge2 - server, and only those between have agents."""
    client, server = (world.add(name, agent=False) for name in ("client", "server"))
    edge1, edge2, mb1, mb2 = world.chain("edge1", "edge2", "mb1", "mb2")
    client.via = {"default": "edge1"}
    server.via = {"default": "edge2"}
    world.client, world.server, world.edge1, world.edge2, world.mb1, world.mb2 = client, server, edge1, edge2, mb1, mb2
    return world


def test_edges_begin_and_end_a_chain_for_hosts_that_have_no_agent_and_are_its_anchors(edged):
    edged.edge1.policies.add({**TO_SERVER, "chain": ["mb1"], "ends_at": "edge2"})
    pairs = edged.talk(edged.client, edged.server, count=2)
    (first, *_), (last, *_) = edged.edge1.sessions().items(), edged.edge2.sessions().items()
    assert first[1]["left_tuple"] == last[1]["right_tuple"]
    for nonce in edged.edge1.sessions():
        assert edged.edge1.reconfigure(nonce, chain=["mb2"], until="edge2") == ("done", "")
        edged.run(0.2)
        assert edged.edge1.reconfigure(nonce, chain=["mb1"], until="edge2") == ("done", "")
        edged.run(0.2)
        assert edged.mb1.reconfigure(nonce, chain=["mb2"]) == ("done", "")
        edged.run(0.2)
        assert edged.edge1.reconfigure(nonce, until="edge2") == ("done", "")
    edged.run(0.2)
    edged.finish(pairs)
    edged.emptied()


def test_an_edge_for_one_side_only(edged):
    """The server has an agent, the client has none."""
    server = edged.server
    server._start(None, {}, 7200.0)
    server.via = {edged.names["client"]: "edge1"}
    edged.edge1.policies.add({**TO_SERVER, "chain": ["mb1"]})
    pairs = edged.talk(edged.client, server)
    (nonce,) = edged.edge1.sessions()
    assert edged.edge1.reconfigure(nonce, chain=["mb2"], until="server") == ("done", "")
    edged.finish(pairs)
    edged.emptied()


def test_several_chains_in_one_session_are_changed_each_by_itself(edged):
    """edge1 ends its chain at mb1, which forwards a plain SYN, and begins another that ends at edge2."""
    mb3 = edged.add("mb3")
    edged.edge1.policies.add({**TO_SERVER, "chain": [], "ends_at": "mb1"})
    edged.mb1.policies.add({**TO_SERVER, "chain": ["mb2"], "ends_at": "edge2"})
    pairs = edged.talk(edged.client, edged.server, count=2)
    left, right = set(edged.edge1.sessions()), set(edged.edge2.sessions())
    assert left.isdisjoint(right)
    assert set(edged.mb1.sessions()) == left | right
    for nonce in left:
        assert edged.edge1.reconfigure(nonce, chain=["mb3"], until="mb1") == ("done", "")
    for nonce in right:
        assert edged.mb1.reconfigure(nonce, until="edge2") == ("done", "")
    edged.run(0.2)
    assert set(mb3.sessions()) == left
    edged.finish(pairs)
    edged.emptied()


# ---- dysco_next ----


def test_a_program_chooses_the_middleboxes_of_each_session_that_it_opens(world):
    classifier, mb1, _, server = world.chain("classifier", "mb1", "mb2", "server")
    pairs = []
    for chain in ([], ["mb1"], ["mb2", "mb1"]):
        sport, address = world.fresh_port(), server.addresses[0]
        key = {"src": classifier.addresses[0], "sport": sport, "dst": address, "dport": 5001}
        boxes = [world.names[box] for box in chain]
        assert classifier.core.command("next", tuple=key, chain=[mb1.addresses[0]], chain_length=1) == "not"
        assert classifier.core.command("next", tuple=key, chain=boxes, chain_length=len(boxes)) == "not"  # a second thought
        pairs += world.talk(classifier, server, sport=sport)
        assert classifier.core.command("next", tuple=key, chain=[], chain_length=0) == "in_use"
        nonce = classifier.nonce(pairs[-1][0])
        assert [nonce in world.hosts[box].sessions() for box in ("mb1", "mb2")] == [box in chain for box in ("mb1", "mb2")]
    assert classifier.core.command("next", tuple={**key, "sport": 9}, chain=[], chain_length=9) == "bad_state"
    nonce = classifier.nonce(pairs[0][0])  # a session that is chosen for is as good as one by policy
    assert classifier.reconfigure(nonce, chain=["mb2"], until="server") == ("done", "")
    world.finish(pairs)
    world.emptied()
