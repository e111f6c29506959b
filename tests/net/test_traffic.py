# SPDX-License-Identifier: Apache-2.0
"""The traffic generator: real sessions through dysco-dpdk over shared memory, each frame checked; and what it refuses."""

import json
import subprocess
import sys

import pytest

from lab.results import ROOT
from lab.tools import traffic

pytestmark = pytest.mark.skipif(not traffic.BINARY.exists(), reason="not built: run `make dpdk`")
SMALL = ("rounds=1", "ms=100", "sessions=500", "ports=virtio_user")


@pytest.mark.timeout(300)
@pytest.mark.long
def test_every_frame_of_every_session_arrives_right_or_not_at_all(tmp_path):
    """One core and two, 64 to 1518 bytes, agent and plain forwarding (15 s)."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "lab.cli", "run", "traffic-dpdk", *settings, "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    metrics = summary["metrics"]
    assert metrics["sessions_chained"] == metrics["sessions"] == 500 and metrics["frames_checked"] > 1000
    assert [metrics[what] for what in ("checksums_bad", "acks_bad", "late", "foreign")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--near", "net_null0", "64"], "--near and --far, and either sizes or --forward; --help explains them"),
        (["--near", "net_null0", "--far", "net_null1", "63"], "size 63: a number from 64 to 1518"),
        (["--near", "net_null0", "--far", "net_null1", "--workers", "x", "64"], "--workers x: a number from 1 to 16"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(words, complaint):
    done = subprocess.run([str(traffic.BINARY), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == f"dysco-dpdk-traffic: {complaint}\n"
