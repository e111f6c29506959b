# SPDX-License-Identifier: Apache-2.0
"""What a policy server orders, as users order it: one command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from lab.experiments.framework.recorder import Recorder
from lab.network import LabFailed

TIMES = ("reconfig_us", "old_path_drained_us", "migration_us")


def dysco(*words: str) -> list[dict[str, Any]]:
    """The results of one `dysco reconfigure`, from outside every host.  LabFailed with its own words if it has none."""
    command = [sys.executable, "-m", "dysco_ns.policy.cli", "reconfigure", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise LabFailed(f"dysco reconfigure {' '.join(words)}: {done.stderr.strip()}")
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def ordered(record: Recorder, name: str, *words: str) -> list[dict[str, Any]]:
    """Carries the command out; records when it was given and how it ended for each session, under `name`."""
    asked = time.monotonic()
    record(name, "asked", 1, asked)
    results = dysco(*words)
    record(name, "command_s", time.monotonic() - asked)
    return recorded(record, name, results)


def recorded(record: Recorder, name: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each session's reconfiguration ended, under `name`."""
    for result in results:
        record(name, "reconfigured", result["outcome"] == "done")
        for quantity in TIMES:
            if result.get(quantity) is not None:
                record(name, quantity, result[quantity])
    bad = {result["reason"] for result in results if result["outcome"] != "done"}
    if bad:
        record.facts[f"not_done_{name.replace(' ', '_')}"] = sorted(bad)
    return results


def when(samples: Any, name: str, quantity: str = "asked") -> float:
    """The time of the first sample of that kind."""
    return float(samples[(samples.subject == name) & (samples.quantity == quantity)].time_s.iloc[0])
