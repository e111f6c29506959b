# SPDX-License-Identifier: Apache-2.0
"""Writes a run down while it happens: samples, facts for the manifest, idle CPU, how far it is.

Samples go to the disk row by row: what an interrupt leaves is what was measured until then.
"""

from __future__ import annotations

import csv
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.measure import Sampler, machine_ticks
from lab.network import Lab
from lab.results import RunDirectory
from lab.site import Here, Site
from lab.topologies import Topology

HEAD = ("time_s", "subject", "quantity", "value", "round")
WATCH_S = 1.0
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Turn:
    """One measurement of one mode, between the others' ones."""

    round: int
    mode: str


class Recorder:
    """The record of one run.  Called with a subject, a quantity that ends with its unit, and a value: one observation."""

    def __init__(
        self, run: RunDirectory, seed: int, progress: Progress = lambda fraction, text: None, site: Site | None = None
    ) -> None:
        self._site = site or Here()
        self.raw: Path = run.raw
        self.seed, self.dice = seed, random.Random(seed)
        self.progress = progress
        self.facts: dict[str, Any] = {}  # what else belongs into the manifest
        self._file = (run.path / "samples.csv").open("w", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        self._writer.writerow(HEAD)
        self._zero = time.monotonic()
        self._round: int | None = None  # of the current turn; negative: warm-up
        self._done, self._steps = 0, 0

    # ---- where ----

    def network(self, topology: Topology) -> Lab:
        """The hosts of a topology, wherever this run has them, while the `with` block lasts."""
        return self._site.network(topology)

    def lengths(self, wanted: Sequence[int]) -> list[int]:
        """Those chain lengths for which there are middleboxes."""
        return [length for length in wanted if length <= self._site.middleboxes]

    # ---- samples ----

    def __call__(self, subject: str, quantity: str, value: float, at: float | None = None) -> None:
        """`at`: seconds of the monotonic clock, now if not given."""
        if self._round is None or self._round >= 0:
            at = time.monotonic() if at is None else at
            self._writer.writerow((round(at - self._zero, 3), subject, quantity, f"{value:.10g}", self._round))

    def all(self, subject: str, quantity: str, values: Sequence[float]) -> None:
        for value in values:
            self(subject, quantity, value)

    def zero(self) -> float:
        """Time 0 of all samples is now; returns it in seconds of the monotonic clock."""
        self._zero = time.monotonic()
        return self._zero

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Records how much of the CPU was idle in each second of the block."""
        sampler = Sampler(WATCH_S, lambda now: dict(zip(("idle", "all"), map(float, machine_ticks()), strict=True)))
        sampler.start()
        try:
            yield
        finally:
            for (_, a), (at, b) in itertools.pairwise(sampler.finish()):
                if b["all"] > a["all"]:
                    self("machine", "idle_pct", 100 * (b["idle"] - a["idle"]) / (b["all"] - a["all"]), at)

    # ---- repetitions ----

    def expect(self, steps: int) -> None:
        """So many calls of step() are to come, those of turns() included."""
        self._steps = steps

    def step(self, text: str) -> None:
        """The next step begins."""
        self.progress(min(self._done / self._steps, 1.0) if self._steps else 0.0, text)
        self._done += 1

    def turns(self, rounds: int, modes: Sequence[str], text: str = "", warm_up: int = 1) -> Iterator[Turn]:
        """Every mode once a round, in an order drawn anew each round, so that drift of the machine hits all alike.

        What is recorded in the first `warm_up` rounds is dropped.  (warm_up + rounds) * modes steps."""
        for turn in range(-warm_up, rounds):
            order = list(modes)
            self.dice.shuffle(order)
            for mode in order:
                self.step(f"{text} {mode}".strip())
                self._round = turn
                yield Turn(turn, mode)
                self._round = None

    def sleep(self, seconds: float, text: str, since: float, whole: float) -> None:
        """Sleeps while the progress bar moves: the run began at `since` (monotonic) and takes `whole` seconds."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self.progress(min((now - since) / whole, 1.0), text)
            time.sleep(min(0.1, until - now))

    def close(self) -> None:
        self._file.close()
