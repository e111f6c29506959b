# SPDX-License-Identifier: Apache-2.0
"""The one runner: checks what is asked, measures, sums up, draws.

SIGINT and SIGTERM end the measurement, not the run: what has been measured is written, and summed up if it suffices.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.experiments import find, plan_of
from lab.experiments.framework import recorder
from lab.measure import machine_ticks
from lab.results import RunDirectory, Summary
from lab.site import Here, Site

LOOK_AROUND_S = 0.5


@dataclass(frozen=True)
class Asked:
    """What the user wants."""

    name: str
    profile: str
    settings: dict[str, str]
    seed: int = 1
    out: Path | None = None
    site: Site = field(default_factory=Here)


@dataclass(frozen=True)
class Outcome:
    """A run; without a summary if it was interrupted before there was enough to sum up."""

    run: RunDirectory
    summary: Summary | None
    interrupted: bool


def execute(asked: Asked) -> Outcome:
    """All three steps.  BadSetting, MissingTool and OSError (results cannot be written) come before anything is made."""
    plan, settings = plan_of(asked.name, asked.settings, asked.profile)
    experiment = find(asked.name)
    asked.site.need(experiment.TOOLS, f"experiment {asked.name}")
    run = RunDirectory.create(asked.name, asked.out, latest=False)
    facts: dict[str, Any] = {
        "experiment": asked.name, "profile": asked.profile, "seed": asked.seed, "settings": settings,
        "cpu_bound": experiment.CPU_BOUND, "busy_before_pct": _busy(), "started": time.time(), **asked.site.facts(),
    }  # fmt: skip
    with _signals(), _bar(asked.name) as progress:
        record = recorder.Recorder(run, asked.seed, progress, asked.site)
        ended = "failed"
        try:
            experiment.measure(plan, record)
            ended = "complete"
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            record.close()
            duration = time.time() - facts["started"]
            run.write_manifest(**facts, duration_s=duration, ended=ended, **record.facts)
    if ended == "interrupted":
        return Outcome(run, _what_there_is(run), True)
    run.make_latest()
    return Outcome(run, finish(run), False)


def finish(run: RunDirectory) -> Summary:
    """The second and third step, from what was recorded; may be repeated."""
    experiment = find(run.manifest()["experiment"])
    summary = experiment.summarise(run)
    experiment.draw(run, summary)
    run.write_summary(summary)
    return summary


def _what_there_is(run: RunDirectory) -> Summary | None:
    try:
        return finish(run)
    except Exception:  # an analysis may trip over anything that is missing
        return None


def _busy() -> float:
    """How much of the CPU others use just now, in per cent."""
    idle, total = machine_ticks()
    time.sleep(LOOK_AROUND_S)
    idle_after, total_after = machine_ticks()
    return round(100 * (1 - (idle_after - idle) / max(total_after - total, 1)), 1)


@contextmanager
def _signals() -> Iterator[None]:
    """The first SIGINT or SIGTERM is a KeyboardInterrupt; more of them do not disturb the clearing up."""

    def once(*_: Any) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(name: str) -> Iterator[recorder.Progress]:
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)
