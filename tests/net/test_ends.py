# SPDX-License-Identifier: Apache-2.0
"""FIN and RST in every state of a reconfiguration, half-closed sessions in each direction, and sessions that fall silent."""

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from lab import faults
from lab.network import wait_until
from lab.topologies import build
from tests.net.conftest import (
    emptied,
    no_session_was_reset,
    nothing_was_invalid,
    reconfigured,
    sessions,
    talking,
)

PORT, SESSIONS = 5001, 5
SLOW_MBPS = 4  # the old path's middlebox: what is in its queue takes a while to drain
long = pytest.mark.long


@pytest.fixture
def net(lab_of):
    """Sessions through a slow firewall, which a fast one can replace."""
    topology = build("chain", {"middleboxes": "2", "initial": "1", "kind": "firewall", "hmac": "on"})
    slow = tuple(replace(h, rate_mbps=SLOW_MBPS) if h.name == "mb1" else h for h in topology.hosts)
    return lab_of(replace(topology, hosts=slow))


# ---- the states, each held for as long as the block lasts ----


def _to(lab, host, *words):
    return ["-d", lab.topology.host(host).address, *words]


@contextmanager
def locking(lab):
    """The right anchor's answers are lost."""
    with faults.lost(lab, "-s", lab.topology.host("server").address, *faults.CONTROL):
        yield "locking"


@contextmanager
def handshake(lab):
    """The SYN of the new path is lost."""
    with faults.lost(lab, *_to(lab, "mb2", *faults.SETUP)):
        yield "handshake"


@contextmanager
def two_paths(lab):
    """The old path drains slowly."""
    yield "two paths"


@contextmanager
def settling(lab):
    """The old path is over, and what would tell the left anchor that its clock's shift is known is lost."""
    wait_until(lambda: any("two paths" in s["state"] for s in sessions(lab, "client")), 5, "two paths")
    with faults.lost(lab, "-s", lab.topology.host("mb2").address, "-d", lab.topology.host("client").address):
        yield "settling"


STATES = {f.__name__: f for f in (locking, handshake, two_paths, settling)}
QUICK = {("two_paths", "fin", "client"), ("locking", "reset", "server"), ("handshake", "reset", "client")}


def _marks(state, how, end):
    return () if (state, how, end) in QUICK else long


CASES = [
    pytest.param(state, how, end, id=f"{how} by the {end}, {state}", marks=_marks(state, how, end))
    for state in STATES
    for how in ("fin", "reset")
    for end in ("client", "server")
]


@pytest.mark.parametrize(("state", "how", "end"), CASES)
def test_an_end_comes_in_the_middle_of_a_reconfiguration(net, tmp_path, state, how, end):
    with talking(net, tmp_path, sessions=SESSIONS) as talk, ExitStack() as stack:
        time.sleep(0.3)
        if state != "settling":
            phase = stack.enter_context(STATES[state](net))
        net.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, wait=False)
        if state == "settling":
            phase = stack.enter_context(settling(net))
        wait_until(lambda: any(phase in s["state"] for s in sessions(net, "client")), 8, phase)
        (talk.half_close if how == "fin" else talk.reset)(end)
        time.sleep(0.3)
        stack.close()
        if how == "fin":
            talk.half_close("server" if end == "client" else "client")
    if how == "fin":
        assert (talk.compared.sessions, talk.compared.clean) == (SESSIONS, True), talk.compared.reasons
        assert no_session_was_reset(net)
        assert nothing_was_invalid(net)
    else:
        ours, theirs = talk.errors if end == "client" else talk.errors[::-1]
        assert ours == {"reset on request"}
        assert theirs == {"Connection reset by peer"}
        assert talk.what_came_is_right()
    emptied(net, at=("client", "mb1", "server"))


@long
def test_a_new_path_that_comes_too_late_leaves_nothing(net, tmp_path):
    """Its middlebox may have missed the reset; it asks, after a silence."""
    net.agent("mb2").request("tune", heartbeat_s=0.5)
    test_an_end_comes_in_the_middle_of_a_reconfiguration(net, tmp_path, "handshake", "reset", "server")
    emptied(net, at=["mb2"])


# ---- half-closed ----


@pytest.mark.parametrize("ended", ["client", "server"])
def test_half_closed_for_a_while_and_reconfigured_meanwhile(lab_of, tmp_path, ended):
    """One direction is over, the other busy: a firewall that has not seen the FIN comes in, and another leaves."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200, hmac="on")
    with talking(lab, tmp_path, sessions=SESSIONS, after_seconds=30) as talk:
        time.sleep(0.3)
        talk.half_close(ended)
        wait_until(lambda: {s["state"] for s in sessions(lab, "client")} == {"half-closed"}, 5, "half-closed")
        for change in ({"replace": {"mb1": ["mb2"]}}, {"insert": ["mb1"]}, {"remove": "mb1"}):
            reconfigured(lab, "client", **change)
            live = [s for host in ("client", "mb2", "server") for s in sessions(lab, host) if not s["left_chain"]]
            assert {s["state"] for s in live} == {"half-closed"}
        talk.half_close("server" if ended == "client" else "client")
    assert (talk.compared.sessions, talk.compared.clean) == (SESSIONS, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab)


# ---- silence ----


@pytest.fixture
def impatient(lab_of):
    """A chain whose agents forget sessions after three seconds of silence (`dysco agent run --idle`)."""
    lab = lab_of("chain", middleboxes=1)
    lab.stop_agents()
    command = [sys.executable, "-m", "dysco_ns.policy.cli", "agent", "run", "--idle", "3"]
    agents = {}
    for host in lab.topology.names:
        words = [*command, "--pid", str(lab.pid(host)), "--name", host]
        agents[host] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert all(agent.stdout.readline() == "ready\n" for agent in agents.values())
    address = lab.topology.host("mb1").address
    lab.agent("client").request("policy_add", filter=f"tcp dst portrange {PORT}-{PORT + 1}", chain=[address])
    yield lab
    for agent in agents.values():
        agent.terminate()
        agent.wait(10)
        agent.stdout.close()


@long
def test_a_silent_session_is_forgotten_and_a_busy_one_is_not(impatient, tmp_path):
    lab, hosts = impatient, list(impatient.topology.names)
    for host in hosts:
        lab.agent(host).request("tune", linger_s=1)
    (tmp_path / "silent").mkdir()
    once = {"message": 1000, "every_us": 60_000_000, "port": (PORT + 1, PORT + 1)}
    with talking(lab, tmp_path, sessions=SESSIONS, message=1000, every_us=1_000_000) as busy:
        with talking(lab, tmp_path / "silent", sessions=3, **once) as silent:
            assert all(len(sessions(lab, host)) == SESSIONS + 3 for host in hosts)
            wait_until(lambda: all(len(sessions(lab, host)) == SESSIONS for host in hosts), 12, "the silent ones forgotten")
            silent.reset("client")
        assert silent.what_came_is_right()
        busy.half_close("client")
    assert (busy.compared.sessions, busy.compared.clean) == (SESSIONS, True), busy.compared.reasons
    wait_until(lambda: not any(sessions(lab, host) for host in hosts), 10, "nothing left")
    assert not any(any(lab.agent(host).request("stats")["tables"].values()) for host in hosts)
