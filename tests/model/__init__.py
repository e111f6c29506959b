# SPDX-License-Identifier: Apache-2.0
"""Runs Spin on the models of dysco_ns/model: every configuration, and changes that it must object to."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.model import library
from tests.sim.mutants.mutant import Mutant

MODELS = Path(__file__).resolve().parents[2] / "dysco_ns" / "model"
MEMORY_MB, DEPTH = 4000, 20_000
# No partial-order reduction: nothing to prove about it.  States are stored compressed, without loss.
FLAGS = ("-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE", "-DSEPQS", "-DJOINPROCS", "-DNOFAIR", f"-DMEMLIM={MEMORY_MB}", "-w")


@dataclass(frozen=True)
class Configuration:
    """A model with its numbers, and switches that are on."""

    model: str  # its file, without .pml
    name: str
    numbers: tuple[tuple[str, int], ...]
    switches: tuple[str, ...] = ()
    control: bool = False  # a negative control: something is wrong on purpose
    large: bool = False  # worth an optimizing compiler
    mutant: Mutant | None = None  # a wrong change of the core that core.pml runs
    reduced: bool = False  # with partial-order reduction: only to show what that misses

    @property
    def source(self) -> Path:
        return MODELS / f"{self.model}.pml"

    def defines(self) -> list[str]:
        return [f"-D{key}={value}" for key, value in self.numbers] + [f"-D{switch}" for switch in self.switches]


@dataclass(frozen=True)
class Verdict:
    """What Spin says: complete means that it has seen every state."""

    errors: int
    complete: bool
    objection: str
    states: int
    transitions: int
    depth: int
    memory_mb: float
    seconds: float = field(compare=False)


def check(configuration: Configuration, work: Path) -> Verdict:
    """Generates, compiles and runs the verifier in `work`.  subprocess.CalledProcessError if the model is no model."""
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    generate = ["spin", "-a", *configuration.defines(), str(configuration.source)]
    subprocess.run(generate, cwd=work, check=True, capture_output=True)
    flags = [flag for flag in FLAGS if not (configuration.reduced and flag == "-DNOREDUCE")]
    compiler = ["gcc", "-O2" if configuration.large else "-O0", *flags]
    hosts = [f"-I{library.SOURCES}", *library.objects(configuration.mutant)] if configuration.model == "core" else []
    subprocess.run([*compiler, "-o", "pan", "pan.c", *hosts], cwd=work, check=True, capture_output=True)
    said = subprocess.run([work / "pan", f"-m{DEPTH}"], cwd=work, capture_output=True, text=True, check=False).stdout

    def number(pattern: str) -> float:
        found = re.search(pattern, said)
        return float(found.group(1)) if found else 0.0

    objection = re.search(r"^wrong: (.{0,100})", said, re.M) or re.search(r"^pan:\d+: (.{0,100})", said, re.M)
    return Verdict(
        errors=int(number(r"errors: (\d+)")) if "errors:" in said else 1,
        complete="errors: 0" in said and "Search not completed" not in said and "max search depth" not in said,
        objection=objection.group(1) if objection else "",
        states=int(number(r"([\d.e+]+) states, stored")),
        transitions=int(number(r"([\d.e+]+) transitions")),
        depth=int(number(r"depth reached (\d+)")),
        memory_mb=number(r"([\d.]+)\s+total actual memory usage"),
        seconds=time.monotonic() - started,
    )
