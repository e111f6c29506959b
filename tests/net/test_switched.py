# SPDX-License-Identifier: Apache-2.0
"""Hosts at Open vSwitch switches: Dysco over plain forwarding, steering by rules, and what neither may leave behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab import environment, state
from lab.experiments.sdn_baseline import TOOLS
from lab.network import SWITCHES
from lab.tool import ToolFailed

from .conftest import needs, sessions, talking

SMALL = ["middleboxes=3", "rounds=2", "connects=20", "window_ms=100", "sessions=5", "most=10"]


@pytest.fixture(autouse=True)
def _tools():
    def missing():
        try:
            environment.need(TOOLS, "this test")
        except environment.MissingTool as error:
            return str(error)
        return ""

    needs(missing)


@pytest.mark.long
def test_dysco_chains_over_switches_that_only_forward(lab_of, tmp_path):
    """5 s"""
    lab = lab_of("switched", middleboxes=3)
    with talking(lab, tmp_path, sessions=5, seconds=1):
        assert len(sessions(lab, "mb2")) == 5
        assert [lab.switches.rules(name) for name in lab.switches.names] == [10, 10, 10]
    processes = [p for p in lab.state.processes if p.name.startswith("ovs")]
    assert len(processes) == 2 and all(p.alive() for p in processes)
    lab.stop()
    assert not any(p.alive() for p in processes) and not SWITCHES.exists() and state.load() is None


def test_a_switch_process_that_ends_is_one_line(lab_of, monkeypatch):
    monkeypatch.setattr("lab.switches.Switches._link", lambda self: self._await(self._daemon("ovs-vswitchd", "--nonsense"), bool))
    with pytest.raises(ToolFailed, match=r"ovs-vswitchd.* ended with 1: .*nonsense") as failed:
        lab_of("switched", middleboxes=1)
    assert "\n" not in str(failed.value)


@pytest.mark.long
@pytest.mark.timeout(480)
def test_rules_steer_until_a_nat_changes_the_five_tuple_and_dysco_does_not_mind(tmp_path):
    """The experiment sdn-baseline, as small as it goes (35 s)."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "lab.cli", "run", "sdn-baseline", *settings, "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["rules_per_session_sdn"] == 6 and metrics["rules_per_session_dysco"] == 0
    assert metrics["whole_chain_sdn"] == metrics["whole_chain_dysco_nat"] == metrics["completed_dysco_nat"] == 5
    assert metrics["beyond_nat_sdn_nat_forward"] == metrics["completed_sdn_nat_drop"] == 0
    assert not SWITCHES.exists() and not list(Path(tmp_path).glob("*/raw/*.sock"))
