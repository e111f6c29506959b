# SPDX-License-Identifier: Apache-2.0
"""Real networks for the tests: made by the lab, taken down after each test."""

import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from lab.measure import tcp_counters
from lab.network import Lab, LabFailed, end, wait_until
from lab.tools import bulk
from lab.topologies import build, on_backend
from middleboxes.iptables import Firewall

LONG_S = 150.0

BACKEND = os.environ.get("DYSCO_BACKEND", "")  # runs every test that does not say which on this one: make test-all
WORKERS = int(os.environ.get("DYSCO_WORKERS", "1"))  # cores of DPDK agents

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid():
        pytest.skip("network namespaces need root")


@pytest.fixture
def lab_of():
    """Starts a topology, by its name with settings or as it is; at most one at a time, on DYSCO_BACKEND's backend."""
    labs = []

    def start(topology, **settings):
        if isinstance(topology, str):
            topology = build(topology, {key: str(value) for key, value in settings.items()})
        if BACKEND and "backend" not in settings:
            topology = replace(topology, hosts=tuple(on_backend(host, BACKEND, WORKERS) for host in topology.hosts))
        lab = Lab(topology)
        labs.append(lab)
        lab.start()
        return lab

    yield start
    for lab in labs:
        lab.stop()


def device(lab, host, name):
    """The interface by which a host's stack talks to its wire `name`: on DPDK a tap in front of it."""
    return name.replace("eth", "dysco") if lab.topology.host(host).backend == "dpdk" else name


def invalid_packets(lab, host):
    """What the strict firewall of a host has called INVALID and dropped; 0 where there is none."""
    if host.kind != "firewall":
        return 0
    return Firewall(lab.place(host.name)).counters()["invalid"]


def no_session_was_reset(lab):
    """Whether no host's stack has had a live session reset.

    That a host has sent a reset is asked only while sessions live (`no_reset_was_sent`): afterwards Linux answers the odd
    late acknowledgment so, without any agent too (4 times in 25,000 short sessions)."""
    return not any(tcp_counters(lab.pid(h))["TcpEstabResets"] for h in lab.topology.names)


def no_reset_was_sent(lab):
    return not any(tcp_counters(lab.pid(h))["TcpOutRsts"] for h in lab.state.agents)


def sessions(lab, host):
    return lab.agent(host).request("sessions")["sessions"]


def counters(lab, host):
    return lab.agent(host).request("stats")["counters"]


def nothing_was_invalid(lab):
    """Whether no strict firewall has seen a packet that does not belong to a connection."""
    return not any(invalid_packets(lab, host) for host in lab.topology.hosts)


def reconfigured(lab, host, **change):
    """Asks an agent for a change of all sessions that it can lead: every one must succeed, and settle everywhere."""
    results = lab.agent(host).request("reconfigure", all=True, timeout_s=20, **change)["results"]
    failed = [r for r in results if r["outcome"] != "done"]
    assert results and not failed, failed[:2] or "no session"
    settled(lab)
    return results


def settled(lab, hosts=(), timeout_s=15):
    """Waits until no session is under reconfiguration, and none is locked, at those hosts: all that have an agent."""

    def busy():
        found = [s for host in hosts or lab.state.agents for s in sessions(lab, host) if s["state"] != "over"]
        return [s for s in found if s["lock"] != "unlocked" or "reconfiguring" in s["state"]]

    wait_until(lambda: not busy(), timeout_s, "locks free, nothing under way")


def emptied(lab, timeout_s=10, at=None):
    """Waits until no agent (or none of those hosts) has anything of any session; those that are over may go at once."""
    for host in lab.state.agents:
        lab.agent(host).request("tune", linger_s=1)

    def left():
        tables = {host: lab.agent(host).request("stats")["tables"] for host in at or lab.state.agents}
        return {host: sizes for host, sizes in tables.items() if any(sizes.values())}

    try:
        wait_until(lambda: not left(), timeout_s, "empty tables")
    except LabFailed:
        raise AssertionError(f"still in the tables: {left()}") from None


def needs(probe):
    """Skips a test where the kernel lacks what it needs, and says what."""
    reason = probe()
    if reason:
        pytest.skip(reason)


class Talk:
    """Hashed sessions that run both ways: the processes, and when they have ended, what they say."""

    def __init__(self, clients, server, reports):
        self.clients, self.client, self.server, self._reports = clients, clients[0], server, reports

    @property
    def _ends(self):
        """What the clients together and the server have reported."""
        *clients, server = (bulk.read_report(report) for report in self._reports)
        together = bulk.Report(sessions={number: s for report in clients for number, s in report.sessions.items()})
        return together, server

    def half_close(self, end_):
        """One end ("client" or "server") sends no more; the other goes on."""
        getattr(self, end_).send_signal(signal.SIGUSR1)

    def reset(self, end_):
        getattr(self, end_).send_signal(signal.SIGUSR2)

    @property
    def compared(self):
        return bulk.compare([self._ends])

    @property
    def errors(self):
        """How the sessions ended at the client and at the server: reasons, None where nothing was wrong."""
        return tuple({s["error"] for s in end_.sessions.values()} for end_ in self._ends)

    def what_came_is_right(self):
        """Whether every byte that an end has received is the one that the other has sent: for sessions that were cut."""
        ends = [end_.sessions for end_ in self._ends]
        return ends[0].keys() == ends[1].keys() and all(
            mine[i]["first_bad_offset"] == -1 and mine[i]["rcvd"] <= theirs[i]["sent"]
            for mine, theirs in (ends, ends[::-1])
            for i in mine
        )


@contextmanager
def talking(lab, tmp_path, *, clients=("client",), server="server", address=None, port=(5001, 5001), after_seconds=0.0,
            sessions=10, seconds=None, wait_s=60, **load):  # fmt: skip
    """Hashed sessions of each client with a server, for so many seconds or as long as the block takes; after it they have
    ended.  `load` as bulk.client_command."""
    listen = lab.topology.host(server).address
    reports = [tmp_path / f"{name}.jsonl" for name in (*clients, server)]
    serve = bulk.server_command(listen, port[1], reports[-1], after_seconds=after_seconds)
    with lab.service(server, serve) as served, ExitStack() as stack:
        started = []
        for i, name in enumerate(clients):
            command = bulk.client_command(address or listen, port[0], reports[i], sessions=sessions, seconds=seconds or LONG_S,
                                          base=i * sessions, **load)  # fmt: skip
            started.append(lab.popen(name, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            stack.callback(end, started[-1])
        for process in started:
            assert process.stdout.readline().startswith("connected"), process.stderr.read()
        yield Talk(started, served, reports)
        for process in started:
            if not seconds:
                process.terminate()
            process.wait(wait_s)


def transfer(lab, client, server, address, port, tmp_path, sessions=10, seconds=1.5, during=None, **load):
    """Hashed sessions between two hosts, both ways, for `seconds`; `during()` runs while they do, and they go on until it is
    done, however slow the machine is.  Returns the comparison."""
    with talking(lab, tmp_path, clients=(client,), server=server, address=address, port=port, sessions=sessions,
                 seconds=None if during else seconds, **load) as talk:  # fmt: skip
        if during:
            until = time.monotonic() + seconds
            during()
            time.sleep(max(until - time.monotonic(), 0))
            assert talk.client.poll() is None, "the sessions ended before the test was done with them"
            assert no_reset_was_sent(lab)
    return talk.compared
