# SPDX-License-Identifier: Apache-2.0
"""The corpus of each target, with all that `make fuzz` has found, and a few thousand changes of it, under the sanitizers."""

import os
import subprocess

import pytest

from tests.fuzz import HERE, SANITIZERS, TARGETS

CHANGES = {"packets": 5000, "host": 3000, "filter": 20000, "splice": 20000, "dpdk": 3000}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_input_touches_nothing_and_leaves_nothing(target, tmp_path):
    assert target.files
    target.build("gcc", tmp_path / "target", f"-fsanitize={SANITIZERS}", str(HERE / "standalone.c"))
    command = [tmp_path / "target", str(CHANGES[target.name]), *target.files]
    leaks = int(not target.dpdk)  # DPDK frees little when it ends
    environment = os.environ | {"ASAN_OPTIONS": f"handle_abort=1:detect_leaks={leaks}"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr[-4000:]
