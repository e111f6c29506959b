# SPDX-License-Identifier: Apache-2.0
"""make mutants: a table, results/mutants/<run>/summary.json; status 1 if a change survives that nobody has explained."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path

from lab.results import RunDirectory, Summary, claim
from tests.sim.mutants.by_hand import BY_HAND
from tests.sim.mutants.explained import why
from tests.sim.mutants.mutant import Mutant
from tests.sim.mutants.sampled import places
from tests.sim.mutants.trial import SAME, DoesNotCompile, Trial

GONE = "its place in the core is there no more"
NOTHING = ("", SAME, GONE)


def judged(trial: Trial, mutant: Mutant) -> tuple[Mutant, str]:
    """The mutant with the objection to it; SAME or GONE if there is nothing to run."""
    try:
        return mutant, trial.objection(mutant)
    except DoesNotCompile:
        return mutant, SAME
    except ValueError:
        return mutant, GONE


def sampled(trial: Trial, pool: ThreadPool, seed: int, wanted: int) -> Iterator[tuple[Mutant, str]]:
    """So many of the seed's changes; one that is none (does not compile, compiles to the same) makes room for the next."""
    queue = iter(places(seed))
    while wanted > 0:
        batch = list(islice(queue, wanted))
        if not batch:
            return
        for mutant, objection in pool.imap(lambda m: judged(trial, m), batch):
            if objection not in NOTHING[1:]:
                wanted -= 1
                yield mutant, objection


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("seed", nargs="?", type=int, default=1, help="which changes are sampled (default 1)")
    arguments.add_argument("--sampled", type=int, default=45, help="how many (default 45)")
    arguments.add_argument("--only", default="", help="names that contain this")
    given = arguments.parse_args()
    started = time.time()
    killed = explained = 0
    survivors = []
    with tempfile.TemporaryDirectory() as work, ThreadPool(len(os.sched_getaffinity(0))) as pool:
        trial = Trial(Path(work))
        by_hand = [m for m in BY_HAND if given.only in m.name]
        for results in (pool.imap(lambda m: judged(trial, m), by_hand), sampled(trial, pool, given.seed, given.sampled)):
            for mutant, objection in results:
                reason = why(mutant) if objection in NOTHING else ""
                verdict = "explained" if reason else "SURVIVES" if objection in NOTHING else "killed"
                killed, explained = killed + (verdict == "killed"), explained + (verdict == "explained")
                if verdict == "SURVIVES":
                    survivors.append(f"{mutant.name}   (was: {mutant.was.strip()})")
                print(f"{verdict:9}  {mutant.name[:110]:110}  {(reason or objection)[:110]}", flush=True)
    total = killed + explained + len(survivors)
    print(f"{total} changes: {killed} killed, {explained} explained, {len(survivors)} survive", *survivors, sep="\n")
    directory = RunDirectory.create("mutants")
    directory.write_manifest(experiment="mutants", profile="quick", seed=given.seed, settings={"sampled": given.sampled},
                             started=started, duration_s=time.time() - started)  # fmt: skip
    metrics = {"mutants": float(total), "killed": float(killed), "explained": float(explained),
               "survivors": float(len(survivors))}  # fmt: skip
    claims = [claim("survivors", "wrong changes that no check catches", "-", metrics["survivors"], "", "== 0")]
    directory.write_summary(Summary("mutants", "quick", claims, metrics, 100.0, survivors))
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
