# SPDX-License-Identifier: Apache-2.0
"""Daemons that are killed while a session is reconfigured: the data path goes on, whoever comes back finishes the work,
and what nobody finishes leaves no lock behind."""

import threading
import time

import pytest

from dysco_ns.agent.launch import StartFailed
from lab.impair import lost
from lab.network import wait_until
from tests.net.conftest import settled
from tests.net.daemons import killed, started_again
from tests.net.test_reconfigure import changed, verified

PHASES = {"locking": "ackLock", "handshake": "new path SYN-ACK", "two paths": "ackRelease"}


def begun(lab, host, phase, **change):
    """All sessions are in this phase, and stay there while the block that `lost` makes lasts."""
    lab.agent(host).request("reconfigure", all=True, wait=False, **change)
    wait_until(lambda: in_phase(lab, host, phase), 5, phase)


def in_phase(lab, host, phase):
    return any(s["state"] == f"reconfiguring: {phase}" for s in lab.agent(host).request("sessions")["sessions"])


CASES = [(phase, host) for phase in PHASES for host in ("client", "server", "mb1")]


@pytest.mark.parametrize(
    ("phase", "host"),
    [case if case == ("two paths", "client") else pytest.param(*case, marks=pytest.mark.long) for case in CASES],
)
def test_a_daemon_is_killed_in(lab_of, tmp_path, phase, host):
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200, hmac="on")

    def steps():
        time.sleep(0.3)
        with lost(lab, PHASES[phase], once=False):
            begun(lab, "client", phase, replace={"mb1": ["mb2"]}, retries=0)
            killed(lab, host)
            time.sleep(0.5)
        started_again(lab, host)
        settled(lab, ("client", "mb1", "server"), timeout_s=12)
        changed(lab, "client", chain=[], until="server")

    verified(lab, tmp_path, steps)


def test_an_agent_waits_for_one_that_ends_and_refuses_to_be_a_second(lab_of):
    lab = lab_of("chain", middleboxes=0, backend="ebpf")
    first = lab.state.agents["client"].pid
    with pytest.raises(StartFailed, match="does another agent serve"):
        started_again(lab, "client")
    assert lab.agent("client").request("ping") and lab.state.agents["client"].pid == first
    ending = threading.Timer(0.5, killed, (lab, "client"))
    ending.start()
    started_again(lab, "client")
    assert lab.agent("client").request("ping") and lab.state.agents["client"].pid != first


@pytest.mark.long
@pytest.mark.parametrize("phase", ["locking", "handshake"])
def test_the_locks_of_a_left_anchor_that_never_comes_back_expire(lab_of, tmp_path, phase):
    """mb1's daemon dies with the segment up to mb3 locked; two seconds later mb2, in the middle of it, changes its part."""
    lab = lab_of("chain", middleboxes=4, initial=3, rate=200)

    def steps():
        time.sleep(0.3)
        with lost(lab, PHASES[phase], once=False, at=f"! -s {lab.topology.host('server').address}"):
            begun(lab, "mb1", phase, chain=["mb4"], until="server", retries=0)
            killed(lab, "mb1")
            refused = lab.agent("mb2").request("reconfigure", all=True, remove="mb3", retries=0, timeout_s=20)["results"]
            assert any(r["outcome"] == "refused" and r["retry"] for r in refused), refused
        time.sleep(2.5)
        changed(lab, "mb2", chain=[], until="server")

    verified(lab, tmp_path, steps)
