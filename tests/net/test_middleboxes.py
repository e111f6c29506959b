# SPDX-License-Identifier: Apache-2.0
"""Each middlebox of the lab does its work, counts it, and ends; proxies as their distributions ship them leave sessions."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from lab.network import wait_until
from lab.results import ROOT
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.box import listening
from middleboxes.bridge import Bridge
from middleboxes.haproxy import HAProxy
from middleboxes.iptables import Firewall, Nat
from middleboxes.monitors import FlowMonitor, Prads
from middleboxes.nginx import Nginx
from middleboxes.rate_limiter import RateLimiter
from middleboxes.squid import Squid
from middleboxes.transcoder import Transcoder
from tests.net.conftest import no_session_was_reset, transfer

PORTS = (proxy_port(1), server_port(1))
FILE_BYTES = 30_000_000
CONNECT = ROOT / "build" / "connect"

FETCH = """
import hashlib, socket, sys
address, port, request = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode().decode("unicode_escape").encode()
s = socket.create_connection((address, port)); s.sendall(request)
data = b""
while b"\\r\\n\\r\\n" not in data: data += s.recv(4096)
head, body = data.split(b"\\r\\n\\r\\n", 1)
length = int([line.split(b":")[1] for line in head.split(b"\\r\\n") if line.lower().startswith(b"content-length")][0])
seen, got = hashlib.sha256(body), len(body)
while got < length and (data := s.recv(65536)): seen.update(data); got += len(data)
print(head.split()[1].decode(), got, seen.hexdigest())
"""

WEBSOCKET_SERVER = """
import socket, sys
l = socket.create_server(("", int(sys.argv[1]))); print("ready", flush=True)
s = l.accept()[0]; s.recv(4096)
s.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\r\\n\\r\\n")
while data := s.recv(65536): s.sendall(data)
"""
WEBSOCKET_CLIENT = """
import os, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"GET /chat HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n")
head = b""
while not head.endswith(b"\\r\\n\\r\\n"): head += s.recv(1)
assert head.split()[1] == b"101", head
for i in range(100):
    said = os.urandom(3000); s.sendall(said); heard = b""
    while len(heard) < len(said): heard += s.recv(65536)
    assert heard == said, i
    time.sleep(0.01)
print("equal")
"""


def counters(lab, host):
    return lab.agent(host).request("stats")["counters"]


def left(lab):
    """Sessions that the proxy has left."""
    return sum(s["left_chain"] for s in lab.agent(PROXY).request("sessions")["sessions"] if s["role"] == "last")


def passes(lab, tmp_path, port=5001, seconds=0.5, sessions=5):
    compared = transfer(lab, "client", "server", lab.topology.host("server").address, (port, port), tmp_path, sessions, seconds)
    assert (compared.failed, compared.bytes_mismatched) == (0, 0), compared.reasons
    return compared


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of random bytes to be served, and the line that fetching it prints."""
    root = tmp_path / "www"
    root.mkdir()
    data = os.urandom(FILE_BYTES)
    (root / "file").write_bytes(data)
    return root, f"200 {FILE_BYTES} {hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def pair(lab_of):
    """client1, proxy, server1."""
    return lab_of("proxy", pairs=1, proxy_mbps=100, direct_mbps=100)


def behind(lab):
    return [(lab.topology.host("server1").address, PORTS[1])]


# ---- proxies that know nothing of Dysco ----


@pytest.mark.parametrize("which", ["nginx", "haproxy", pytest.param("haproxy with splice", marks=pytest.mark.long)])
def test_an_unmodified_proxy_leaves_its_live_sessions(pair, tmp_path, which):
    if which == "nginx":
        proxy = Nginx(tmp_path, stream={PORTS[0]: behind(pair)}, leave_when="after:100000", workers=2)
    else:
        proxy = HAProxy(tmp_path, tcp={PORTS[0]: behind(pair)}, leave_when="after:100000", kernel_splice="splice" in which)
    with pair.box(PROXY, proxy):
        address = pair.topology.host(PROXY).address
        compared = transfer(pair, "client1", "server1", address, PORTS, tmp_path, sessions=20, seconds=2.5)
        assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (20, 0, 0), compared.reasons
        assert left(pair) == 20, proxy.stayed()
        wait_until(lambda: proxy.counters()["open"] == 0, 5, "the proxy's sockets closed")
        assert (proxy.counters()["spliced"], proxy.counters()["guarded"]) == (20, 0)
    assert no_session_was_reset(pair)


@pytest.mark.parametrize("which", ["nginx", "haproxy"])
def test_an_http_proxy_leaves_in_the_middle_of_a_long_last_response(pair, tmp_path, folder, which):
    kind = Nginx if which == "nginx" else HAProxy
    proxy = kind(tmp_path, http={PORTS[0]: behind(pair)}, leave_when="now")
    request = r"GET /file HTTP/1.1\r\nHost: server\r\n\r\n"
    with pair.box("server1", Nginx(tmp_path / "web", web={PORTS[1]: folder[0]})), pair.box(PROXY, proxy):
        address = pair.topology.host(PROXY).address
        said = pair.run("client1", [sys.executable, "-c", FETCH, address, str(PORTS[0]), request])
        assert said.strip() == folder[1]
        assert left(pair) == 1, proxy.stayed()
    assert no_session_was_reset(pair)


@pytest.mark.parametrize("which", ["nginx", "haproxy"])
def test_an_http_proxy_leaves_after_the_upgrade_to_websocket(pair, tmp_path, which):
    kind = Nginx if which == "nginx" else HAProxy
    proxy = kind(tmp_path, http={PORTS[0]: behind(pair)}, leave_when="now")
    with (
        pair.service("server1", [sys.executable, "-u", "-c", WEBSOCKET_SERVER, str(PORTS[1])]),
        pair.box(PROXY, proxy),
    ):
        address = pair.topology.host(PROXY).address
        assert pair.run("client1", [sys.executable, "-c", WEBSOCKET_CLIENT, address, str(PORTS[0])]).strip() == "equal"
        assert left(pair) == 1, proxy.stayed()


def test_a_web_proxy_serves_and_stays(pair, tmp_path, folder):
    proxy = Squid(tmp_path, PORTS[0], leave_when="now")
    server = pair.topology.host("server1").address
    request = rf"GET http://{server}:{PORTS[1]}/file HTTP/1.1\r\nHost: {server}\r\n\r\n"
    with pair.box("server1", Nginx(tmp_path / "web", web={PORTS[1]: folder[0]})), pair.box(PROXY, proxy):
        address = pair.topology.host(PROXY).address
        said = pair.run("client1", [sys.executable, "-c", FETCH, address, str(PORTS[0]), request])
        assert said.strip() == folder[1]
        assert left(pair) == 0
        wait_until(lambda: proxy.counters() == {"requests": 1, "served": 1}, 5, "the request logged")


def test_a_transcoder_reports_what_it_has_added_and_leaves(pair, tmp_path):
    pieces = 20
    proxy = Transcoder(tmp_path, PORTS[0], behind(pair)[0], pieces)
    command = [sys.executable, "-u", "-m", "tests.net.pieces"]
    with pair.box(PROXY, proxy), pair.service("server1", [*command, "server", str(PORTS[1]), str(pieces)]) as server:
        address = pair.topology.host(PROXY).address
        client = pair.popen("client1", [*command, "client", address, str(PORTS[0]), str(pieces)], stdout=-1, stderr=-1)
        wait_until(lambda: proxy.leave(PORTS[0])["spliced"] == 1, 5, "the transcoder only relays")
        said = [json.loads(p.stdout.readline()) for p in (client, server)]
        client.communicate()
    assert said[0]["sent"] == said[1]["received"] and said[1]["sent"] == said[0]["received"]
    assert left(pair) == 1
    deltas = [s["deltas"] for s in pair.agent("client1").request("sessions")["sessions"]]
    assert deltas and no_session_was_reset(pair)


# ---- middleboxes of packets ----


def test_translation_of_source_and_destination_is_counted(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, dysco="off")
    server, box = lab.topology.host("server").address, lab.topology.host("mb1").address
    nat = Nat(source=box, ports={6001: (server, 5001)})
    with lab.box("mb1", nat):
        compared = transfer(lab, "client", "server", box, (6001, 5001), tmp_path, sessions=5, seconds=0.5)
        assert (compared.sessions, compared.failed) == (5, 0)
        assert nat.counters() == {"source": 5, "destination": 5}


def test_a_firewall_counts_what_it_lets_in(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, kind="firewall")
    passes(lab, tmp_path)
    counted = Firewall(lab.place("mb1")).counters()
    assert counted["new"] == 5 and counted["passed"] > 50 and counted["invalid"] == 0


@pytest.mark.parametrize("shaper", ["tbf", "htb"])
def test_a_rate_limiter_holds_its_rate(lab_of, tmp_path, shaper):
    lab = lab_of("chain", middleboxes=1)
    limiter = RateLimiter(20, shaper)
    with lab.box("mb1", limiter):
        compared = passes(lab, tmp_path, seconds=1.5)
        assert limiter.counters()["packets"] > 100
    assert compared.bytes_compared * 8 / 1e6 < 20 * 6  # both ways pass its one interface; draining included


def test_monitors_see_hosts_and_flows(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1)
    prads, monitor = Prads(tmp_path), FlowMonitor(tmp_path)
    with lab.box("mb1", prads), lab.box("mb1", monitor):
        passes(lab, tmp_path)
        assert monitor.counters()["flows"] >= 10  # a subsession on either side of each
    assert prads.counters()["hosts"] >= 2


def test_a_bridge_in_user_space_that_changes_ports_is_followed_by_the_tag_of_the_option_alone(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, hmac="on")
    network = lab.topology.host("server").gateway.rsplit(".", 1)[0] + ".0/24"
    bridge = Bridge(tmp_path, network, port_shift=1000)
    server = lab.topology.host("server").address
    with lab.box("mb1", bridge), lab.service("server", [str(CONNECT), "server", server, "5002"]):
        attempt = ["timeout", "1", "bash", "-c", f"echo > /dev/tcp/{server}/5002"]
        assert subprocess.run(lab.inside("client", attempt), capture_output=True, check=False).returncode != 0
        assert counters(lab, "server").get("session_joined", 0) == 0
        lab.agent("mb1").request("tune", tag="option")
        passes(lab, tmp_path)
        assert min(bridge.counters().values()) > 50
    assert counters(lab, "server")["session_joined"] == 5
    assert counters(lab, "mb1")["tag_returned"] == 5
    assert no_session_was_reset(lab)


def test_nothing_that_was_installed_listens_outside_the_lab():
    assert not {80, 3128} & listening(os.getpid())
