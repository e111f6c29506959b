# SPDX-License-Identifier: Apache-2.0
"""Real networks for the tests: made by the lab, taken down after each test."""

import os
import re
import subprocess

import pytest

from lab.measure import tcp_counters
from lab.network import Lab
from lab.tools import bulk
from lab.topologies import build

BACKEND = os.environ.get("DYSCO_BACKEND", "")  # runs every test of a chain on this one: make test-all
PATIENCE = 5 if BACKEND else 1  # a DPDK process for each host on a few processors: everything takes longer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid():
        pytest.skip("network namespaces need root")


@pytest.fixture
def lab_of():
    """Starts a topology with settings, on the backend that DYSCO_BACKEND names; at most one at a time."""
    labs = []

    def start(topology, **settings):
        if topology == "chain" and BACKEND:
            settings.setdefault("backend", BACKEND)
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
        command = bulk.client_command(address, port[0], reports[0], sessions=sessions, seconds=seconds * PATIENCE)
        process = lab.popen(client, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline().startswith("connected"), process.stderr.read()
        if during:
            during()
            assert no_reset_was_sent(lab)
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
    return bulk.compare([(bulk.read_report(reports[0]), bulk.read_report(reports[1]))])
