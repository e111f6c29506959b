# SPDX-License-Identifier: Apache-2.0
"""Builds the simulator around a changed core and runs it until it objects."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.sim.mutants.mutant import CORE, ROOT, Mutant

SEEDS = (1, 20), (21, 300), (301, 3000)
PATIENCE_CPU_S = 240  # of the processor: others may have it meanwhile
FLAGS = ("-std=gnu11", "-O1", "-fwrapv")
TYPES = ("-Werror=incompatible-pointer-types", "-Werror=int-conversion")  # swapped arguments that no compiler would take
SAME = "it compiles to the same code"


class DoesNotCompile(Exception):
    pass


class Trial:
    """What all mutants share, compiled once: only the core's one unit of translation is theirs."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.simulator = [self._compile(source, CORE, work) for source in sorted((ROOT / "tests/sim").glob("*.c"))]
        core = self._compile(ROOT / "dysco_ns/host/agent.c", CORE, work)
        self.core = core.read_bytes()
        self.wrong_anyway = {seed for seed, _ in self._run(core, work / "unchanged")}  # of these nothing follows

    @staticmethod
    def _compile(source: Path, core: Path, work: Path, *flags: str) -> Path:
        target = work / f"{source.stem}.o"
        include = ("-I", core, "-I", ROOT / "dysco_ns/host", "-I", ROOT / "tests/sim")
        command = ["gcc", *FLAGS, *flags, *include, "-c", source, "-o", target]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DoesNotCompile(done.stderr)
        return target

    def objection(self, mutant: Mutant) -> str:
        """The first thing that the simulator has to say, "" if nothing.  SAME: there is nothing to find."""
        with tempfile.TemporaryDirectory(dir=self.work) as directory:
            work = Path(directory)
            shutil.copytree(CORE, work / "core")
            (work / "core" / mutant.header).write_text(mutant.text())
            core = self._compile(ROOT / "dysco_ns/host/agent.c", work / "core", work, *TYPES)
            if core.read_bytes() == self.core:
                return SAME
            said = (line for seed, line in self._run(core, work / "sim") if seed not in self.wrong_anyway)
            return next(said, "")

    def _run(self, core: Path, simulator: Path) -> Iterator[tuple[int, str]]:
        """What the simulator around this core objects to, in all seeds."""
        subprocess.run(["gcc", "-o", simulator, core, *self.simulator], check=True)
        for first, last in SEEDS:
            yield from _objections(simulator, first, last)


def _objections(simulator: Path, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Seeds that the simulator objects to, as it finds them, and what it says; seed 0: it did not come to its end."""
    command = ["prlimit", f"--cpu={PATIENCE_CPU_S}", simulator, str(first), str(last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            for line in run.stdout or ():
                if found := re.match(r"seed (\d+):", line):
                    yield int(found[1]), line.strip()
            status = run.wait()
        finally:
            run.kill()  # nobody wants to know more
    if status < 0:
        ended = "it never ends" if -status in (signal.SIGXCPU, signal.SIGKILL) else f"killed by signal {-status}"
        yield 0, f"seeds {first} to {last}: {ended}"
