# SPDX-License-Identifier: Apache-2.0
"""Boxes on the way that have no agent (paper II-B): a NAT, and a strict connection tracker that must not see anything odd."""

import pytest

from lab.network import wait_until
from middleboxes.tcp_proxy import TcpProxy
from tests.net.conftest import (
    counters,
    emptied,
    invalid_packets,
    no_session_was_reset,
    nothing_was_invalid,
    reconfigured,
    sessions,
    talking,
)

PORT = 5001
long = pytest.mark.long


def unharmed(lab, talk, count=10):
    compared = talk.compared
    assert (compared.sessions, compared.clean) == (count, True), compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab)


def test_a_strict_firewall_between_agents(lab_of, tmp_path):
    """All control sessions and every new path pass it: it follows each as the connection that it seems to be."""
    lab = lab_of("chain", middleboxes=3, initial=1, gate="firewall", hmac="on", rate=200)
    assert "gate" not in lab.state.agents
    with talking(lab, tmp_path) as talk:
        reconfigured(lab, "client", insert=["mb2"])
        reconfigured(lab, "client", replace={"mb2": ["mb3"]})
        reconfigured(lab, "client", remove="mb3")
        reconfigured(lab, "client", remove="mb1")
        assert invalid_packets(lab, lab.topology.host("gate")) == 0
        tracked = lab.run("gate", ["conntrack", "-L", "-p", "tcp"])
        assert f"dst={lab.topology.host('mb3').address}" in tracked
    unharmed(lab, talk)


@long
def test_a_strict_firewall_and_those_that_ask_from_the_other_side(lab_of, tmp_path):
    """A proxy beyond the firewall asks to leave: the trigger and the heartbeats go leftward, as connections of their own."""
    lab = lab_of("chain", middleboxes=1, initial=0, gate="firewall", hmac="on", rate=200)
    server, box = (lab.topology.host(h).address for h in ("server", "mb1"))
    for host, port in (("client", 8001), ("mb1", 9001)):
        lab.agent(host).request("policy_add", filter=f"tcp dst port {port}", chain=[])
    proxy = TcpProxy({8001: (server, 9001)}, tmp_path / "control")
    with lab.service("mb1", proxy.command()):
        with talking(lab, tmp_path, address=box, port=(8001, 9001)) as talk:
            wait_until(lambda: [s["state"] for s in sessions(lab, "server")] == ["established"] * 10, 5, "ten sessions")
            reply = proxy.leave(8001)
            assert (reply["spliced"], reply["refused"]) == (10, 0)
            wait_until(lambda: all(s["neighbours"]["right"] == server for s in sessions(lab, "client")), 10, "without the proxy")
        unharmed(lab, talk)


@long
def test_heartbeats_pass_a_strict_firewall(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, gate="firewall", hmac="on")
    for host in lab.state.agents:
        lab.agent(host).request("tune", heartbeat_s=0.5)
    with talking(lab, tmp_path, sessions=5, message=100, every_us=30_000_000) as talk:
        wait_until(lambda: all(counters(lab, h).get("control_received", 0) >= 20 for h in lab.state.agents), 10, "heartbeats")
        assert {s["state"] for h in lab.state.agents for s in sessions(lab, h)} == {"established"}
        talk.half_close("client")
    unharmed(lab, talk, 5)


@long
def test_a_strict_firewall_between_an_edge_and_the_rest(lab_of, tmp_path):
    """The right end has an edge, the left end a firewall before it."""
    lab = lab_of("chain", middleboxes=2, initial=1, gate="firewall", edges="right", hmac="on", rate=200)
    with talking(lab, tmp_path) as talk:
        reconfigured(lab, "client", replace={"mb1": ["mb2"]})
        reconfigured(lab, "client", remove="mb2")
    unharmed(lab, talk)


@pytest.mark.parametrize("edges", ["left", pytest.param("right", marks=long)])
def test_an_edge_on_one_side_only(lab_of, tmp_path, edges):
    """One end has an agent of its own, for the other an edge begins or ends the chain; both are anchors."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", edges=edges, hmac="on", rate=200)
    left, right = ("edge1", "server") if edges == "left" else ("client", "edge2")
    assert set(lab.state.agents) == {left, "mb1", "mb2", right}
    with talking(lab, tmp_path) as talk:
        roles = {host: {s["role"] for s in sessions(lab, host)} for host in (left, right)}
        assert roles == {left: {"first"}, right: {"last"}}
        reconfigured(lab, left, replace={"mb1": ["mb2"]})
        reconfigured(lab, left, remove="mb2")
        reconfigured(lab, left, insert=["mb1"])
    unharmed(lab, talk)


@long
def test_two_clients_behind_one_nat_with_the_same_source_port(lab_of, tmp_path):
    """Beyond it their sessions have five-tuples of their own; the private side reconfigures those of each."""
    from dataclasses import replace

    from lab.topologies import build

    topology = build("chain", {"middleboxes": "2", "initial": "1", "kind": "firewall", "gate": "nat", "rate": "200"})
    second = replace(topology.host("client"), name="client2", index=9)
    policies = (*topology.policies, replace(topology.policies[0], at="client2"))
    lab = lab_of(replace(topology, hosts=(*topology.hosts, second), policies=policies))
    gate = lab.topology.host("gate").address
    with talking(lab, tmp_path, clients=("client", "client2"), sessions=5, from_port=45000) as talk:
        seen = [s["tuple"] for s in sessions(lab, "server")]
        assert len(set(seen)) == 10 and all(t.startswith(gate) for t in seen)
        for client in ("client", "client2"):
            reconfigured(lab, client, replace={"mb1": ["mb2"]})
            reconfigured(lab, client, remove="mb2")
    unharmed(lab, talk)


@long
def test_who_is_beyond_the_nat_is_refused_and_the_private_side_is_not(lab_of, tmp_path):
    """Right of the middlebox no NAT is in the way; the segment that the NAT is in is changed by the client alone."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", gate="nat", hmac="on", rate=200)
    with talking(lab, tmp_path) as talk:
        reconfigured(lab, "mb1", insert=["mb2"])
        for host, leaving in (("server", "mb2"), ("mb2", "mb1")):
            ask = {"session": sessions(lab, host)[0]["id"], "remove": leaving}
            (result,) = lab.agent(host).request("reconfigure", **ask)["results"]
            assert result["outcome"] == "refused" and "ask the host left of it" in result["reason"], result
        reconfigured(lab, "client", remove="mb1")
    unharmed(lab, talk)
