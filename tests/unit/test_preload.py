# SPDX-License-Identifier: Apache-2.0
"""The preloaded library: a process that becomes a plain relay is found out, any other keeps its sessions.

The process is a small Python proxy on loopback; a fake agent hears what the library asks.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from middleboxes.control import ask
from middleboxes.preload import LIBRARY
from tests.unit.test_tools import HOST, free_port

RELAY = """
import os, select, socket, sys
port, to, change = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
listener = socket.create_server(("127.0.0.1", port)); print("ready", flush=True)
partner, buffers, pipes, seen, kept = {}, {}, {}, {}, {}
poll = select.poll(); poll.register(listener, select.POLLIN)
def move(a, b):
    if change == "splice":
        n = os.splice(a.fileno(), pipes[a][1], 60000)
        while n: n -= os.splice(pipes[a][0], b.fileno(), n)
        return True
    data = buffers[a]
    n = a.recv_into(data)
    if not n: return False
    seen[a] = seen.get(a, 0) + n
    part = memoryview(data)[:n]
    if change == "copy": b.sendall(bytes(part)); return True
    if change == "hoard" and seen[a] > 3000:
        out = kept.get(a, b"") + bytes(part); kept[a] = out[-100:]; b.sendall(out[:-100]); return True
    if change == "flip" and seen[a] > 5000: data[0] ^= 1
    if change == "add" and seen[a] == n: b.sendall(b"hello")
    if change == "late" and seen[a] > 50000: b.sendall(b"more")
    if change == "header" and part[:5] == b"HTTP/":
        end = bytes(part).index(b"\\r\\n\\r\\n") + 4
        b.sendall(b"HTTP/1.1 200 OK\\r\\nX-Added: yes" + bytes(part[15:end]))
        part = part[end:]
    elif change == "header" and part[:4] == b"GET ":
        b.sendall(bytes(part)[:-2] + b"Connection: close\\r\\n\\r\\n"); return True
    while len(part): part = part[b.send(part):]
    return True
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            a = listener.accept()[0]; b = socket.create_connection(("127.0.0.1", to))
            for x, y in ((a, b), (b, a)):
                partner[x.fileno()] = (x, y); buffers[x] = bytearray(65536); pipes[x] = os.pipe(); poll.register(x, select.POLLIN)
            continue
        if fd not in partner: continue
        a, b = partner[fd]
        try: alive = move(a, b)
        except OSError: alive = False
        if not alive:
            for x in (a, b):
                poll.unregister(x); del partner[x.fileno()]; x.close()
"""


class Agent:
    """Answers yes to whatever libdysco asks, or no; keeps the questions."""

    def __init__(self, path, ok=True):
        self.asked, self._ok = [], ok
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            peer, _ = self._server.accept()
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer):
        with peer.makefile("rwb") as stream:
            for line in stream:
                self.asked.append(json.loads(line))
                stream.write(json.dumps({"ok": True} if self._ok else {"ok": False, "error": "busy"}).encode() + b"\n")
                stream.flush()


def answer_http(peer, first):
    """One response of known length in many pieces."""
    body = os.urandom(40_000)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")
    with contextlib.suppress(OSError):
        for i in range(0, 40_000, 1000):
            peer.sendall(body[i : i + 1000])
            time.sleep(0.02)


def server(port, http=False):
    """Echoes, or answers one HTTP request a connection."""
    listener = socket.create_server((HOST, port))

    def serve(peer):
        while data := peer.recv(65536):
            if http:
                answer_http(peer, data)
            else:
                peer.sendall(data)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


@pytest.fixture
def relay(tmp_path):
    """Starts the proxy under the library: a function that returns the port and the agent."""
    processes = []

    def start(change="none", http=False, leave="now", mode="auto", ok=True):
        front, back = free_port(), free_port()
        server(back, http)
        agent = Agent(tmp_path / "agent", ok)
        environment = {
            "LD_PRELOAD": str(LIBRARY), "DYSCO_SOCKET": str(tmp_path / "agent"), "DYSCO_LEAVE": leave, "DYSCO_RELAY": mode,
            "DYSCO_CONTROL": str(tmp_path / "control"),
        }  # fmt: skip
        command = [sys.executable, "-c", RELAY, str(front), str(back), change]
        p = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        processes.append(p)
        assert p.stdout.readline() == "ready\n"
        return front, agent

    yield start
    for p in processes:
        p.kill()
        p.wait()
        p.stdout.close()


def control(tmp_path, line="stats"):
    return ask(next(tmp_path.glob("control.*.sock")), line)


def exactly(s, n):
    data = b""
    while len(data) < n and (got := s.recv(n - len(data))):
        data += got
    return data


def echo(port, rounds=20, size=1000, pause=0.005, ahead=0):
    """Says and hears random bytes; the socket stays open.  `ahead`: bytes that come before the first answer's."""
    s = socket.create_connection((HOST, port), 10)
    exactly_ahead = ahead
    for _ in range(rounds):
        said = os.urandom(size)
        s.sendall(said)
        heard = exactly(s, size + exactly_ahead)
        exactly_ahead = 0
        if heard[-size:] != said:
            break
        time.sleep(pause)
    return s


def wait_for(condition, timeout=5.0):
    until = time.monotonic() + timeout
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("change", ["none", "splice"])
def test_plain_relays_leave_each_session_once_and_tell_the_right_sockets(relay, change):
    port, agent = relay(change)
    sockets = [echo(port, 5) for _ in range(10)]
    assert wait_for(lambda: len(agent.asked) == 10)
    time.sleep(0.1)
    assert len(agent.asked) == 10
    assert {tuple(a["in"][:2]) for a in agent.asked} == {s.getsockname() for s in sockets}
    assert all((a["delta_ab"], a["delta_ba"]) == (0, 0) for a in agent.asked)


@pytest.mark.parametrize(("change", "why"), [("copy", "not proven"), ("add", "seen to leave"),
                                             ("flip", "not what came")])  # fmt: skip
def test_what_is_no_plain_relay_keeps_its_sessions_and_says_why(relay, tmp_path, change, why):
    port, agent = relay(change, leave="after:12000")
    echo(port, 10).close()
    assert wait_for(lambda: control(tmp_path)["stayed"])
    assert agent.asked == []
    assert why in next(iter(control(tmp_path)["stayed"]))


def test_a_proxy_that_breaks_its_promise_breaks_the_session_and_no_byte_goes_wrong(relay, tmp_path):
    port, agent = relay("late")
    s = echo(port, 49)
    assert wait_for(lambda: len(agent.asked) == 1)
    heard = b"x"
    for _ in range(10):
        with contextlib.suppress(OSError):
            s.sendall(b"x" * 1000)
            heard = exactly(s, 1000)
            assert set(heard) <= {ord("x")}
        if len(heard) < 1000:
            break
    assert len(heard) < 1000
    assert control(tmp_path)["guarded"] == 1


def test_bytes_that_a_proxy_keeps_back_when_it_has_left_are_sent_for_it(relay, tmp_path):
    port, agent = relay("hoard")
    s = echo(port, 3)
    assert wait_for(lambda: len(agent.asked) == 1)
    said = os.urandom(1000)
    for _ in range(3):
        s.sendall(said)
        assert exactly(s, 1000) == said
    assert control(tmp_path)["guarded"] == 0


def test_the_end_of_a_long_last_response_leaves_with_the_deltas_of_both_headers(relay):
    port, agent = relay("header", http=True)
    s = socket.create_connection((HOST, port), 10)
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wait_for(lambda: len(agent.asked) == 1)
    assert agent.asked[0]["delta_ab"] == len(b"Connection: close\r\n")
    assert agent.asked[0]["delta_ba"] == len(b"\r\nX-Added: yes")
    assert len(exactly(s, 40_000)) == 40_000


def test_http_that_may_go_on_is_declined_unless_the_proxy_reads_no_http(relay, tmp_path):
    port, agent = relay("none", http=True)
    with socket.create_connection((HOST, port), 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        exactly(s, 40_000)
    assert wait_for(lambda: control(tmp_path)["stayed"])
    assert agent.asked == []
    assert any("HTTP" in why for why in control(tmp_path)["stayed"])


def test_a_proxy_that_reads_no_http_leaves_sessions_that_carry_it(relay):
    port, agent = relay("none", http=True, mode="tcp")
    with socket.create_connection((HOST, port), 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wait_for(lambda: len(agent.asked) == 1)


def test_sessions_leave_on_command_by_their_port(relay, tmp_path):
    port, agent = relay(leave="command")
    kept = [echo(port, 3) for _ in range(5)]
    assert agent.asked == []
    assert control(tmp_path, "splice 1")["spliced"] == 0
    assert control(tmp_path, f"join {port}") | {"ok": True} == {"ok": True, "spliced": 5, "refused": 0, "reason": ""}
    assert len(kept) == len(agent.asked) == 5
    assert not any(a["remove"] for a in agent.asked)


def test_a_refusal_of_the_agent_is_counted_with_its_reason(relay, tmp_path):
    port, _ = relay(ok=False)
    s = echo(port, 10)
    assert control(tmp_path)["stayed"] == {"busy": 1}
    assert s.fileno() >= 0
