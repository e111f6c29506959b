# SPDX-License-Identifier: Apache-2.0
"""A stateful firewall is replaced by another, and what it knows of a session moves along (paper IV-D).

The state is one that the new path's handshake cannot make: a connection mark, set by a word that the client says first.
Data without that mark is dropped.
"""

import hashlib
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from dysco_ns.dpdk.client import DataPath
from dysco_ns.dpdk.process import socket_path
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT
from tests.net.conftest import no_session_was_reset, settled
from tests.net.daemons import killed, started_again
from tests.net.test_deltas import TALK, stream
from tests.net.test_reconfigure import dysco
from tests.net.watch import watched

PORT, PIECES, PIECE, SESSIONS = 5001, 150, 4_000, 8  # little enough that what waits finds room
WORD = b"open sesame"
CLIENT = """
import hashlib, socket, sys, threading, time
address, word, port, pieces, piece, sessions = sys.argv[1], sys.argv[2].encode(), *map(int, sys.argv[3:])
def talk(s):
    s.sendall(word)  # alone: what overtakes it on another processor would be dropped
    s.recv(1, socket.MSG_PEEK)
    def send():
        for i in range(pieces):
            s.sendall(b'c' * (piece - len(word)) if i == 0 else (b'c' + str(i).encode()).ljust(piece, b'c')); time.sleep(0.02)
        s.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send); thread.start()
    got = hashlib.sha256()
    while data := s.recv(65536): got.update(data)
    thread.join(); sys.stdout.write(got.hexdigest() + chr(10)); sys.stdout.flush()
all = [threading.Thread(target=talk, args=(socket.create_connection((address, port)),)) for _ in range(sessions)]
for t in all: t.start()
print('connected', flush=True)
for t in all: t.join()
"""
# The word goes first: the firewall would drop what comes before.
SERVER = (
    TALK
    + """
def serve(s):
    s.recv(1, socket.MSG_PEEK)
    talk(s, b's', int(sys.argv[2]), int(sys.argv[3]))
l = socket.create_server(('', int(sys.argv[1]))); print('ready', flush=True)
for _ in range(int(sys.argv[4])): threading.Thread(target=serve, args=(l.accept()[0],)).start()
"""
)
RULES = f"""*mangle
-A FORWARD -p tcp -m string --algo bm --string "{WORD.decode()}" -j CONNMARK --set-mark 7
COMMIT
*filter
-I FORWARD 1 -p tcp -m length --length 200:65535 -m connmark ! --mark 7 -j DROP
COMMIT
"""


def dropped(lab, host):
    rules = lab.run(host, ["iptables", "-L", "FORWARD", "-v", "-x", "-n"])
    return int(re.search(r"^\s*(\d+)\s+\d+\s+DROP.*length", rules, re.M).group(1))


def digests(process, count):
    return [process.stdout.readline().strip() for _ in range(count)]


@pytest.fixture
def net(lab_of):
    """Sessions through the first of two firewalls; during(change) has them talk while change() runs."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200, hmac="on")
    for host in ("mb1", "mb2"):
        subprocess.run(lab.inside(host, ["iptables-restore", "--noflush"]), input=RULES, text=True, check=True)

    def during(change):
        numbers = [str(n) for n in (PIECES, PIECE, SESSIONS)]
        server = [sys.executable, "-u", "-c", SERVER, str(PORT), *numbers]
        with lab.service("server", server) as far:
            command = [
                sys.executable,
                "-u",
                "-c",
                CLIENT,
                lab.topology.host("server").address,
                WORD.decode(),
                str(PORT),
                *numbers,
            ]
            near = lab.popen("client", command, stdout=subprocess.PIPE)
            assert near.stdout.readline().startswith("connected")
            time.sleep(0.6)
            said = change()
            expected = hashlib.sha256(WORD.ljust(PIECE, b"c") + stream(b"c", PIECES, PIECE)[PIECE:]).hexdigest()
            assert digests(near, SESSIONS) == [hashlib.sha256(stream(b"s", PIECES, PIECE)).hexdigest()] * SESSIONS
            assert digests(far, SESSIONS) == [expected] * SESSIONS
            near.wait(10)
            near.stdout.close()
        assert no_session_was_reset(lab)
        return said

    lab.during = during
    return lab


def replaced(lab, *words):
    status, out, err = dysco("reconfigure", "--at", "client", "--all", "--replace", "mb1=mb2", "--json", "--retries", "0", *words)
    assert out, err
    return status, json.loads(out)["results"]


def ask(net, target=None, **how):
    """Replaces mb1 by mb2 in all sessions, with mb2's agent, or another socket, as the one that takes the state."""
    sockets = [str(net.agent(host).path) for host in ("mb1", "mb2")]
    migrate = [sockets[0], str(target or sockets[1])]
    return net.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, migrate=migrate, retries=0, **how)


def counters(lab, host):
    return lab.agent(host).request("stats")["counters"]


def test_the_mark_moves_and_nothing_is_dropped(net):
    results = net.during(lambda: ask(net)["results"])
    assert [r["outcome"] for r in results] == ["done"] * SESSIONS, results
    assert (dropped(net, "mb1"), dropped(net, "mb2")) == (0, 0)
    assert counters(net, "client").get("parked", 0) + counters(net, "server").get("parked", 0) > 0
    assert all(r["migration_us"] > 0 for r in results)


@pytest.mark.long
def test_what_has_waited_leaves_in_order(net, tmp_path):
    """The new path begins where it must, and skips nothing."""
    with watched(net, tmp_path, wires=("client", "server")):
        results = net.during(lambda: ask(net)["results"])
    assert [r["outcome"] for r in results] == ["done"] * SESSIONS, results


def test_without_migration_the_firewall_drops(net):
    """Until it is told not to: the sessions would never end."""

    def change():
        said = replaced(net)
        time.sleep(0.5)
        seen.append(dropped(net, "mb2"))
        net.run("mb2", ["iptables", "-D", "FORWARD", "1"])
        return said

    seen = []
    status, results = net.during(change)
    assert (status, [r["outcome"] for r in results]) == (0, ["done"] * SESSIONS)
    assert seen[0] > 0


def test_an_import_that_fails_cancels_and_the_sessions_go_on(net):
    """The new firewall's agent cannot write its conntrack: it is asked for a session that has no entry there."""
    net.run("mb2", ["iptables", "-F"])
    net.run("mb2", ["iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "NOTRACK"])
    net.run("mb2", ["iptables", "-P", "FORWARD", "ACCEPT"])
    status, results = net.during(lambda: replaced(net, "--migrate"))
    assert (status, [r["outcome"] for r in results]) == (1, ["cancelled"] * SESSIONS), results
    assert all("the state was not migrated: conntrack has no entry" in r["reason"] for r in results)
    assert dropped(net, "mb1") == 0
    for host in ("client", "server"):
        assert {s["lock"] for s in net.agent(host).request("sessions")["sessions"]} == {"unlocked"}


LABEL = ["-m", "connlabel", "--label", "9"]


def test_labels_move_too(net):
    """The word sets a label at mb1; a rule of mb2 counts what carries it."""
    word = f"-p tcp -m string --algo bm --string {WORD.decode().split()[1]}".split()
    net.run("mb1", ["iptables", "-t", "mangle", "-A", "FORWARD", *word, *LABEL, "--set"])
    net.run("mb2", ["iptables", "-t", "mangle", "-A", "FORWARD", *LABEL])
    results = net.during(lambda: ask(net)["results"])
    assert [r["outcome"] for r in results] == ["done"] * SESSIONS, results
    seen = net.run("mb2", ["iptables", "-t", "mangle", "-L", "FORWARD", "-v", "-x", "-n"]).splitlines()[-1]
    assert int(seen.split()[0]) > 10 * SESSIONS


def all_cancelled(net, results, why):
    assert {r["outcome"] for r in results} == {"cancelled"}, results
    assert all("the state was not migrated: " in r["reason"] and why in r["reason"] for r in results), results[0]
    assert dropped(net, "mb1") == 0
    for host in ("client", "server"):
        assert {s["lock"] for s in net.agent(host).request("sessions")["sessions"]} == {"unlocked"}


@contextmanager
def answering(path, answer, after_s=0.0):
    """Something that listens like an agent, and gives each request the same answer."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            time.sleep(after_s)
            with suppress(BrokenPipeError):  # nobody waits any more
                self.wfile.write(answer)

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


GARBAGE = (b"[]\n", b'{"ok": true, "state": 7}\n', b"\xff\xfe\n")


@pytest.mark.parametrize("answer", [b"nonsense\n", *(pytest.param(a, marks=pytest.mark.long) for a in GARBAGE)])
def test_state_that_is_garbage_cancels(net, tmp_path, answer):
    """What the old middlebox's agent says makes no sense to who asks, or to who gets it."""

    def change():
        with answering(tmp_path / "agent", answer):
            return net.agent("client").request(
                "reconfigure",
                all=True,
                replace={"mb1": ["mb2"]},
                retries=0,
                migrate=[str(tmp_path / "agent"), str(net.agent("mb2").path)],
            )["results"]

    all_cancelled(net, net.during(change), "malformed request" if b"state" in answer else "an agent's answer makes no sense")


@pytest.mark.long
@pytest.mark.parametrize(("how", "why"), [("away", "no agent answers"), ("silent", "has not answered for 2 s")])
def test_a_target_that_does_not_answer_cancels(net, tmp_path, how, why):
    def change():
        with answering(tmp_path / "agent", b"", after_s=5):
            target = tmp_path / "nobody" if how == "away" else tmp_path / "agent"
            return ask(net, target)["results"]

    all_cancelled(net, net.during(change), why)


def test_what_finds_no_room_while_it_waits_is_sent_again(net):
    """There is room for two segments, and the agent that is to take the state sleeps for half a second."""
    for host in ("client", "server"):
        room_for(net, host, 2)
    agent = net.state.agents["mb2"].pid

    def change():
        os.kill(agent, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (agent, signal.SIGCONT)).start()
        return ask(net)["results"]

    results = net.during(change)
    assert {r["outcome"] for r in results} == {"done"}, results
    assert sum(waiting_dropped(net, host) for host in ("client", "server")) > 0
    assert (dropped(net, "mb1"), dropped(net, "mb2")) == (0, 0)


def room_for(net, host, segments):
    """So many may wait at a host: in its device's queue, or in its data path."""
    if net.topology.host(host).backend != "dpdk":
        net.run(host, ["ip", "link", "set", "dysco-park", "txqueuelen", str(segments)])
        return
    data_path = DataPath(socket_path(net.state.namespaces[host]), Btf(OBJECT))
    config = data_path.map("config_table")
    config.put(0, config.get(0) | {"parking": segments})
    data_path.close()


def waiting_dropped(net, host):
    """Segments for which there was no room at a host."""
    if net.topology.host(host).backend == "dpdk":
        return counters(net, host).get("drop_parking_full", 0)
    lines = net.run(host, ["cat", "/proc/net/dev"]).splitlines()
    return next(int(line.split()[12]) for line in lines if line.strip().startswith("dysco-park:"))


@pytest.mark.long
def test_sessions_that_end_while_they_wait(net):
    """Their last bytes and their FINs wait as well, and come through."""
    agent = net.state.agents["mb2"].pid

    def change():
        time.sleep(2.0)
        os.kill(agent, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (agent, signal.SIGCONT)).start()
        return ask(net)["results"]

    assert {r["outcome"] for r in net.during(change)} == {"done"}


@pytest.mark.long
def test_a_daemon_that_dies_while_segments_wait(net, tmp_path):
    """What waited at the left anchor is lost with it, and TCP sends it again; when it is back nothing waits any more."""

    def change():
        with answering(tmp_path / "agent", b"", after_s=1.5):
            ask(net, tmp_path / "agent", wait=False)
            time.sleep(0.7)
            assert counters(net, "client")["parked"] > 0
            killed(net, "client")
        started_again(net, "client")
        net.run("mb2", ["iptables", "-D", "FORWARD", "1"])  # the mark has not come; the new path is used all the same
        settled(net, ("client", "server"), timeout_s=10)

    net.during(change)


def test_migration_that_makes_no_sense(net):
    status, _, why = dysco("reconfigure", "--at", "client", "--all", "--remove", "mb1", "--migrate")
    assert (status, why) == (2, "dysco: --migrate goes with --replace M=M2, one for one\n")
