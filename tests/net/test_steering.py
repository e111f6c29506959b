# SPDX-License-Identifier: Apache-2.0
"""Who decides where a session goes: edges for hosts without agents, middleboxes for what is still to come (paper II-B)."""

import socket
import sys

import pytest

from dysco_ns import netns
from lab.measure import interface_packets
from lab.network import wait_until
from lab.results import ROOT
from middleboxes.tcp_proxy import TcpProxy
from tests.net.conftest import invalid_packets, no_session_was_reset, transfer

PORT = 5001


def sessions(lab, host):
    return lab.agent(host).request("sessions")["sessions"]


def neighbours(lab, host):
    """Of the sessions at a host: the sets of left and of right neighbours, by name."""
    names = {address: name for name, address in lab.topology.names.items()}
    found = [s["neighbours"] for s in sessions(lab, host)]
    return tuple({names.get(n[side]) for n in found} for side in ("left", "right"))


@pytest.mark.parametrize("hmac", ["off", "on"])
def test_edges_begin_and_end_the_chain_for_hosts_without_agents(lab_of, tmp_path, hmac):
    lab = lab_of("chain", middleboxes=2, kind="firewall", edges="on", hmac=hmac)
    assert set(lab.state.agents) == {"mb1", "mb2", "edge1", "edge2"}
    seen = {}

    def look():
        seen.update({h: neighbours(lab, h) for h in lab.state.agents})

    server = lab.topology.host("server")
    compared = transfer(lab, "client", "server", server.address, (PORT, PORT), tmp_path, during=look)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert seen["edge1"] == ({None}, {"mb1"})
    assert seen["mb1"] == ({"edge1"}, {"mb2"})
    assert seen["mb2"] == ({"mb1"}, {"edge2"})
    assert seen["edge2"] == ({"mb2"}, {None})
    assert no_session_was_reset(lab)
    assert all(invalid_packets(lab, lab.topology.host(b)) == 0 for b in ("mb1", "mb2"))


def test_edges_are_anchors(lab_of, tmp_path):
    """A firewall comes and goes between two edges, while hosts that know nothing of it send both ways."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", edges="on")

    def change():
        for step in ({"insert": ["mb2"]}, {"remove": "mb1"}):
            who = "edge1" if "remove" in step else "mb1"
            results = lab.agent(who).request("reconfigure", all=True, **step)["results"]
            assert [r["outcome"] for r in results] == ["done"] * 10, results
            wait_until(lambda: all("reconfiguring" not in s["state"] for s in sessions(lab, "edge1")), 10, "settled")

    server = lab.topology.host("server")
    compared = transfer(lab, "client", "server", server.address, (PORT, PORT), tmp_path, seconds=4, during=change)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert no_session_was_reset(lab)
    assert all(invalid_packets(lab, lab.topology.host(b)) == 0 for b in ("mb1", "mb2"))


def test_a_middlebox_adds_to_what_is_still_to_come(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=3, initial=2)
    lab.agent("mb1").request("policy_add", filter=f"tcp dst port {PORT}", chain=["mb3", "mb2"])
    seen = {}

    def look():
        seen.update({h: neighbours(lab, h) for h in lab.topology.names})

    address = lab.topology.host("server").address
    assert transfer(lab, "client", "server", address, (PORT, PORT), tmp_path, during=look).failed == 0
    assert seen["client"] == ({None}, {"mb1"})
    assert seen["mb1"] == ({"client"}, {"mb3"})
    assert seen["mb3"] == ({"mb1"}, {"mb2"})
    assert seen["mb2"] == ({"mb3"}, {"server"})
    # sessions that no policy of mb1 matches keep their chain
    seen.clear()
    assert transfer(lab, "client", "server", address, (5002, 5002), tmp_path, during=look).failed == 0
    assert "mb2" in seen["mb1"][1]


CLASSIFIER = f"""
import socket, sys, threading
sys.path.insert(0, sys.argv[1])
from dysco_ns.splice import choose
server, box, lock, count = sys.argv[2], sys.argv[3], threading.Lock(), 0
def relay(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
def serve(inner):
    global count
    what, outer = inner.recv(1, socket.MSG_PEEK), socket.socket()
    with lock: count, chain = count + 1, [box] if count % 2 else []
    choose(outer, (server, {PORT}), chain)
    outer.connect((server, {PORT}))
    threading.Thread(target=relay, args=(outer, inner)).start()
    relay(inner, outer)
listener = socket.create_server(("", {PORT}), backlog=64); print("ready", flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"""


def test_a_classifier_chooses_the_next_middlebox_of_each_session(lab_of, tmp_path):
    """It waits for what a session says first, then sends every other one by a middlebox; both ends' streams are compared."""
    lab = lab_of("chain", middleboxes=2, initial=0)
    server, box = (lab.topology.host(h).address for h in ("server", "mb2"))
    before, seen = interface_packets(lab.pid("mb2"), "eth0")[0], {}

    def opened():
        return [s for s in sessions(lab, "mb1") if s["role"] == "first" and s["state"] == "established"]

    def look():
        wait_until(lambda: len(opened()) == 10, 10, "ten sessions that go on")
        seen.update({h: sessions(lab, h) for h in ("mb1", "mb2")})

    with lab.service("mb1", [sys.executable, "-c", CLASSIFIER, str(ROOT), server, box]):
        compared = transfer(lab, "client", "server", lab.topology.host("mb1").address, (PORT, PORT), tmp_path, during=look)
    assert (compared.sessions, compared.clean) == (10, True), compared.reasons
    ours = [s["neighbours"]["right"] for s in seen["mb1"] if s["role"] == "first"]
    assert (ours.count(server), ours.count(box), len(seen["mb2"])) == (5, 5, 5)
    assert interface_packets(lab.pid("mb2"), "eth0")[0] > before


def test_a_choice_that_cannot_be_made_is_refused_in_one_line(lab_of):
    from dysco_ns.splice import SpliceRefused, choose

    with socket.socket() as s, pytest.raises(SpliceRefused, match="no Dysco agent"):
        choose(s, ("127.0.0.1", PORT), [])
    lab = lab_of("chain", middleboxes=0)
    server = lab.topology.host("server").address
    with netns.entered(netns.path_of(lab.pid("client"))), socket.socket() as s:
        with pytest.raises(SpliceRefused, match="at most 8"):
            choose(s, (server, PORT), ["10.0.0.1"] * 9)
        s.bind((lab.topology.host("client").address, 0))
        choose(s, (server, PORT), [])
        choose(s, (server, PORT), [])  # a second thought is allowed until the SYN has gone


def test_across_a_nat_without_an_agent(lab_of, tmp_path):
    """The session works, is known by its public five-tuple beyond the NAT, and the private side reconfigures it."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", gate="on", hmac="on")
    gate = lab.topology.host("gate").address
    seen = {}

    def change():
        seen["mb1"] = sessions(lab, "mb1")
        seen["server"] = sessions(lab, "server")
        for step in ({"insert": ["mb2"]}, {"remove": "mb2"}, {"remove": "mb1"}):
            results = lab.agent("client").request("reconfigure", all=True, **step)["results"]
            assert [r["outcome"] for r in results] == ["done"] * 10, results
            wait_until(lambda: all("reconfiguring" not in s["state"] for s in sessions(lab, "client")), 10, "settled")

    server = lab.topology.host("server")
    compared = transfer(lab, "client", "server", server.address, (PORT, PORT), tmp_path, seconds=4, during=change)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert all(s["behind_nat"] and s["tuple"].startswith(gate) for s in seen["mb1"])
    assert all(not s["behind_nat"] and s["tuple"].startswith(gate) for s in seen["server"])
    assert no_session_was_reset(lab)
    assert all(invalid_packets(lab, lab.topology.host(b)) == 0 for b in ("mb1", "mb2"))


def test_a_proxy_beyond_a_nat_cannot_ask_but_the_private_side_can(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, initial=0, gate="on")
    server, box = (lab.topology.host(h).address for h in ("server", "mb1"))
    lab.agent("client").request("policy_add", filter="tcp dst port 8001", chain=[])
    lab.agent("mb1").request("policy_add", filter="tcp dst port 9001", chain=[])
    proxy = TcpProxy({8001: (server, 9001)}, tmp_path / "control")

    def ask():
        reply = proxy.leave(8001)
        assert (reply["spliced"], reply["refused"]) == (0, 10)
        assert "behind a NAT" in reply["reason"]
        assert all(s["spliced_to"] is None for s in sessions(lab, "mb1"))

    def join_and_remove():
        assert proxy.leave(8001, join_only=True)["spliced"] == 10
        live = [s["id"] for s in sessions(lab, "client") if s["state"] == "established"]
        results = [lab.agent("client").request("reconfigure", session=i, remove="mb1")["results"][0] for i in live]
        assert [r["outcome"] for r in results] == ["done"] * 10, results

    with lab.service("mb1", proxy.command()):
        for during in (ask, join_and_remove):
            compared = transfer(lab, "client", "server", box, (8001, 9001), tmp_path, seconds=3, during=during)
            assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert no_session_was_reset(lab)
