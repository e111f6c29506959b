# SPDX-License-Identifier: Apache-2.0
"""Sessions end in every way that TCP knows, and leave nothing behind (paper II-A)."""

import sys
import threading

import pytest

from lab.network import wait_until
from lab.results import ROOT

CONNECT = str(ROOT / "build" / "connect")
PORT = 5001

SERVER = """
import socket, struct, sys
s = socket.create_server(("", %d)); print("ready", flush=True)
while True:
    c, _ = s.accept()
    what = c.recv(1)
    if what == b"h":                    # half-closed: the client says all it has, then we talk
        while c.recv(65536): pass
        for _ in range(40): c.sendall(bytes(10000)); __import__("time").sleep(0.05)
    elif what == b"r":                  # reset by the server
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif what == b"w":                  # reset by the client: say what we see
        try: c.recv(1)
        except ConnectionResetError: print("reset seen", flush=True)
    c.close()
"""


def client(lab, code):
    """Runs lines of Python at the client; `s` is connected.  Returns what they print."""
    address = lab.topology.host("server").address
    head = f"import socket, struct, time\ndef go(**k): return socket.create_connection(('{address}', {PORT}), **k)\n"
    return lab.run("client", [sys.executable, "-c", head + code])


def sessions(lab, host):
    return lab.agent(host).request("sessions")["sessions"]


def over(lab, hosts=("client", "mb1", "server")):
    return all(s["state"] == "over" for h in hosts for s in sessions(lab, h))


@pytest.fixture
def net(lab_of):
    """A chain with one middlebox, another to insert, and a server that does as it is told."""
    lab = lab_of("chain", middleboxes=2, initial=1)
    with lab.service("server", [sys.executable, "-u", "-c", SERVER % PORT]) as server:
        lab.server_output = server.stdout
        yield lab


def test_a_half_closed_session_goes_on_talking_and_is_reconfigured(net):
    said = []
    talk = "s = go(); s.sendall(b'h' + bytes(50000)); s.shutdown(1); n = 0\nwhile (d := s.recv(65536)): n += len(d)\nprint(n)"
    thread = threading.Thread(target=lambda: said.append(client(net, talk)))
    thread.start()
    wait_until(lambda: any(s["state"] == "half-closed" for s in sessions(net, "client")), 5, "half-closed")
    session = sessions(net, "client")[0]["id"]
    result = net.agent("client").request("reconfigure", session=session, insert=["mb2"])["results"][0]
    thread.join(20)
    assert result["outcome"] == "done", result
    assert [int(text) for text in said] == [400_000]
    # the middlebox that came after the client's FIN has not seen it: the new path's SYN has told
    wait_until(lambda: over(net, net.topology.names), 5, "the session over everywhere")
    assert len(sessions(net, "mb2")) == 1


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("s = go(); s.sendall(b'r'); time.sleep(0.2)\ntry: s.recv(1)\nexcept ConnectionResetError: print('reset')", "reset"),
        (
            "s = go(); s.sendall(b'w'); time.sleep(0.2); s.setsockopt(1, 13, struct.pack('ii', 1, 0)); s.close(); print('ok')",
            "ok",
        ),
    ],
    ids=["by the server", "by the client"],
)
def test_a_reset_passes_and_ends_the_session_everywhere(net, code, printed):
    assert client(net, code).strip() == printed
    wait_until(lambda: over(net), 5, "the session over everywhere")
    assert len(sessions(net, "mb1")) == 1
    if printed == "ok":
        assert net.server_output.readline().strip() == "reset seen"


def test_a_five_tuple_is_used_again_at_once(net):
    once = "s = go(source_address=('', 40001)); s.sendall(b'x'); s.recv(1); "
    once += "s.setsockopt(1, 13, struct.pack('ii', 1, 0)); s.close()\n"
    assert client(net, once * 5 + "print('five')").strip() == "five"
    wait_until(lambda: over(net), 5, "all sessions over")
    assert net.agent("server").request("stats")["counters"]["session_joined"] == 5


def test_more_short_sessions_than_the_tables_hold(lab_of):
    lab = lab_of("chain", middleboxes=1)
    count = 30_000
    with lab.service("server", [CONNECT, "server", lab.topology.host("server").address, str(PORT)]):
        lab.run("client", ["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])  # or 30,000 TIME_WAITs would use up the ports
        lab.run("client", [CONNECT, "churn", lab.topology.host("server").address, str(PORT), str(count)])
    for host in lab.topology.names:
        counters = lab.agent(host).request("stats")["counters"]
        assert counters.get("session_started", 0) + counters.get("session_joined", 0) == count
        assert count - counters["session_forgotten"] == len(sessions(lab, host)) < 16384
        assert "drop_table_full" not in counters and "drop_no_port" not in counters


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
    assert lab.agent("mb1").request("stats")["counters"]["session_joined"] == count
    assert "session_joined" not in lab.agent("mb2").request("stats")["counters"]
