# SPDX-License-Identifier: Apache-2.0
"""An experiment that is interrupted in the middle of its network: what it has measured stays, the network goes."""

import json
import signal
import subprocess
import sys
import time

from lab import state

QUICK = ["--set", "rounds=2", "--set", "connects=20"]


def test_an_interrupted_experiment_keeps_its_samples_and_takes_its_network_down(tmp_path):
    command = [sys.executable, "-m", "lab.cli", "run", "setup-latency", *QUICK, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not any(p.read_text().count("\n") > 1 for p in tmp_path.glob("*/samples.csv")) and time.monotonic() < until:
        time.sleep(0.1)
    hosts = state.load().hosts
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and err.count("\n") == 1, out + err
    run = next(tmp_path.glob("2*"))
    assert json.loads((run / "manifest.json").read_text())["ended"] == "interrupted"
    assert "connect_us" in (run / "samples.csv").read_text() and not (tmp_path / "latest").exists()
    assert state.load() is None and not any(p.alive() for p in hosts.values())
