# SPDX-License-Identifier: Apache-2.0
"""Middleboxes by type: each session gets one of several that do the same (paper II-B); policies while sessions run."""

import json
import subprocess
from collections import Counter
from contextlib import ExitStack

import pytest

from dysco_ns.agent.client import AgentRefused
from lab.network import end, wait_until
from lab.tools import bulk
from tests.net.conftest import Talk, transfer
from tests.net.test_reconfigure import dysco

PORT = 5001


@pytest.fixture
def net(lab_of, tmp_path):
    """Three middleboxes, none of them on a chain; open(n) opens n sessions that say a little now and then, and are compared when
    the test is done."""
    lab = lab_of("chain", middleboxes=3, initial=0)
    address = lab.topology.host("server").address
    agent, opened, reports = lab.agent("client"), [], [tmp_path / "server.jsonl"]
    with lab.service("server", bulk.server_command(address, PORT, reports[0])) as server, ExitStack() as stack:

        def sessions(count):
            reports.insert(0, tmp_path / f"client{len(reports)}.jsonl")
            command = bulk.client_command(address, PORT, reports[0], sessions=count, seconds=60, message=100, every_us=200_000,
                                          base=100 * len(reports))  # fmt: skip
            opened.append(lab.popen("client", command, stdout=subprocess.PIPE))
            stack.callback(end, opened[-1])
            assert opened[-1].stdout.readline().startswith("connected")
            return opened[-1]

        def chosen():
            """How many live sessions go through each middlebox."""
            names = {address: name for name, address in lab.topology.names.items()}
            live = [s for s in agent.request("sessions")["sessions"] if s["state"] not in ("over", "opening")]
            return Counter(names[s["neighbours"]["right"]] for s in live)

        lab.open, lab.chosen = sessions, chosen
        yield lab
    if opened:
        compared = Talk(opened, server, reports).compared
        assert compared.clean, compared.reasons


def use(lab, choose, members=("mb1", "mb2", "mb3")):
    agent = lab.agent("client")
    agent.request("type_set", name="firewall", members=members, choose=choose)
    agent.request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": ["firewall"]}])


def test_by_turns(net):
    use(net, "round-robin")
    net.open(12)
    assert net.chosen() == {"mb1": 4, "mb2": 4, "mb3": 4}


def test_to_the_one_with_the_fewest_sessions(net):
    """Sessions that have gone no longer count; one that was busy gets none until the others have as many."""
    use(net, "fewest", ["mb1"])
    gone, stay = net.open(4), net.open(5)
    assert net.chosen() == {"mb1": 9}
    end(gone)
    agent = net.agent("client")
    wait_until(lambda: agent.request("type_list")["types"][0]["sessions"][net.topology.names["mb1"]] == 5, 5, "4 gone")
    use(net, "fewest")
    net.open(7)
    assert net.chosen() == {"mb1": 5, "mb2": 4, "mb3": 3} or net.chosen() == {"mb1": 5, "mb2": 3, "mb3": 4}
    assert stay.poll() is None


def test_a_session_is_moved_to_one_of_a_type(net):
    net.open(6)
    agent = net.agent("client")
    agent.request("type_set", name="scrubber", members=["mb2", "mb3"], choose="round-robin")
    results = [agent.request("reconfigure", session=s["id"], insert=["scrubber"])["results"][0]
               for s in agent.request("sessions")["sessions"]]  # fmt: skip
    assert {r["outcome"] for r in results} == {"done"}, results
    assert net.chosen() == {"mb2": 3, "mb3": 3}


def test_types_by_command(net):
    assert dysco("type", "set", "firewall", "mb1", "mb2", "--choose", "fewest", "--at", "client") == (0, "", "")
    assert dysco("policy", "add", "tcp dst port 5001", "firewall", "mb3", "--at", "client")[0] == 0
    listed = json.loads(dysco("type", "list", "--json", "--at", "client")[1])["types"]
    assert [(t["name"], t["choose"], len(t["members"])) for t in listed] == [("firewall", "fewest", 2)]
    status, _, why = dysco("type", "remove", "firewall", "--at", "client")
    assert (status, why.count("\n")) == (1, 1) and "used by policy" in why
    status, _, why = dysco("policy", "add", "tcp dst port 5001", "scrubber", "--at", "client")
    assert (status, why.count("\n")) == (1, 1) and "unknown host 'scrubber'" in why
    with pytest.raises(AgentRefused, match="a host has that name"):
        net.agent("client").request("type_set", name="mb1", members=["mb2"])


def test_policies_change_while_sessions_run_and_those_keep_their_chain(net):
    agent = net.agent("client")

    def apply(box):
        agent.request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": [box]}])

    apply("mb1")
    net.open(3)
    apply("mb2")
    net.open(2)
    with pytest.raises(AgentRefused, match="unknown host"):
        agent.request("policy_apply", policies=[{"filter": "tcp", "chain": ["mb3"]}, {"filter": "tcp", "chain": ["nobody"]}])
    net.open(1)
    assert net.chosen() == {"mb1": 3, "mb2": 3}


def test_several_chains_in_one_session(lab_of, tmp_path):
    """Between two edges one chain, and before the first edge another: the agents of each know only their own."""
    lab = lab_of("chain", middleboxes=2, initial=1, edges="on")
    seen = {}

    def look():
        seen.update({h: lab.agent(h).request("sessions")["sessions"] for h in lab.state.agents})

    server = lab.topology.host("server").address
    # edge1 ends its chain at mb1; mb1, which then forwards a plain SYN, begins another to edge2
    lab.agent("edge1").request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": [], "ends_at": "mb1"}])
    lab.agent("mb1").request("policy_add", filter=f"tcp dst port {PORT}", chain=["mb2"], ends_at="edge2")
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, during=look)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert len(seen["edge1"]) == len(seen["mb2"]) == len(seen["edge2"]) == 10
    assert {s["id"] for s in seen["edge1"]}.isdisjoint({s["id"] for s in seen["edge2"]})
    assert sorted(s["role"] for s in seen["mb1"]) == ["first"] * 10 + ["last"] * 10
