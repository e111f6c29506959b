# SPDX-License-Identifier: Apache-2.0
"""The traffic tool and the proxy on loopback: every byte is checked, and a wrong one is found."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from dysco_ns.splice import SpliceRefused, splice
from lab.tools import bulk, connect, flood
from middleboxes.tcp_proxy import TcpProxy

HOST = "127.0.0.1"


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def process(argv):
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline().startswith("ready")
        yield p
    finally:
        p.terminate()
        p.wait(10)


def transfer(tmp_path, to, server_port, sessions=20, seconds=1.0):
    with process(bulk.server_command(HOST, server_port, tmp_path / "server.jsonl")):
        command = bulk.client_command(HOST, to, tmp_path / "client.jsonl", sessions=sessions, seconds=seconds)
        subprocess.run(command, capture_output=True, timeout=60, check=False)
    pair = bulk.read_report(tmp_path / "client.jsonl"), bulk.read_report(tmp_path / "server.jsonl")
    return bulk.compare([pair])


def test_bytes_through_the_proxy_are_equal_at_both_ends(tmp_path):
    front, back = free_port(), free_port()
    proxy = TcpProxy({front: (HOST, back)}, tmp_path / "control", "never")
    with process(proxy.command()):
        compared = transfer(tmp_path, front, back)
        assert proxy.counters()["accepted"] == 20
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (20, 0, 0)
    assert compared.bytes_compared > 1_000_000


def test_connects_and_the_ends_of_sessions_are_timed(tmp_path):
    port, times = free_port(), tmp_path / "times"
    with process(connect.server_command(HOST, port, times)):
        closings = connect.Closings(times.read_text)
        for _ in range(2):
            out = subprocess.run(connect.client_command(HOST, port, 50), capture_output=True, text=True, check=True).stdout
            opening, closing = [float(line) for line in out.split()], closings.next(50)
            assert len(opening) == len(closing) == 50 and min(opening + closing) > 0.5


@pytest.mark.parametrize("payload", [6, 1000])
def test_every_segment_of_a_flood_has_the_payload_asked_for(payload):
    port = free_port()
    with process(flood.server_command(HOST, port)):
        command = flood.client_command(HOST, port, sessions=3, payload=payload, ms=200)
        counted = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert counted["segments"] > 100
    # segments are counted when they have been sent, bytes when they have been acknowledged: on a busy machine later
    assert 0.5 < counted["bytes"] / (counted["segments"] * payload) < 1.02


def corrupting_relay(listen, to, at):
    """Passes one session on, but inverts the upward byte at an offset."""
    server = socket.create_server((HOST, listen))

    def pump(a, b, spoil):
        seen = 0
        while data := bytearray(a.recv(65536)):
            if spoil and seen <= at < seen + len(data):
                data[at - seen] ^= 0xFF
            seen += len(data)
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)

    def serve():
        inner, _ = server.accept()
        outer = socket.create_connection((HOST, to))
        for a, b, spoil in ((inner, outer, True), (outer, inner, False)):
            threading.Thread(target=pump, args=(a, b, spoil), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def test_one_wrong_byte_is_found_at_its_place(tmp_path):
    front, back = free_port(), free_port()
    header = 32
    corrupting_relay(front, back, header + 100_000)
    compared = transfer(tmp_path, front, back, sessions=1, seconds=0.5)
    assert compared.failed == 1
    assert bulk.read_report(tmp_path / "server.jsonl").sessions[0]["first_bad_offset"] == 100_000


class AgentPeer:
    """The other end of libdysco's protocol: answers each line with a given one and keeps what was asked."""

    def __init__(self, path: Path, reply):
        self.asked, self._reply = [], reply
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        peer, _ = self._server.accept()
        with peer.makefile("rwb") as stream:
            for line in stream:
                self.asked.append(json.loads(line))
                stream.write(json.dumps(self._reply).encode() + b"\n")
                stream.flush()


@pytest.fixture
def sockets():
    with socket.create_server((HOST, 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        out = socket.create_connection(server.getsockname())
        yield client, accepted, out
        for s in (client, accepted, out):
            s.close()


def in_child(work):
    """libdysco keeps one connection a thread: each case gets a thread of its own."""
    result = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join(15)
    return result[0]


def test_splice_tells_the_agent_both_five_tuples(tmp_path, monkeypatch, sockets):
    client, accepted, out = sockets
    monkeypatch.setenv("DYSCO_SOCKET", str(tmp_path / "agent"))
    os.environ["DYSCO_SOCKET"] = str(tmp_path / "agent")
    peer = AgentPeer(tmp_path / "agent", {"ok": True})
    in_child(lambda: splice(accepted, out, 5, -7))
    asked = peer.asked[0]
    assert asked["in"] == [*client.getsockname(), *accepted.getsockname()]
    assert asked["out"] == [*out.getsockname(), *out.getpeername()]
    assert (asked["delta_ab"], asked["delta_ba"], asked["remove"]) == (5, -7, True)


def test_a_refusal_carries_the_agents_reason(tmp_path, monkeypatch, sockets):
    monkeypatch.setenv("DYSCO_SOCKET", str(tmp_path / "agent"))
    AgentPeer(tmp_path / "agent", {"ok": False, "error": "no policy matched its SYN", "retry": False})

    def refused():
        with pytest.raises(SpliceRefused, match="no policy matched its SYN"):
            splice(sockets[1], sockets[2])
        return True

    assert in_child(refused)


def test_without_an_agent_the_reason_says_so(tmp_path, monkeypatch, sockets):
    monkeypatch.setenv("DYSCO_SOCKET", str(tmp_path / "nobody"))

    def refused():
        with pytest.raises(SpliceRefused, match="no Dysco agent"):
            splice(sockets[1], sockets[2])
        return True

    assert in_child(refused)


def test_half_close_passes_through_the_proxy(tmp_path):
    front, back = free_port(), free_port()
    server = socket.create_server((HOST, back))
    with process(TcpProxy({front: (HOST, back)}, tmp_path / "control", "never").command()):
        client = socket.create_connection((HOST, front))
        peer, _ = server.accept()
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert peer.recv(100) == b"request"
        assert peer.recv(100) == b""
        time.sleep(0.1)
        peer.sendall(b"answer")
        peer.close()
        assert client.recv(100) == b"answer"
        assert client.recv(100) == b""
        client.close()
