# SPDX-License-Identifier: Apache-2.0
"""An experiment that is interrupted in the middle of its network: what it has measured stays, the network goes."""

import json
import signal
import subprocess
import sys
import time

from lab import state

SMALL = ["clients=2", "usual=2", "suspicious=2", "step=1", "rate=20"]
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


def test_an_experiment_from_its_command_to_its_figures(tmp_path):
    """The scrubber, as small as it goes: one order for what begins at any agent, hashes, counters, claims (10 s)."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "lab.cli", "run", "scrubber", *settings, "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["verdict"] == "holds" and {c["verdict"] for c in summary["claims"]} == {"holds"}
    assert summary["metrics"]["sessions_reconfigured"] == 4 and summary["metrics"]["bytes_mismatched"] == 0
    assert (tmp_path / "latest" / "figures" / "scrubber.png").stat().st_size > 10_000
