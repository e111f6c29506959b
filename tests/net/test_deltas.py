# SPDX-License-Identifier: Apache-2.0
"""Middleboxes that change the size of the stream report their deltas, and leave without a byte lost (paper III-D)."""

import hashlib
import subprocess
import sys

import pytest

from lab.measure import interface_packets
from lab.network import wait_until
from lab.results import ROOT
from tests.net.conftest import no_session_was_reset

PORT = 5001
PIECES, PIECE = 200, 3000

TALK = """
import hashlib, socket, sys, threading, time
def talk(s, tag, pieces, piece):
    def send():
        for i in range(pieces):
            s.sendall((tag + str(i).encode()).ljust(piece, tag)); time.sleep(0.01)
        s.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send); thread.start()
    got = hashlib.sha256()
    while data := s.recv(65536): got.update(data)
    thread.join(); sys.stdout.write(got.hexdigest() + chr(10)); sys.stdout.flush()
"""
CLIENT = TALK + "talk(socket.create_connection((sys.argv[1], int(sys.argv[2]))), b'c', int(sys.argv[3]), int(sys.argv[4]))"
SERVER = TALK + "l = socket.create_server(('', int(sys.argv[1]))); print('ready', flush=True)\n"
SERVER += "talk(l.accept()[0], b's', int(sys.argv[2]), int(sys.argv[3]))"

# Adds to what goes to the server, takes from what comes back, and after a while (0: never) asks to leave.
PROXY = """
import socket, sys, threading, time
sys.path.insert(0, sys.argv[1])
from dysco_ns.splice import splice
server, port, added, taken, after_s = sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6])
listener = socket.create_server(("", port)); print("ready", flush=True)
inner = listener.accept()[0]
outer = socket.create_connection((server, port))
outer.sendall(b"+" * added)
rest = taken
while rest: rest -= len(outer.recv(rest))
def relay(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
ways = [threading.Thread(target=relay, args=pair) for pair in ((inner, outer), (outer, inner))]
for way in ways: way.start()
if after_s:
    time.sleep(after_s)
    splice(inner, outer, added, -taken)
    print("spliced", flush=True)
for way in ways: way.join()
"""


def stream(tag, pieces=PIECES, piece=PIECE):
    return b"".join((tag + str(i).encode()).ljust(piece, tag) for i in range(pieces))


def said(process):
    return process.stdout.readline().strip()


def proxy(server, added, taken, after_s=0.5):
    return [sys.executable, "-u", "-c", PROXY, str(ROOT), server, str(PORT), str(added), str(taken), str(after_s)]


@pytest.mark.parametrize(
    ("added", "taken"),
    [(1, 5000), (100_000, 2000), *(pytest.param(*some, marks=pytest.mark.long) for some in ((0, 0), (7, 0), (0, 11)))],
)
def test_a_proxy_that_adds_and_takes_bytes_leaves(lab_of, added, taken):
    lab = lab_of("chain", middleboxes=1, initial=0)
    box, server = (lab.topology.host(h).address for h in ("mb1", "server"))
    for host, to in (("client", box), ("mb1", server)):
        lab.agent(host).request("policy_add", filter=f"tcp dst port {PORT} and dst host {to}", chain=[])
    sizes = [str(PIECES), str(PIECE)]
    with (
        lab.service("server", [sys.executable, "-u", "-c", SERVER, str(PORT), *sizes]) as far,
        lab.service("mb1", proxy(server, added, taken)) as middle,
    ):
        near = lab.run("client", [sys.executable, "-u", "-c", CLIENT, box, str(PORT), *sizes])
        assert said(middle) == "spliced", middle.stderr.read()
        assert said(far) == hashlib.sha256(b"+" * added + stream(b"c")).hexdigest()
        assert near.strip() == hashlib.sha256(stream(b"s")[taken:]).hexdigest()
        assert lab.agent("mb1").request("sessions")["sessions"][0]["left_chain"]
        wait_until(lambda: middle.poll() == 0, 5, "the proxy ended by itself")
    assert interface_packets(lab.pid("mb1"), "eth0")[0] < 1500  # of the 2 s, it saw the first half second
    assert no_session_was_reset(lab)


@pytest.mark.parametrize(
    ("first_s", "second_s"),
    [
        (0.5, 0),
        pytest.param(0, 0.5, marks=pytest.mark.long),
        *(pytest.param(*both, marks=pytest.mark.long) for both in ((0.5, 1.3), (1.3, 0.5), (0.5, 0.5))),
    ],
)
def test_two_proxies_in_a_row_that_both_change_the_streams(lab_of, first_s, second_s):
    """The first, the second, both one after the other, or both at once leave; what each has added and taken accumulates."""
    lab = lab_of("chain", middleboxes=2, initial=0)
    boxes, server = [lab.topology.host(h).address for h in ("mb1", "mb2")], lab.topology.host("server").address
    for host, to in (("client", boxes[0]), ("mb1", boxes[1]), ("mb2", server)):
        lab.agent(host).request("policy_add", filter=f"tcp dst port {PORT} and dst host {to}", chain=[])
    pieces = 2 * PIECES
    sizes, leaving = [str(pieces), str(PIECE)], {"mb1": first_s, "mb2": second_s}
    with (
        lab.service("server", [sys.executable, "-u", "-c", SERVER, str(PORT), *sizes]) as far,
        lab.service("mb2", proxy(server, 70_001, 13, second_s)) as second,
        lab.service("mb1", proxy(boxes[1], 5, 4999, first_s)) as first,
    ):
        near = lab.run("client", [sys.executable, "-u", "-c", CLIENT, boxes[0], str(PORT), *sizes])
        assert said(far) == hashlib.sha256(b"+" * 70_006 + stream(b"c", pieces)).hexdigest()
        assert near.strip() == hashlib.sha256(stream(b"s", pieces)[13 + 4999 :]).hexdigest()
        for process, after_s in ((first, first_s), (second, second_s)):
            assert not after_s or said(process) == "spliced", process.stderr.read()
        for host, after_s in leaving.items():
            listed = lab.agent(host).request("sessions")["sessions"]
            assert any(s["left_chain"] for s in listed) == bool(after_s), (host, listed)
            wait_until(lambda p=first if host == "mb1" else second: p.poll() == 0, 5, "the proxy ended by itself")
    assert no_session_was_reset(lab)


@pytest.mark.long
def test_after_a_proxy_has_left_the_session_is_reconfigured_like_any_other(lab_of):
    lab = lab_of("chain", middleboxes=2, initial=0)
    box, server = (lab.topology.host(h).address for h in ("mb1", "server"))
    for host, to in (("client", box), ("mb1", server)):
        lab.agent(host).request("policy_add", filter=f"tcp dst port {PORT} and dst host {to}", chain=[])
    sizes = [str(2 * PIECES), str(PIECE)]
    with (
        lab.service("server", [sys.executable, "-u", "-c", SERVER, str(PORT), *sizes]) as far,
        lab.service("mb1", proxy(server, 7, 11)) as middle,
    ):
        near = lab.popen("client", [sys.executable, "-u", "-c", CLIENT, box, str(PORT), *sizes], stdout=subprocess.PIPE)
        assert said(middle) == "spliced", middle.stderr.read()
        wait_until(
            lambda: any(s["left_chain"] for s in lab.agent("mb1").request("sessions")["sessions"]), 5, "the proxy has left"
        )
        (result,) = lab.agent("client").request("reconfigure", all=True, insert=["mb2"])["results"]
        assert near.stdout.readline().strip() == hashlib.sha256(stream(b"s", 2 * PIECES)[11:]).hexdigest()
        assert said(far) == hashlib.sha256(b"+" * 7 + stream(b"c", 2 * PIECES)).hexdigest()
        near.wait(10)
        near.stdout.close()
    assert result["outcome"] == "done", result
