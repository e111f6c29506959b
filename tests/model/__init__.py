# SPDX-License-Identifier: Apache-2.0
"""Runs Spin on the models of dysco_ns/model: every configuration, and changes that it must object to."""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "dysco_ns" / "model" / "lock.pml"
MOST_HOSTS, MEMORY_MB, DEPTH = 4, 4000, 20_000


@dataclass(frozen=True)
class Configuration:
    """Two left anchors that contend: how many agents, the segment of each, how many messages get lost."""

    hosts: int
    first: tuple[int, int]
    second: tuple[int, int]
    losses: int = 0
    broken: str = ""  # a negative control: what is wrong with the model on purpose

    @property
    def name(self) -> str:
        words = f"{self.hosts} hosts, {self.first[0]}-{self.first[1]} against {self.second[0]}-{self.second[1]}"
        return words + (f", {self.losses} lost" if self.losses else "") + (f", {self.broken}" if self.broken else "")

    def defines(self) -> list[str]:
        numbers = {"HOSTS": self.hosts, "LEFT1": self.first[0], "RIGHT1": self.first[1], "LEFT2": self.second[0],
                   "RIGHT2": self.second[1], "LOSSES": self.losses}  # fmt: skip
        return [f"-D{key}={value}" for key, value in numbers.items()] + ([f"-D{self.broken}"] if self.broken else [])


@dataclass(frozen=True)
class Verdict:
    """What Spin says: complete means that it has seen every state."""

    configuration: Configuration
    errors: int
    complete: bool
    objection: str
    states: int
    transitions: int
    depth: int
    memory_mb: float
    seconds: float = field(compare=False)


def segments(hosts: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(hosts), 2))


def contentions(most_losses: int) -> Iterator[Configuration]:
    """All pairs of segments over chains of up to four hosts, with 0 to most_losses messages lost."""
    for hosts in range(2, MOST_HOSTS + 1):
        for first, second in itertools.combinations_with_replacement(segments(hosts), 2):
            for losses in range(most_losses + 1):
                yield Configuration(hosts, first, second, losses)


CONTROLS = (
    Configuration(4, (0, 2), (1, 3), broken="BROKEN_LOCK"),
    Configuration(4, (0, 3), (1, 2), broken="BROKEN_LOCK"),
    Configuration(4, (0, 3), (2, 3), broken="BROKEN_NACK"),
    Configuration(3, (0, 2), (1, 2), broken="BROKEN_HOLD"),
)


def check(configuration: Configuration, work: Path) -> Verdict:
    """Generates, compiles and runs the verifier in `work`.  subprocess.CalledProcessError if the model is no model."""
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    subprocess.run(["spin", "-a", *configuration.defines(), str(MODEL)], cwd=work, check=True, capture_output=True)
    # no partial-order reduction: small enough without, and nothing to prove about it
    flags = ["-O1", "-DSAFETY", "-DNOREDUCE", f"-DMEMLIM={MEMORY_MB}", "-w"]
    subprocess.run(["gcc", *flags, "-o", "pan", "pan.c"], cwd=work, check=True, capture_output=True)
    said = subprocess.run([work / "pan", f"-m{DEPTH}"], cwd=work, capture_output=True, text=True, check=False).stdout

    def number(pattern: str) -> float:
        found = re.search(pattern, said)
        return float(found.group(1)) if found else 0.0

    objection = re.search(r"^pan:\d+: (.{0,100})", said, re.M)
    return Verdict(
        configuration,
        errors=int(number(r"errors: (\d+)")) if "errors:" in said else 1,
        complete="errors: 0" in said and "Search not completed" not in said and "max search depth" not in said,
        objection=objection.group(1) if objection else "",
        states=int(number(r"([\d.e+]+) states, stored")),
        transitions=int(number(r"([\d.e+]+) transitions")),
        depth=int(number(r"depth reached (\d+)")),
        memory_mb=number(r"([\d.]+)\s+total actual memory usage"),
        seconds=time.monotonic() - started,
    )
