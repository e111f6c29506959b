# SPDX-License-Identifier: Apache-2.0
"""How sessions begin when the network or the neighbours are not as they should be: lost and doubled SYNs, five-tuples in
TIME_WAIT, next hops without agents, several chains in one session.  Policies and types while hashed sessions run."""

import json
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from lab import faults
from lab.network import wait_until
from lab.tools import bulk
from tests.net.conftest import (
    counters,
    emptied,
    needs,
    no_session_was_reset,
    nothing_was_invalid,
    reconfigured,
    sessions,
    talking,
    transfer,
)
from tests.net.test_reconfigure import dysco

PORT = 5001
A_LITTLE = {"message": 2000, "every_us": 50_000}  # of load, so that the commands have the processors
long = pytest.mark.long


def carried(lab, talk, count=10):
    assert (talk.compared.sessions, talk.compared.clean) == (count, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab)


def insisted(lab, host, **change):
    """Asks for a change of all sessions until each has had it, as long as the agent says that a retry makes sense."""
    left = [s["id"] for s in sessions(lab, host)]
    for _ in range(20):
        results = lab.agent(host).request("reconfigure", sessions=left, **change)["results"]
        left = [r["session"] for r in results if r["outcome"] != "done"]
        assert all(r["retry"] for r in results if r["outcome"] != "done"), results
        if not left:
            return
        time.sleep(0.5)
    raise AssertionError(f"{len(left)} sessions have not been changed: {results[0]}")


# ---- SYNs that are lost or come twice ----


HOPS = {
    "to the middlebox": ("client", "mb1", faults.SYN),
    "to the server": ("mb1", "server", faults.SYN),
    "SYN-ACK of the server": ("server", "mb1", faults.SYN_ACK),
    "SYN-ACK of the middlebox": ("mb1", "client", faults.SYN_ACK),
}


@pytest.mark.parametrize("hop", ["to the server", *(pytest.param(h, marks=long) for h in HOPS if h != "to the server")])
def test_a_lost_syn_is_repeated_and_makes_no_second_session(lab_of, tmp_path, hop):
    lab = lab_of("chain", middleboxes=1, kind="firewall", hmac="on")
    src, dst, match = HOPS[hop]
    addresses = ["-s", lab.topology.host(src).address, "-d", lab.topology.host(dst).address]
    with ExitStack() as loss:
        loss.enter_context(faults.lost(lab, *addresses, *match))
        timer = threading.Timer(0.7, loss.close)  # the second SYN comes a second after the first
        timer.start()
        with talking(lab, tmp_path, seconds=2.5) as talk:
            timer.join()
            assert counters(lab, "client")["syn_repeated"] >= 10
            assert all(len(sessions(lab, host)) == 10 for host in lab.state.agents)
    carried(lab, talk)


@pytest.mark.parametrize("what", ["syn", pytest.param("everything", marks=long)])
def test_what_comes_twice_counts_once(lab_of, tmp_path, what):
    """The router doubles SYNs and SYN-ACKs, or every segment that it forwards, control sessions included."""
    needs(lambda: faults.missing("TEE"))
    lab = lab_of("chain", middleboxes=2, initial=1, kind="router", hmac="on", rate=50)
    match = ("-p", "tcp", "--tcp-flags", "SYN", "SYN") if what == "syn" else ("-p", "tcp")
    with ExitStack() as twice:
        for host in lab.state.agents:
            twice.enter_context(faults.doubled(lab, host, *match))
        with talking(lab, tmp_path) as talk:
            assert all(len(sessions(lab, host)) == 10 for host in ("client", "mb1", "server"))
            assert counters(lab, "server")["syn_repeated"] >= 10
            reconfigured(lab, "client", replace={"mb1": ["mb2"]})
            reconfigured(lab, "client", remove="mb2")
    carried(lab, talk)


@long
def test_one_segment_in_fifty_is_lost_while_sessions_begin_change_and_end(lab_of, tmp_path):
    needs(lambda: faults.missing("statistic"))
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", hmac="on", rate=50)
    with faults.every(lab, 50, "-p", "tcp"), talking(lab, tmp_path) as talk:
        for change in ({"replace": {"mb1": ["mb2"]}}, {"insert": ["mb1"]}, {"remove": "mb1"}):
            insisted(lab, "client", **change)
    carried(lab, talk)


# ---- five-tuples ----


def test_a_five_tuple_in_time_wait_is_used_again(lab_of, tmp_path):
    """The client has closed first, and opens the same five-tuples again, and again; the third time they are reconfigured."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", hmac="on")
    lab.run("client", ["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])
    for turn in range(3):
        with talking(lab, tmp_path, seconds=0 if turn == 2 else 0.5, from_port=45000) as talk:
            if turn == 2:
                reconfigured(lab, "client", replace={"mb1": ["mb2"]})
        assert (talk.compared.sessions, talk.compared.clean) == (10, True), (turn, talk.compared.reasons)
        waiting = lab.run("client", ["ss", "-Htn", "state", "time-wait", "sport", ">=", ":45000"])
        assert waiting.count("\n") == 10
        time.sleep(1.2)  # the kernel wants a second between the last segment and a new SYN
    carried(lab, talk)


def memory(lab):
    """Bytes that the daemons and the tables of all agents take: resident memory, memory of the maps."""
    resident = 0
    for process in lab.state.agents.values():
        with open(f"/proc/{process.pid}/status") as status:
            resident += next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024
    return resident


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=long)])
def test_many_short_sessions_leave_nothing(lab_of, tmp_path, rounds):
    """Each of 2000 at once says a little both ways, hashed; 10,000, or 100,000 in `make test-all`."""
    lab = lab_of("chain", middleboxes=1, hmac="on")
    lab.run("client", ["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])
    for host in lab.state.agents:
        lab.agent(host).request("tune", linger_s=1)
    before = None
    for _ in range(rounds):
        compared = transfer(lab, "client", "server", lab.topology.host("server").address, (PORT, PORT), tmp_path,
                            sessions=2000, seconds=0.6, message=200, every_us=500_000)  # fmt: skip
        assert (compared.sessions, compared.clean) == (2000, True), compared.reasons
        before = before or memory(lab)  # after the first two thousand: what Python keeps it keeps once
    for host in lab.state.agents:
        seen = counters(lab, host)
        assert seen.get("session_started", 0) + seen.get("session_joined", 0) == 2000 * rounds
        assert not {"drop_table_full", "drop_no_port"} & seen.keys()
    assert no_session_was_reset(lab)
    emptied(lab, timeout_s=30)
    assert memory(lab) < before * 1.05 + (4 << 20)


# ---- next hops without an agent ----


@pytest.fixture
def told_of():
    """Events of an agent from now on, in a list that grows."""

    def listen(lab, host):
        told = []
        threading.Thread(target=lambda: told.extend(lab.agent(host).events()), daemon=True).start()
        time.sleep(0.5)
        return told

    return listen


@pytest.mark.parametrize("answer", [pytest.param("resets", marks=long), "says nothing"])
@pytest.mark.parametrize("where", ["of a middlebox", pytest.param("of an edge", marks=long)])
@pytest.mark.parametrize("policy", [pytest.param("fail", marks=long), "bypass"])
def test_the_next_hop_has_no_agent(lab_of, tmp_path, told_of, policy, where, answer):
    """Of a middlebox, of an edge: the session fails, or goes without a chain; either is told."""
    edge = where == "of an edge"
    lab = lab_of("chain", middleboxes=2, edges="left" if edge else "off")
    first, gone = ("edge1", "mb1") if edge else ("client", "mb2")
    lab.stop_agent(gone)
    if answer == "says nothing":
        lab.run(gone, ["iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"])
    chain = [{"filter": f"tcp dst port {PORT}", "chain": ["mb1", "mb2"], "on_no_agent": policy}]
    lab.agent(first).request("policy_apply", policies=chain)
    told = told_of(lab, first)
    server = lab.topology.host("server").address
    if policy == "bypass":
        assert transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, sessions=5, seconds=1).clean
        assert all(len(s["chain"]) == 2 for s in sessions(lab, first))
    else:
        client = bulk.client_command(server, PORT, tmp_path / "c", sessions=1, seconds=1)
        began = time.monotonic()
        done = subprocess.run(lab.inside("client", client), capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 1 and time.monotonic() - began < 10
        assert "refused" in (tmp_path / "c").read_text()
    wait_until(lambda: {"no_agent", "session_rst"} & {e["event"] for e in told}, 5, "an event")
    assert no_session_was_reset(lab)


# ---- several chains in one session ----


@pytest.fixture
def two_chains(lab_of):
    """edge1 and mb1 are the ends of one chain of every session, mb1 and edge2 of another; mb2 to mb4 are free."""
    lab = lab_of("chain", middleboxes=4, initial=1, kind="firewall", edges="on", hmac="on", rate=200)
    lab.agent("edge1").request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": [], "ends_at": "mb1"}])
    lab.agent("mb1").request("policy_add", filter=f"tcp dst port {PORT}", chain=["mb2"], ends_at="edge2")
    return lab


@pytest.mark.parametrize("which", ["left", pytest.param("right", marks=long)])
def test_one_of_several_chains_is_reconfigured(two_chains, tmp_path, which):
    """The agents of the other chain hear nothing of it."""
    lab = two_chains
    before = {}
    with talking(lab, tmp_path) as talk:
        before.update({h: counters(lab, h).get("control_received", 0) for h in lab.state.agents})
        if which == "left":
            reconfigured(lab, "edge1", insert=["mb3"])
            reconfigured(lab, "edge1", replace={"mb3": ["mb4"]})
            reconfigured(lab, "edge1", remove="mb4")
        else:
            reconfigured(lab, "mb1", insert=["mb3"])
            reconfigured(lab, "mb3", replace={"mb2": ["mb4"]})
            reconfigured(lab, "mb1", remove="mb3")
        assert no_session_was_reset(lab)
        heard = {h for h in lab.state.agents if counters(lab, h).get("control_received", 0) > before[h]}
    assert not heard & ({"edge2", "mb2"} if which == "left" else {"edge1"})
    assert heard >= ({"edge1", "mb1"} if which == "left" else {"mb1", "edge2"})
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    emptied(lab)


@long
def test_a_firewall_between_forwarding_anchors_sees_nothing_invalid(two_chains, tmp_path):
    with talking(two_chains, tmp_path) as talk:
        for _ in range(5):
            reconfigured(two_chains, "edge1", insert=["mb3"])
            reconfigured(two_chains, "edge1", remove="mb3")
    carried(two_chains, talk)


# ---- policies and types while sessions run ----


def through(lab, ids):
    """Through which middlebox each live session of the client goes first, of those that are not in `ids`."""
    names = {address: name for name, address in lab.topology.names.items()}
    return Counter(names[s["neighbours"]["right"]] for s in sessions(lab, "client") if s["id"] not in ids)


def test_policies_are_applied_and_removed_while_sessions_run(lab_of, tmp_path):
    """... by the command, from a file; every session keeps its chain, and all bytes arrive."""
    lab = lab_of("chain", middleboxes=3, initial=0)
    file, known, talks = tmp_path / "policies.json", set(), []

    agent = lab.agent("client")

    def batch(*boxes):
        file.write_text(json.dumps([{"filter": f"tcp dst port {PORT + i}", "chain": [box]} for i, box in enumerate(boxes)]))
        assert dysco("policy", "apply", str(file), "--at", "client") == (0, f"{len(boxes)} policies\n", "")

    with ExitStack() as stack:
        for turn, boxes in enumerate((("mb1",), ("mb2", "mb1"), ())):
            if boxes:
                batch(*boxes)
            else:  # the first goes, by its number: the session's port matches none now
                agent.request("policy_remove", id=agent.request("policy_list")["policies"][0]["id"])
            (tmp_path / str(turn)).mkdir()
            port = (PORT, PORT + 100 + turn)
            lab.run("server", ["iptables", "-t", "nat", "-I", "PREROUTING", "-p", "tcp", "--dport", str(PORT), "-j", "REDIRECT",
                               "--to-ports", str(port[1])])  # fmt: skip
            talks.append(stack.enter_context(talking(lab, tmp_path / str(turn), sessions=4, port=port, **A_LITTLE)))
            assert through(lab, known) == ({boxes[0]: 4} if boxes else {}), turn
            known |= {s["id"] for s in sessions(lab, "client")}
        file.write_text('[{"filter": "tcp dst prt 5", "chain": []}]')
        assert dysco("policy", "apply", str(file), "--at", "client")[0] == 1
        assert through(lab, set()) == {"mb1": 4, "mb2": 4}
    assert all((talk.compared.sessions, talk.compared.clean) == (4, True) for talk in talks)
    emptied(lab)


@pytest.mark.parametrize("choose", ["fewest", pytest.param("round-robin", marks=long)])
def test_sessions_of_a_type_are_hashed_and_reconfigured(lab_of, tmp_path, choose):
    lab = lab_of("chain", middleboxes=3, initial=0, kind="firewall", rate=200)
    agent = lab.agent("client")
    agent.request("type_set", name="firewall", members=["mb1", "mb2"], choose=choose)
    agent.request("policy_apply", policies=[{"filter": f"tcp dst port {PORT}", "chain": ["firewall"]}])
    with talking(lab, tmp_path) as talk:
        assert through(lab, set()) == {"mb1": 5, "mb2": 5}
        agent.request("type_set", name="scrubber", members=["mb3"])
        reconfigured(lab, "client", insert=["scrubber"])
        assert through(lab, set()) == {"mb3": 10}
    carried(lab, talk)
    assert set(agent.request("type_list")["types"][0]["sessions"].values()) == {0}
