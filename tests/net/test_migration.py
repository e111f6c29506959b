# SPDX-License-Identifier: Apache-2.0
"""A stateful firewall is replaced by another, and what it knows of a session moves along (paper IV-D).

The state is one that the new path's handshake cannot make: a connection mark, set by a word that the client says first.
Data without that mark is dropped.
"""

import hashlib
import json
import re
import subprocess
import sys
import time

import pytest

from tests.net.conftest import no_session_was_reset
from tests.net.test_deltas import TALK, stream
from tests.net.test_reconfigure import dysco

PORT, PIECES, PIECE, SESSIONS = 5001, 150, 20_000, 8
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


def counters(lab, host):
    return lab.agent(host).request("stats")["counters"]


def test_the_mark_moves_and_nothing_is_dropped(net):
    status, results = net.during(lambda: replaced(net, "--migrate"))
    assert (status, [r["outcome"] for r in results]) == (0, ["done"] * SESSIONS), results
    assert (dropped(net, "mb1"), dropped(net, "mb2")) == (0, 0)
    assert counters(net, "client").get("parked", 0) + counters(net, "server").get("parked", 0) > 0
    assert all(r["migration_us"] > 0 for r in results)


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


def test_migration_that_makes_no_sense(net):
    status, _, why = dysco("reconfigure", "--at", "client", "--all", "--remove", "mb1", "--migrate")
    assert (status, why) == (2, "dysco: --migrate goes with --replace M=M2, one for one\n")
