# SPDX-License-Identifier: Apache-2.0
"""Inputs that `make fuzz` has found, and a short random run, under the sanitizers."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RANDOM = "20000"


def test_hostile_input_touches_nothing_and_leaves_nothing(tmp_path):
    core = ["-I", ROOT / "dysco_ns/core", "-I", ROOT / "dysco_ns/host"]
    flags = ["-std=gnu11", "-O1", "-g", "-DSTANDALONE", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    sources = [HERE / "packets.c", ROOT / "dysco_ns/host/agent.c"]
    subprocess.run(["gcc", *flags, *core, *sources, "-o", tmp_path / "packets"], check=True)
    corpus = sorted((HERE / "corpus").iterdir())
    assert corpus
    run = subprocess.run([tmp_path / "packets", RANDOM, *corpus], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
