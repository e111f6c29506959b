# SPDX-License-Identifier: Apache-2.0
"""The DPDK backend on real hosts: chains, reconfiguration and tags, alone and in one chain with eBPF agents."""

import json
import subprocess
import time

import pytest

from dysco_ns.dpdk.process import PROGRAM
from lab.results import ROOT
from tests.net.conftest import no_session_was_reset, transfer
from tests.net.test_reconfigure import PORT, SESSIONS, carried, changed, flat, verified

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the DPDK backend is not built: run `make dpdk`")


def seen_by_dpdk(lab, host):
    """Interfaces of a host: those that are DPDK's have no address of their own."""
    links = json.loads(lab.run(host, ["ip", "-json", "-4", "address"]))
    return [link["ifname"] for link in links if link["addr_info"]]


@pytest.mark.parametrize("backend", ["dpdk", "mixed"])
def test_middleboxes_leave_and_come_back_under_load(lab_of, tmp_path, backend):
    lab = lab_of("chain", middleboxes=2, backend=backend, hmac="on")

    def steps():
        time.sleep(0.3)
        assert len(lab.agent("mb1").request("sessions")["sessions"]) == SESSIONS
        changed(lab, "client", remove="mb1")
        assert flat(lab, "mb1")
        changed(lab, "client", insert=["mb1"])
        assert lab.agent("mb1").request("stats")["counters"]["session_joined"] == 2 * SESSIONS
        assert carried(lab, "mb1")

    compared = verified(lab, tmp_path, steps)
    assert compared.bytes_compared > 1_000_000
    assert seen_by_dpdk(lab, "mb1") == ["lo", "dysco0"]


def cores_of(lab, host):
    """What each core of a host's data path has had."""
    return lab.agent(host).request("stats")["data_path"]["cores"]


def test_two_cores_share_the_sessions_and_none_is_torn_apart(lab_of, tmp_path):
    """Every core has some of the sessions, in its tables alone; their packets, wherever they come in, meet there."""
    lab = lab_of("chain", middleboxes=2, backend="dpdk", workers=2, hmac="on")

    def steps():
        time.sleep(0.3)
        for host in ("client", "mb1", "server"):
            sessions = [core["sessions"] for core in cores_of(lab, host)]
            assert sum(sessions) == SESSIONS and min(sessions) > 0, (host, sessions)
        changed(lab, "client", remove="mb1")
        assert flat(lab, "mb1")
        changed(lab, "client", insert=["mb1"])
        assert carried(lab, "mb1")

    compared = verified(lab, tmp_path, steps)
    assert compared.bytes_compared > 1_000_000
    cores = cores_of(lab, "mb1")
    assert min(core["handed_on"] for core in cores) > 0
    assert min(sum(pair["to_wire"] for pair in core["pairs"]) for core in cores) > 0
    assert sum(core["lost_to_cores"] for core in cores) == 0


def test_a_nat_is_followed_by_the_tag_and_its_interface_given_back(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, kind="nat", backend="dpdk")
    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path)
    assert (compared.failed, compared.bytes_mismatched) == (0, 0)
    assert lab.agent("server").request("stats")["counters"]["session_joined"] == 10
    assert no_session_was_reset(lab)
    lab.stop_agents()
    assert seen_by_dpdk(lab, "mb1") == ["lo", "eth0"]
    lab.run("client", ["ping", "-c", "1", "-W", "2", server])


def test_a_data_path_that_cannot_start_says_why_and_leaves_nothing():
    done = subprocess.run([str(PROGRAM), "--wire", "net_af_packet0,iface=nowhere", "--host", "net_null0"], capture_output=True,
                          text=True, check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "dysco-dpdk: net_af_packet0,iface=nowhere: there is no interface nowhere here\n"
