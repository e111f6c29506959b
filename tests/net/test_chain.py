# SPDX-License-Identifier: Apache-2.0
"""Service chains set up by the SYN (paper II-A), on real hosts."""

import subprocess
import threading
import time

import pytest

from dysco_ns.agent.client import AgentRefused
from dysco_ns.agent.launch import AgentTarget, start_agents
from lab.measure import interface_packets
from lab.results import ROOT
from tests.net.conftest import counters, invalid_packets, no_session_was_reset, reconfigured, talking, transfer

CONNECT = ROOT / "build" / "connect"


@pytest.mark.parametrize(("middleboxes", "hmac"), [(0, "off"), (1, "on"), (3, "on"), (8, "on")])
def test_sessions_pass_every_middlebox_unharmed(lab_of, tmp_path, middleboxes, hmac):
    lab = lab_of("chain", middleboxes=middleboxes, hmac=hmac)
    boxes = [f"mb{i}" for i in range(1, middleboxes + 1)]
    before = {b: interface_packets(lab.pid(b), "eth0")[0] for b in boxes}
    compared = transfer(lab, "client", "server", lab.topology.host("server").address, (5001, 5001), tmp_path)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    for box in boxes:
        assert interface_packets(lab.pid(box), "eth0")[0] - before[box] > 1000
        assert counters(lab, box)["session_joined"] == 10
    assert no_session_was_reset(lab)


def test_traffic_that_no_policy_matches_is_left_alone(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1)
    compared = transfer(lab, "client", "server", lab.topology.host("server").address, (7777, 7777), tmp_path, seconds=0.5)
    assert compared.failed == 0
    assert counters(lab, "client").get("session_started", 0) == 0
    assert lab.agent("client").request("sessions")["sessions"] == []


def test_a_strict_firewall_in_the_chain_sees_nothing_invalid(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, kind="firewall", hmac="on")
    compared = transfer(lab, "client", "server", lab.topology.host("server").address, (5001, 5001), tmp_path)
    assert (compared.failed, compared.bytes_mismatched) == (0, 0)
    assert invalid_packets(lab, lab.topology.host("mb1")) == 0


def test_a_middlebox_that_changes_the_five_tuple_is_followed_by_its_tag(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, kind="nat", hmac="on")
    compared = transfer(lab, "client", "server", lab.topology.host("server").address, (5001, 5001), tmp_path)
    assert (compared.failed, compared.bytes_mismatched) == (0, 0)
    assert counters(lab, "server")["session_joined"] == 10


def test_a_host_with_another_key_is_refused_and_counted(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, hmac="on")
    handle = lab.state.agents["mb1"]
    lab.agent("mb1").request("stop")
    while handle.alive():
        pass
    path = tmp_path / "other.key"
    path.write_text("another-key-entirely")
    path.chmod(0o600)
    agent = start_agents([AgentTarget("mb1", lab.pid("mb1"), path, backend=lab.topology.host("mb1").backend)])[0]
    try:
        connect = lab.inside(
            "client", ["timeout", "2", "bash", "-c", f"echo > /dev/tcp/{lab.topology.host('server').address}/5001"]
        )
        assert subprocess.run(connect, capture_output=True, check=False).returncode != 0
        assert counters(lab, "mb1")["drop_bad_signature"] >= 1
        assert lab.agent("mb1").request("sessions")["sessions"] == []
    finally:
        agent.stop()


@pytest.mark.parametrize("answer", ["resets", pytest.param("says nothing", marks=pytest.mark.long)])
@pytest.mark.parametrize("policy", ["fail", "bypass"])
def test_a_next_hop_without_an_agent_fails_or_is_bypassed_as_the_policy_says(lab_of, policy, answer):
    lab = lab_of("chain", middleboxes=1)
    lab.stop_agent("mb1")
    if answer == "says nothing":
        lab.run("mb1", ["iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"])
    agent, server = lab.agent("client"), lab.topology.host("server").address
    agent.request("policy_apply", policies=[{"filter": "tcp dst port 5001", "chain": ["mb1"], "on_no_agent": policy}])
    told = []
    threading.Thread(target=lambda: told.extend(agent.events()), daemon=True).start()
    with lab.service("server", [str(CONNECT), "server", server, "5001"]):
        done = subprocess.run(lab.inside("client", [str(CONNECT), "client", server, "5001", "1"]), capture_output=True,
                              text=True, timeout=20, check=False)  # fmt: skip
    assert (done.returncode == 0) == (policy == "bypass"), done.stderr
    if policy == "fail":
        assert "refused" in done.stderr
    if answer == "says nothing" or policy == "bypass":
        time.sleep(0.5)
        assert [e["value"] for e in told if e["event"] == "no_agent"]


def test_keys_are_rotated_while_sessions_run(lab_of, tmp_path):
    """The new key is made valid everywhere, used everywhere, and the old one dropped; hashed sessions are reconfigured and
    others begin all the time, while neighbours sign with different keys too."""
    lab = lab_of("chain", middleboxes=2, initial=1, hmac="on", rate=200)
    file = tmp_path / "key"
    file.write_text("f" * 32)
    file.chmod(0o600)
    server, there, away = lab.topology.host("server").address, ["mb1"], ["mb2"]

    def turn(step):
        for host in ("server", "mb1", "mb2", "client"):
            lab.agent(host).request(**step, number=0 if step["op"] == "key_drop" else 1, file=str(file))
            if host in ("mb1", "client"):
                lab.run("client", [str(CONNECT), "client", server, "5002", "3"])
                reconfigured(lab, "client", replace={there[0]: list(away)})
                there[0], away[0] = away[0], there[0]

    with lab.service("server", [str(CONNECT), "server", server, "5002"]), talking(lab, tmp_path) as talk:
        for step in ({"op": "key_set", "use": False}, {"op": "key_set", "use": True}, {"op": "key_drop"}):
            turn(step)
        for host in lab.state.agents:
            assert not {"drop_bad_signature", "drop_unsigned", "drop_bad_message"} & counters(lab, host).keys()
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    with pytest.raises(AgentRefused, match="signs with"):
        lab.agent("client").request("key_drop", number=1)
