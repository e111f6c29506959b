# SPDX-License-Identifier: Apache-2.0
"""make verify: every configuration of the model under Spin, a table, results/verify/<run>/summary.json."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

from lab.results import RunDirectory, Summary, claim
from tests.model import CONTROLS, Verdict, check, contentions


def line(v: Verdict) -> str:
    words = "complete, no error" if v.complete else v.objection or "incomplete"
    if v.configuration.broken:
        words = f"objects, as it must: {v.objection}" if v.errors else "FINDS NOTHING WRONG"
    return f"{v.configuration.name:48} {v.states:8} {v.transitions:8} {v.depth:6} {v.memory_mb:7.1f} {v.seconds:6.1f}  {words}"


def main(profile: str) -> int:
    jobs = [*contentions(3 if profile == "full" else 1), *CONTROLS]
    started, directory = time.time(), RunDirectory.create("verify")
    print(f"{'configuration':48} {'states':>8} {'transit.':>8} {'depth':>6} {'MB':>7} {'s':>6}  verdict")
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as work, ThreadPool(os.cpu_count()) as pool:
        for verdict in pool.imap(lambda job: check(job[1], Path(work) / str(job[0])), enumerate(jobs)):
            found.append(verdict)
            print(line(verdict), flush=True)
    real = [v for v in found if not v.configuration.broken]
    missed = [v.configuration.name for v in found if v.configuration.broken and not v.errors]
    metrics = {
        "configurations": float(len(real)),
        "configurations_complete": float(sum(v.complete for v in real)),
        "errors": float(sum(v.errors for v in real)),
        "states_total": float(sum(v.states for v in real)),
        "memory_mb_max": max(v.memory_mb for v in found),
        "controls_missed": float(len(missed)),
    }
    claims = [
        claim("errors", "violations found by Spin", "0", metrics["errors"], "", "== 0"),
        claim("complete", "configurations explored completely", "all", metrics["configurations_complete"], "",
              f"== {len(real)}"),
        claim("controls", "changes that Spin must object to and does not", "-", metrics["controls_missed"], "", "== 0"),
    ]  # fmt: skip
    directory.write_manifest(experiment="verify", profile=profile, seed=1, settings={}, started=started,
                             duration_s=time.time() - started)  # fmt: skip
    directory.write_summary(Summary("verify", profile, claims, metrics, 100.0, missed))
    print(f"{len(real)} configurations, {metrics['errors']:g} errors, {len(CONTROLS)} negative controls, {len(missed)} missed")
    return int(bool(missed) or metrics["errors"] > 0 or metrics["configurations_complete"] < len(real))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "quick"))
