# SPDX-License-Identifier: Apache-2.0
"""make verify: every configuration of the models and of the core under Spin, a table, results/verify/<run>/summary.json."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

from lab.results import RESULTS, RunDirectory, Summary, claim
from tests.model import Configuration, Verdict, check, core, lock, twopaths
from tests.model.kept import Kept

HEAD = f"{'configuration':52} {'states':>9} {'transit.':>10} {'depth':>6} {'MB':>7} {'s':>6}  verdict"


def jobs_of(profile: str) -> list[Configuration]:
    quick = [*core.quick(), *core.CONTROLS, *twopaths.quick(), *twopaths.CONTROLS, *lock.CONTROLS]
    if profile == "full":
        return [*quick, *lock.contentions(3), *lock.cancels(1), *core.larger(), *twopaths.larger(), *twopaths.LARGE_CONTROLS]
    return [*quick, *lock.contentions(1), *lock.cancels(0)]


def line(configuration: Configuration, v: Verdict, kept: bool) -> str:
    words = "complete, no error" if v.complete else v.objection or "incomplete"
    if configuration.control:
        words = f"objects, as it must: {v.objection}" if v.errors else "FINDS NOTHING WRONG"
    words += " (kept)" if kept else ""
    return f"{configuration.name:52} {v.states:9} {v.transitions:10} {v.depth:6} {v.memory_mb:7.1f} {v.seconds:6.1f}  {words}"


def run(jobs: list[Configuration], kept: Kept, at_once: int) -> list[tuple[Configuration, Verdict]]:
    found: list[tuple[Configuration, Verdict]] = []

    def one(job: tuple[int, Configuration]) -> tuple[Configuration, Verdict, bool]:
        before = kept.get(job[1])
        with tempfile.TemporaryDirectory() as work:
            return job[1], before or check(job[1], Path(work)), before is not None

    print(HEAD)
    with ThreadPool(at_once) as pool:
        for configuration, verdict, was_kept in pool.imap(one, enumerate(jobs)):
            kept.put(configuration, verdict)
            found.append((configuration, verdict))
            print(line(configuration, verdict, was_kept), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("profile", nargs="?", default="quick", choices=["quick", "full"])
    parser.add_argument("--again", action="store_true", help="run what earlier runs have finished, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="configurations at a time, of up to 4 GB each")
    asked = parser.parse_args()
    started = time.time()
    found = run(jobs_of(asked.profile), Kept(RESULTS / "verify" / "kept.json", asked.again), asked.jobs)
    real = [v for c, v in found if not c.control]
    missed = [c.name for c, v in found if c.control and not v.errors]
    metrics = {
        "configurations": float(len(real)),
        "configurations_complete": float(sum(v.complete for v in real)),
        "errors": float(sum(v.errors for v in real)),
        "states_total": float(sum(v.states for v in real)),
        "memory_mb_max": max(v.memory_mb for _, v in found),
        "controls_missed": float(len(missed)),
    }
    claims = [
        claim("errors", "violations found by Spin", "0", metrics["errors"], "", "== 0"),
        claim("complete", "configurations explored completely", "all", metrics["configurations_complete"], "",
              f"== {len(real)}"),
        claim("controls", "changes that Spin must object to and does not", "-", metrics["controls_missed"], "", "== 0"),
    ]  # fmt: skip
    directory = RunDirectory.create("verify")
    directory.write_manifest(experiment="verify", profile=asked.profile, seed=1, settings={}, started=started,
                             duration_s=time.time() - started)  # fmt: skip
    directory.write_summary(Summary("verify", asked.profile, claims, metrics, 100.0, missed))
    controls = len(found) - len(real)
    print(f"{len(real)} configurations, {metrics['errors']:g} errors, {controls} negative controls, {len(missed)} missed")
    return int(bool(missed) or metrics["errors"] > 0 or metrics["configurations_complete"] < len(real))


if __name__ == "__main__":
    sys.exit(main())
