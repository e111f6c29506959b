# SPDX-License-Identifier: Apache-2.0
"""Two domains with keys of their own meet at one host, which signs each message for who receives it."""

import subprocess

import pytest

from dysco_ns.agent.client import AgentRefused
from dysco_ns.agent.launch import AgentTarget, start_agents
from lab.results import ROOT
from lab.state import Process
from tests.net.conftest import counters, reconfigured, talking, transfer

CONNECT = str(ROOT / "build" / "connect")
PORT = 5001


@pytest.fixture
def net(lab_of, tmp_path):
    """client and mb1 share one key, mb2 and server another; mb1 has both."""
    lab = lab_of("chain", middleboxes=2, dysco="on")
    keys = {}
    for name in ("west", "east"):
        keys[name] = tmp_path / f"{name}.key"
        keys[name].write_text(name * 6)
        keys[name].chmod(0o600)
    lab.stop_agents()
    names = lab.topology.names
    east = [f"{names[h]}/32={keys['east']}" for h in ("mb2", "server")]
    targets = [
        AgentTarget("client", lab.pid("client"), keys["west"], names),
        AgentTarget("mb1", lab.pid("mb1"), keys["west"], names, east),
        AgentTarget("mb2", lab.pid("mb2"), keys["east"], names),
        AgentTarget("server", lab.pid("server"), keys["east"], names),
    ]
    handles = start_agents(targets)
    lab.state.agents = {h.name: Process.of(h.pid, f"agent of {h.name}") for h in handles}
    lab.agent("client").request("policy_add", filter=f"tcp dst port {PORT}", chain=["mb1", "mb2"])
    lab.keys = keys
    yield lab
    for handle in handles:
        handle.stop()


def test_chains_and_reconfigurations_cross_the_border(net, tmp_path):
    def change():
        results = net.agent("mb1").request("reconfigure", all=True, remove="mb2")["results"]
        assert [r["outcome"] for r in results] == ["done"] * 10, results

    server = net.topology.host("server").address
    compared = transfer(net, "client", "server", server, (PORT, PORT), tmp_path, during=change)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    for host in net.topology.names:
        assert not [name for name in counters(net, host) if name.startswith("drop") and name != "drop_tombstone"]


def test_who_is_beyond_the_border_is_refused(net):
    """The client does not know the key of mb2: a chain that leads there directly fails."""
    net.agent("client").request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": ["mb2"]}])
    server = net.topology.host("server").address
    connect = net.inside("client", ["timeout", "2", CONNECT, "client", server, str(PORT), "1"])
    assert subprocess.run(connect, capture_output=True, check=False).returncode != 0
    assert counters(net, "mb2")["drop_bad_signature"] >= 1


def test_the_key_of_one_domain_is_rotated(net, tmp_path):
    fresh = tmp_path / "fresh"
    fresh.write_text("f" * 32)
    fresh.chmod(0o600)
    borders = [f"{net.topology.names[h]}/32" for h in ("mb2", "server")]

    def everywhere(op, **fields):
        for host in ("mb2", "server"):
            net.agent(host).request(op, **fields)
        for domain in borders:
            net.agent("mb1").request(op, domain=domain, **fields)

    with talking(net, tmp_path) as talk:  # their chain is changed with each pair of keys: lock, SYN of the new path, release
        for op, fields in (("key_set", {"number": 1, "file": str(fresh), "use": False}),
                           ("key_set", {"number": 1, "file": str(fresh), "use": True}), ("key_drop", {"number": 0})):  # fmt: skip
            everywhere(op, **fields)
            reconfigured(net, "mb1", remove="mb2")
            reconfigured(net, "mb1", insert=["mb2"])
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    assert not any(name.startswith("drop") and name != "drop_tombstone" for h in net.topology.names for name in counters(net, h))
    with pytest.raises(AgentRefused, match="no domain"):
        net.agent("mb1").request("key_drop", number=0, domain="192.0.2.0/24")
