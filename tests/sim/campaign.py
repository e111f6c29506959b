# SPDX-License-Identifier: Apache-2.0
"""make simulate: a long search over seeds, at the lowest priority, that goes on where it was interrupted.

results/simulation/<run>/ has the simulator as it was when the run began, a log with a line for each chunk of seeds that is
done, and a summary.  Another simulator begins another run; with --run an earlier one goes on with its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.sim import LIBRARY

RESULTS = LIBRARY.parents[1] / "results" / "simulation"
CHUNK = 500
LAST_LINE = re.compile(r"(\d+) of (\d+) wrong, (\d+) packets")
NAMED = 12  # digits of the simulator's hash


@dataclass(frozen=True)
class Chunk:
    """One line of the log: seeds first to last, what they came to, and what was wrong."""

    first: int
    last: int
    packets: int
    violations: int
    seconds: float
    wrong: tuple[str, ...] = ()

    def line(self) -> str:
        return json.dumps(vars(self))


def begin(simulator: Path) -> Path:
    """The directory of this simulator's run; made, with a copy of it, if there is none."""
    digest = hashlib.sha256(simulator.read_bytes()).hexdigest()[:NAMED]
    directory = RESULTS / digest
    if not (directory / "sim").exists():
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy2(simulator, directory / "sim.part")
        (directory / "sim.part").rename(directory / "sim")
    return directory


def done(directory: Path) -> list[Chunk]:
    """What the log says; a line that was being written when the run was stopped does not count."""
    chunks = []
    log = directory / "log"
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        chunks.append(Chunk(**{**fields, "wrong": tuple(fields["wrong"])}))
    return chunks


def search(simulator: Path, first: int, last: int) -> Chunk:
    """Runs the seeds of one chunk.  A simulator that dies is a violation too."""
    started = time.monotonic()
    command = ["nice", "-n", "19", str(simulator), str(first), str(last)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = LAST_LINE.search(run.stdout)
    wrong = tuple(line for line in run.stdout.splitlines() if line.startswith("seed "))
    if not found:
        wrong = (*wrong, f"seeds {first} to {last}: ended with status {run.returncode}")
    packets = int(found[3]) if found else 0
    return Chunk(first, last, packets, len(wrong), round(time.monotonic() - started, 1), wrong)


def summary(directory: Path, chunks: list[Chunk]) -> dict[str, object]:
    """Totals, written beside the log."""
    total = {
        "experiment": "simulation",
        "simulator": directory.name,
        "seeds": sum(c.last - c.first + 1 for c in chunks),
        "packets": sum(c.packets for c in chunks),
        "violations": sum(c.violations for c in chunks),
        "seconds": round(sum(c.seconds for c in chunks), 1),
        "wrong": [line for c in chunks for line in c.wrong],
    }
    part = directory / "summary.part"
    part.write_text(json.dumps(total, indent=1) + "\n")
    part.rename(directory / "summary.json")
    return total


def run(directory: Path, first: int, seeds: int, jobs: int, packets: int) -> dict[str, object]:
    """Searches what the log does not have yet, until all seeds are done or so many packets delivered."""
    chunks = done(directory)
    known = {c.first for c in chunks}
    starts = [at for at in range(first, first + seeds, CHUNK) if at not in known]
    with ThreadPoolExecutor(jobs) as pool, (directory / "log").open("a") as log:
        if log.tell():
            log.write("\n")  # what comes now does not belong to a line that was being written
        waiting = {}
        while starts or waiting:
            enough = packets and sum(c.packets for c in chunks) >= packets
            while starts and len(waiting) < jobs and not enough:
                at = starts.pop(0)
                last = min(at + CHUNK, first + seeds) - 1
                waiting[pool.submit(search, directory / "sim", at, last)] = at
            if not waiting:
                break
            chunk = next(as_completed(waiting))
            del waiting[chunk]
            chunks.append(chunk.result())
            log.write(chunks[-1].line() + "\n")
            log.flush()
            summary(directory, chunks)
    return summary(directory, chunks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--first", type=int, default=1, help="first seed (default 1)")
    parser.add_argument("--seeds", type=int, default=400_000, help="how many (default 400,000)")
    parser.add_argument("--packets", type=int, default=0, help="stop when so many have been delivered (default: never)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a processor)")
    parser.add_argument("--run", help="go on with this run, whatever the simulator is now")
    given = parser.parse_args()
    if given.first < 1 or given.seeds < 1 or given.jobs < 1:
        parser.error("first, seeds and jobs begin at 1")
    directory = RESULTS / given.run if given.run else begin(LIBRARY.parent / "sim")
    if not (directory / "sim").exists():
        parser.error(f"no run {given.run} in {RESULTS}")
    print(f"{directory}: goes on after {len(done(directory)) * CHUNK} seeds", flush=True)
    total = run(directory, given.first, given.seeds, given.jobs, given.packets)
    print("{seeds} seeds, {packets} packets, {violations} violations".format(**total))
    return int(bool(total["violations"]))


if __name__ == "__main__":
    raise SystemExit(main())
