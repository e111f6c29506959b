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
from lab.topologies import ROUTER
from tests.net.conftest import sessions, talking, transfer

PORT = 5001
CONNECT = str(ROOT / "build" / "connect")


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


HOLD = """
import resource, socket, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
if sys.argv[1] == "listen":
    listener = socket.create_server((sys.argv[2], 5001), backlog=4096); print("ready", flush=True)
    held = [listener.accept() for _ in iter(int, 1)]
held = [socket.create_connection((sys.argv[2], 5001), timeout=10) for _ in range(int(sys.argv[1]))]
print("ready", flush=True); threading.Event().wait()
"""


def test_when_source_ports_run_out_the_destination_port_varies(lab_of, tmp_path):
    """So many sessions are open at once that the others find no source port for their subsession any more."""
    lab = lab_of("chain", middleboxes=1)
    server, other = lab.topology.host("server").address, "10.99.0.2"  # its sessions to the middlebox use the same ports
    lab.run("server", ["ip", "address", "add", f"{other}/32", "dev", "lo"])
    lab.run(ROUTER, ["ip", "route", "add", other, "via", server])
    lab.run("client", ["sysctl", "-qw", "net.ipv4.ip_local_port_range=33000 60999"])
    lab.agent("client").request("policy_add", filter=f"tcp and dst host {other}", chain=["mb1"], ends_at="server")
    with (
        lab.service("server", [sys.executable, "-c", HOLD, "listen", other]),
        lab.service("client", [sys.executable, "-c", HOLD, "6384", other]),
        talking(lab, tmp_path, sessions=50, seconds=1) as talk,
    ):
        found = [s["right"].rsplit(":", 1)[1] for s in sessions(lab, "client") if server in s["tuple"]]
    assert (talk.compared.sessions, talk.compared.clean) == (50, True), talk.compared.reasons
    assert len(set(found)) > 10, found  # drawn, as the source ports for PORT are used up
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
            assert said.read_text().startswith("11 addresses here, and an agent serves 8: left alone are 10.78.8.")
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
            reserved = ["ip", "netns", "exec", name, "sysctl", "-n", "net.ipv4.ip_local_reserved_ports"]
            for left in ("20000-32767", "", ""):  # forgotten, and once more
                assert subprocess.run(reserved, check=True, capture_output=True, text=True).stdout.strip() == left
                subprocess.run([*dysco, "agent", "forget", "--netns", f"/run/netns/{name}"], check=True)
            ip("netns", "del", name)
