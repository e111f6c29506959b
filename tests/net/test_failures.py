# SPDX-License-Identifier: Apache-2.0
"""Hosts that die while a session is reconfigured, and what is left in the tables then."""

import subprocess
import sys
import threading
import time

import pytest

from lab.network import wait_until
from lab.results import ROOT
from lab.tools import bulk
from tests.net.conftest import transfer

PORT = 5001
CONNECT = str(ROOT / "build" / "connect")


def sessions(lab, host):
    return lab.agent(host).request("sessions")["sessions"]


def die(lab, host):
    """The host no longer hears or says anything."""
    lab.run(host, ["ip", "link", "set", "eth0", "down"])


@pytest.mark.long
def test_a_middlebox_of_the_new_path_that_is_dead_cancels(lab_of, tmp_path):
    """Its agent is up when it is asked for, and its link is not: the sessions go on as before."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=200)
    answers = []

    def steps():
        time.sleep(0.3)
        die(lab, "mb2")
        reply = lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, retries=0, timeout_s=20)
        answers.extend(reply["results"])

    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, seconds=6, during=steps)
    assert {r["outcome"] for r in answers} == {"cancelled"}, answers
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    for host in ("client", "mb1", "server"):
        assert {s["lock"] for s in sessions(lab, host)} == {"unlocked"}


@pytest.mark.long
def test_an_old_path_that_fails_loses_the_session_and_leaves_nothing(lab_of, tmp_path):
    """The old path dies with data in it (paper III-G): the session cannot be saved; heartbeats tell, the tables empty."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=20)
    address, told = lab.topology.host("server").address, []
    for host in lab.topology.names:
        lab.agent(host).request("tune", heartbeat_s=0.5)
    threading.Thread(target=lambda: told.extend(lab.agent("client").events()), daemon=True).start()
    with lab.service("server", bulk.server_command(address, PORT, tmp_path / "s.jsonl")):
        command = bulk.client_command(address, PORT, tmp_path / "c.jsonl", sessions=5, seconds=60)
        talk = lab.popen("client", command, stdout=subprocess.PIPE)
        assert talk.stdout.readline().startswith("connected")
        time.sleep(0.5)
        lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, wait=False)
        wait_until(lambda: any("two paths" in s["state"] for s in sessions(lab, "client")), 5, "two paths")
        die(lab, "mb1")
        ends = ("client", "server", "mb2")
        wait_until(lambda: all(s["state"] == "over" for h in ends for s in sessions(lab, h)), 60, "the session over everywhere")
        talk.kill()
        talk.wait(10)
        talk.stdout.close()
    assert "session_lost" in {e["event"] for e in told}


def test_when_source_ports_run_out_the_destination_port_varies(lab_of):
    """More sessions at once between two hosts than there are source ports for subsessions."""
    lab = lab_of("chain", middleboxes=1)
    address, count = lab.topology.host("server").address, 7000
    lab.run("client", ["sysctl", "-qw", "net.ipv4.ip_local_port_range=33000 60999"])
    code = f"""
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
open_ = [socket.create_connection(("{address}", {PORT}), timeout=10) for _ in range({count})]
for s in open_: s.sendall(b"x")
print(sum(s.recv(1) == b"y" for s in open_))
"""
    serve = f"""
import resource, selectors, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
l = socket.create_server(("", {PORT}), backlog=4096); sel = selectors.DefaultSelector(); sel.register(l, 1)
print("ready", flush=True)
while True:
    for key, _ in sel.select():
        if key.fileobj is l: sel.register(l.accept()[0], 1)
        elif key.fileobj.recv(1): key.fileobj.sendall(b"y")
        else: sel.unregister(key.fileobj); key.fileobj.close()
"""
    with lab.service("server", [sys.executable, "-u", "-c", serve]):
        said = lab.run("client", [sys.executable, "-c", code])
    assert int(said) == count
    ports = {s["right"].rsplit(":", 1)[1] for s in sessions(lab, "client")}
    assert len(ports) > 1  # PORT, and what was drawn when its 6384 source ports were used up
    assert "drop_no_port" not in lab.agent("client").request("stats")["counters"]


@pytest.mark.parametrize("how", ["--netns", "--pid"])
def test_an_agent_for_a_namespace_that_is_nobodys_host(how, tmp_path):
    """A container is a namespace: by its file, or by one of its processes.  Two of them, joined by a veth; sockets get any port
    from the agents' on, and there are more addresses than an agent serves."""
    names = [f"dysco-test-{how[2:]}-{i}" for i in (1, 2)]
    dysco = [sys.executable, "-m", "dysco_ns.policy.cli"]
    agents, holders = [], []

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for i, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            inside = ["ip", "netns", "exec", name]
            subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 33999"], check=True)
            for more in range(1, 11):
                ip("-n", name, "address", "add", f"10.78.{more}.{i}/24", "dev", "eth0")
            holders.append(subprocess.Popen(["ip", "netns", "exec", name, "sleep", "1000"]))
        time.sleep(0.2)
        for name, holder in zip(names, holders, strict=True):
            which = [how, f"/run/netns/{name}" if how == "--netns" else str(holder.pid)]
            said = tmp_path / f"{name}.said"
            with said.open("w") as errors:
                run = [*dysco, "agent", "run", *which]
                agents.append(subprocess.Popen(run, stdout=subprocess.PIPE, stderr=errors, text=True))
            assert agents[-1].stdout.readline() == "ready\n", said.read_text()
            assert said.read_text().startswith("11 addresses here, and an agent serves 8: sessions by 10.78.8.")
        inside = ["ip", "netns", "exec", names[0]]
        subprocess.run([*inside, *dysco, "policy", "add", "tcp dst port 5001"], check=True, capture_output=True)
        reports = [tmp_path / f"{end}.jsonl" for end in ("client", "server")]
        serve = ["ip", "netns", "exec", names[1], *bulk.server_command("10.77.0.2", PORT, reports[1])]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout.readline().startswith("ready")
            talk = bulk.client_command("10.77.0.2", PORT, reports[0], sessions=100, seconds=1, message=2000, every_us=100_000)
            subprocess.run([*inside, *talk], check=True, capture_output=True)
            server.terminate()
        ends = [bulk.read_report(report) for report in reports]
        compared = bulk.compare([tuple(ends)])
        assert (compared.sessions, compared.clean) == (100, True), compared.reasons
        assert min(s["local_port"] for s in ends[0].sessions.values()) >= 32768  # those below are the agents'
        listed = subprocess.run([*inside, *dysco, "sessions", "--json"], check=True, capture_output=True, text=True).stdout
        assert listed.count('"id"') == 100
    finally:
        for process in agents + holders:
            process.terminate()
            process.wait(10)
            if process.stdout:
                process.stdout.close()
        for name in names:
            from dysco_ns import netns
            from dysco_ns.agent.daemon import forget_namespace

            with netns.entered(netns.Path(f"/run/netns/{name}")):
                inode = netns.inode(netns.path_of())
            forget_namespace(inode)
            ip("netns", "del", name)
