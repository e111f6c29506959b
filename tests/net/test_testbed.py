# SPDX-License-Identifier: Apache-2.0
"""Machines of a testbed, as namespaces with an sshd each: real Ansible, real ssh, the experiments as they are."""

import json
import signal
import subprocess
import time

import pytest

from dysco_ns import netns
from lab.testbed import network
from lab.testbed.inventory import read
from lab.tools import connect
from lab.topologies import build
from tests.net.conftest import reconfigured, sessions
from tests.net.machines import PATIENCE_S, Machines

pytestmark = pytest.mark.timeout(450)
THREE = {"left": {"role": "client"}, "box": {"role": "middlebox"}, "right": {"role": "server"}}
SMALL = ("--set", "rounds=2", "--set", "connects=20")


@pytest.fixture
def machines(tmp_path):
    """Starts stand-ins, gone with the test."""
    running = []

    def start(hosts, **whole):
        running.append(Machines(tmp_path, hosts, **whole))
        return running[-1].__enter__()

    yield start
    for each in running:
        each.__exit__()


@pytest.mark.long
def test_a_session_through_a_machine_loses_it_while_it_lives(machines):
    """Signed; the agents answer through ssh; afterwards the machines are as they were (10 s)."""
    bed = machines(THREE)
    before = bed.look()
    topology = build("chain", {"middleboxes": "1", "hmac": "on"})
    with netns.entered(bed.controller), network.Testbed(topology, read(bed.inventory)) as lab:
        address = lab.topology.host("server").address
        with lab.service("server", connect.server_command(address, 5001)):
            client = lab.popen("client", connect.client_command(address, 5001, 5, 600_000), stdout=subprocess.PIPE)
            for _ in range(5):
                assert float(client.stdout.readline()) > 0
            assert len(sessions(lab, "mb1")) == 5 and lab.run("client", ["nproc"])
            results = reconfigured(lab, "client", remove=lab.topology.host("mb1").address)
            assert len(results) == 5
            assert all(s["chain"] == [] for s in sessions(lab, "client"))
            client.terminate()
            client.communicate(timeout=10)
    assert bed.look() == before and not bed.notes()


@pytest.mark.long
def test_an_experiment_runs_on_machines_and_leaves_them_as_they_were(machines, tmp_path):
    """Goodput and small segments through a real middlebox, with agents and without, and everything undone (25 s)."""
    bed = machines(THREE)
    before = bed.look()
    out = bed.ask("run", "throughput", "--set", "rounds=2", "--set", "window_ms=50", "--json", "--out", str(tmp_path / "runs"))
    summary = json.loads(out)
    assert summary["verdict"] == "holds" and summary["metrics"]["goodput_ratio_1"] > 0
    run = tmp_path / "runs" / "latest"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["testbed"]["hosts"]["box"]["address"] == "10.98.0.2/24"
    assert {p.stem for p in (run / "raw" / "hosts").iterdir()} == set(THREE)
    assert "data0" in (run / "raw" / "hosts" / "box.txt").read_text()
    assert (run / "figures" / "goodput.png").stat().st_size > 10_000
    assert bed.look() == before and not bed.notes()


@pytest.mark.long
def test_what_a_killed_run_leaves_is_refused_then_cleaned_twice(machines, tmp_path):
    """SIGKILL in the middle: the agents live on, until `clean` (20 s)."""
    bed = machines(THREE)
    before = bed.look()
    process = bed.lab("run", "setup-latency", *SMALL, "--out", str(tmp_path / "runs"))
    until = time.monotonic() + 60
    while not any("agent forget" in p.read_text() for p in bed.notes() if p.name.startswith("undo")) and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert bed.look() != before and bed.notes()
    again = bed.lab("run", "setup-latency", *SMALL, "--out", str(tmp_path / "runs"))
    _, complaint = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 1
    assert complaint == ("dysco-lab: left: a run is under way there, or has left something: `dysco-lab testbed clean` ends it\n")
    for _ in range(2):
        assert bed.ask("clean").endswith("clean: left, box, right\n")
        assert bed.look() == before and not bed.notes()


@pytest.mark.long
def test_the_tree_is_deployed_and_a_machine_that_is_away_is_named(machines, tmp_path):
    bed = machines({"left": {"role": "client"}, "right": {"role": "server"}}, tree=str(tmp_path / "tree"))
    for _ in range(2):
        bed.ask("prepare", "--skip", "packages", "--skip", "build")
    assert (tmp_path / "tree" / "dysco_ns" / "core" / "datapath.h").exists()
    bed.run("right", "ip", "link", "set", "control0", "down")
    process = bed.lab("prepare", "--skip", "packages", "--skip", "build")
    _, complaint = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert complaint.startswith("dysco-lab: prepare: right: ") and complaint.count("\n") == 1, complaint


@pytest.mark.long
def test_connect_is_timed_through_a_dpdk_middlebox(machines, tmp_path):
    """Signed, too; what only the lab can see is not testable (1 min)."""
    bed = machines(THREE | {"box": {"role": "middlebox", "backend": "dpdk"}})
    before = bed.look()
    summary = json.loads(bed.ask("run", "setup-latency", *SMALL, "--json", "--out", str(tmp_path / "runs")))
    assert summary["verdict"] == "holds" and summary["metrics"]["connects_hmac_1"] == 40
    assert {c["id"] for c in summary["claims"] if c["verdict"] == "not-testable"} >= {"frames"}
    assert bed.look() == before and not bed.notes()
