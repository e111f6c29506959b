# SPDX-License-Identifier: Apache-2.0
"""Real networks for the tests: made by the lab, taken down after each test."""

import os
import re
import signal
import subprocess
from contextlib import ExitStack, contextmanager

import pytest

from dysco_ns.agent.launch import AgentTarget, start_agents
from lab.capture import capturing, capturing_stack
from lab.judge import judged
from lab.measure import tcp_counters
from lab.network import KEY_FILE, Lab
from lab.tools import bulk
from lab.topologies import build

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid():
        pytest.skip("network namespaces need root")


@pytest.fixture
def lab_of():
    """Starts a topology with settings; at most one at a time."""
    labs = []

    def start(topology, **settings):
        lab = Lab(build(topology, {key: str(value) for key, value in settings.items()}))
        labs.append(lab)
        lab.start()
        return lab

    yield start
    for lab in labs:
        lab.stop()


def invalid_packets(lab, host):
    """What the strict firewall of a host has called INVALID and dropped; 0 where there is none."""
    if host.kind != "firewall":
        return 0
    rules = lab.run(host.name, ["iptables", "-L", "FORWARD", "-v", "-x", "-n"])
    return int(re.search(r"^\s*(\d+)\s+\d+\s+DROP.*INVALID", rules, re.M).group(1))


def no_session_was_reset(lab):
    """Whether no host's stack has had a live session reset.

    That a host has sent a reset is asked only while sessions live (`no_reset_was_sent`): afterwards Linux answers the odd
    late acknowledgment so, without any agent too (4 times in 25,000 short sessions)."""
    return not any(tcp_counters(lab.pid(h))["TcpEstabResets"] for h in lab.topology.names)


def no_reset_was_sent(lab):
    return not any(tcp_counters(lab.pid(h))["TcpOutRsts"] for h in lab.state.agents)


def transfer(lab, client, server, address, port, tmp_path, sessions=10, seconds=1.5, during=None):
    """Hashed sessions between two hosts, both ways; `during()` runs while they do.  Returns the comparison."""
    listen = lab.topology.host(server).address
    reports = tmp_path / "client.jsonl", tmp_path / "server.jsonl"
    with lab.service(server, bulk.server_command(listen, port[1], reports[1])):
        command = bulk.client_command(address, port[0], reports[0], sessions=sessions, seconds=seconds)
        process = lab.popen(client, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline().startswith("connected"), process.stderr.read()
        if during:
            during()
            assert no_reset_was_sent(lab)
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
    return bulk.compare([(bulk.read_report(reports[0]), bulk.read_report(reports[1]))])


def _wrong(path, where, lossless):
    faults = path.faults(lossless)
    if "wire" in where:  # an anchor that has been told beta passes on the stack's echoes: some are of the old path still
        faults.pop("echo_above_max", None)
    return faults


@contextmanager
def watched(lab, tmp_path, wires=(), stacks=(), lossless=False):
    """Captures while the block lasts: beside hosts, and what the TCP of end hosts itself sends and gets.  Whoever looks
    must then have seen ordinary connections only, of which some were new paths (if anything was watched on a wire)."""
    files = {f"{host} wire": tmp_path / f"{host}-wire.pcap" for host in wires}
    files |= {f"{host} stack": tmp_path / f"{host}-stack.pcap" for host in stacks}
    with ExitStack() as stack:
        for host in wires:
            stack.enter_context(capturing(lab, host, "eth0", files[f"{host} wire"]))
        for host in stacks:
            stack.enter_context(capturing_stack(lab, host, files[f"{host} stack"]))
        yield
    for where, file in files.items():
        found = judged(file)
        used = [path for path in found.paths if any(d.bytes for d in path.directions)]
        assert used, f"nothing was captured: {where}"
        assert "stack" in where or found.new_paths(), f"no new path was captured: {where}"
        faults = {f"{path.left} > {path.right}": _wrong(path, where, lossless) for path in used}
        assert not any(faults.values()), f"{where}: { {path: wrong for path, wrong in faults.items() if wrong} }"


def killed(lab, host):
    """The host's daemon dies; its data path stays."""
    os.kill(lab.state.agents[host].pid, signal.SIGKILL)


def started_again(lab, host):
    """A daemon takes up what the one that was killed has left."""
    target = AgentTarget(host, lab.pid(host), KEY_FILE if lab.topology.sign else None, lab.topology.names)
    (handle,) = start_agents([target])
    lab.state.agents[host] = type(lab.state.agents[host]).of(handle.pid, host)
