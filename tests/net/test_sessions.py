# SPDX-License-Identifier: Apache-2.0
"""Sessions end in every way that TCP knows, and leave nothing behind (paper II-A); in the middle of changes: test_ends.py."""

import subprocess
import sys
import time

import pytest

from lab.network import wait_until
from lab.results import ROOT
from lab.tools.longline import delayed
from lab.topologies import ROUTER
from tests.net.conftest import counters, sessions, talking

CONNECT = str(ROOT / "build" / "connect")
PORT, SESSIONS = 5001, 5


def test_a_reset_ends_sessions_everywhere_and_their_five_tuples_are_used_again_at_once(lab_of, tmp_path):
    """By either end; whatever came before it is right.  Three times the same source ports."""
    lab = lab_of("chain", middleboxes=1)
    for end in ("client", "server", "client"):
        with talking(lab, tmp_path, sessions=SESSIONS, from_port=41000) as talk:
            time.sleep(0.2)
            talk.reset(end)
            wait_until(lambda: all(s["state"] == "over" for h in lab.topology.names for s in sessions(lab, h)), 5, "all over")
        ours, theirs = talk.errors if end == "client" else talk.errors[::-1]
        assert (ours, theirs) == ({"reset on request"}, {"Connection reset by peer"})
        assert talk.what_came_is_right()
        assert len(sessions(lab, "mb1")) == SESSIONS  # those of the round before have made room
    assert counters(lab, "server")["session_joined"] == 3 * SESSIONS


BOTH_OPEN = """
import hashlib, os, socket, sys, threading, time
own, port, peer, other, at = sys.argv[1:]
s = socket.socket(); s.bind((own, int(port))); s.settimeout(20)
time.sleep(float(at) - time.time())
s.connect((peer, int(other)))
said, heard = hashlib.sha256(), hashlib.sha256()
def say():
    for _ in range(20):
        data = os.urandom(5000); said.update(data); s.sendall(data)
    s.shutdown(socket.SHUT_WR)
talk = threading.Thread(target=say); talk.start()
while data := s.recv(65536): heard.update(data)
talk.join(); print(said.hexdigest(), heard.hexdigest())
"""


@pytest.mark.long
def test_both_ends_open_at_once_and_are_one_session(lab_of):
    """Each SYN is under way for a while and meets the other; both have a policy, and one chain is as good as the other."""
    lab = lab_of("chain", middleboxes=2, initial=0)
    addresses = [lab.topology.host(h).address for h in ("client", "server")]
    for host, port, box in (("client", 7001, "mb1"), ("server", 7000, "mb2")):
        lab.agent(host).request("policy_add", filter=f"tcp dst port {port}", chain=[box])
    with delayed(lab, ROUTER, ("to-client", "to-server"), 300):
        at = f"{time.time() + 2:.6f}"  # both interpreters are up by then
        commands = [[addresses[i], str(7000 + i), addresses[1 - i], str(7001 - i), at] for i in (0, 1)]
        ends = [lab.popen(host, [sys.executable, "-c", BOTH_OPEN, *words], stdout=subprocess.PIPE)
                for host, words in zip(("client", "server"), commands, strict=True)]  # fmt: skip
        (said, heard), (theirs, of_us) = (end.communicate(timeout=40)[0].split() for end in ends)
    assert (said, theirs) == (of_us, heard)
    came_about = [{s["id"] for s in sessions(lab, host) if s["state"] != "opening"} for host in ("client", "server")]
    assert len(came_about[0]) == 1 and came_about[0] == came_about[1]


def test_more_short_sessions_than_the_tables_hold(lab_of):
    lab = lab_of("chain", middleboxes=1)
    count = 30_000
    with lab.service("server", [CONNECT, "server", lab.topology.host("server").address, str(PORT)]):
        lab.run("client", ["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])  # or 30,000 TIME_WAITs would use up the ports
        lab.run("client", [CONNECT, "churn", lab.topology.host("server").address, str(PORT), str(count)])
    for host in lab.topology.names:
        before, there, counted = counters(lab, host), len(sessions(lab, host)), counters(lab, host)
        assert counted.get("session_started", 0) + counted.get("session_joined", 0) == count
        assert before["session_forgotten"] <= count - there <= counted["session_forgotten"]  # they expire meanwhile
        assert there < 16384
        assert "drop_table_full" not in counted and "drop_no_port" not in counted


def test_a_batch_of_policies_takes_force_at_once(lab_of):
    """Either batch leads to mb1; the first policy of the one and the second of the other would lead to mb2."""
    lab = lab_of("chain", middleboxes=2, initial=0)
    server, count, applied = lab.topology.host("server").address, 2_000, 0
    mine, others = f"tcp dst port {PORT}", "tcp dst port 9"
    batches = [[(mine, "mb1"), (mine, "mb2")], [(others, "mb2"), (mine, "mb1")]]
    churn = [CONNECT, "churn", server, str(PORT), str(count)]
    with lab.service("server", [CONNECT, "server", server, str(PORT)]):
        lab.agent("client").request("policy_apply", policies=[{"filter": f, "chain": [box]} for f, box in batches[0]])
        process = lab.popen("client", churn)
        while process.poll() is None:
            applied += 1
            batch = [{"filter": f, "chain": [box]} for f, box in batches[applied % 2]]
            lab.agent("client").request("policy_apply", policies=batch)
    assert process.returncode == 0 and applied > 20
    assert counters(lab, "mb1")["session_joined"] == count
    assert "session_joined" not in counters(lab, "mb2")
