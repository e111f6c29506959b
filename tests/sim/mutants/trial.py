# SPDX-License-Identifier: Apache-2.0
"""Builds the simulator around a changed core and runs it until it objects."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.sim.mutants.mutant import CORE, ROOT, Mutant

SEEDS = (1, 20), (21, 300), (301, 3000)
PATIENCE_CPU_S = 120  # of the processor: others may have it meanwhile
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
        self.core = self._compile(ROOT / "dysco_ns/host/agent.c", CORE, work).read_bytes()

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
            subprocess.run(["gcc", "-o", work / "sim", core, *self.simulator], check=True)
            return next(filter(None, (_first_line(work / "sim", *seeds) for seeds in SEEDS)), "")


def _first_line(simulator: Path, first: int, last: int) -> str:
    """What it says first about these seeds; it is not asked for more."""
    command = ["prlimit", f"--cpu={PATIENCE_CPU_S}", simulator, str(first), str(last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        line = run.stdout.readline() if run.stdout else ""
        if line.startswith("seed"):
            run.kill()
        status = run.wait()
    if line.startswith("seed"):
        return line.strip()
    ended = "it never ends" if status in (-signal.SIGXCPU, -signal.SIGKILL) else f"killed by signal {-status}"
    return f"seeds {first} to {last}: {ended}" if status else ""
