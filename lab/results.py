# SPDX-License-Identifier: Apache-2.0
"""The bundle of a run: raw output, tidy samples, a summary computed from them, a report that compares with the paper.

docs/results.md describes the files.  Running, summing up and drawing are three steps; the last two can be repeated.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab import environment

ROOT = environment.ROOT
RESULTS = ROOT / "results"
SCHEMA = 1  # of manifest.json and samples.csv; what has no number is 1
IDLE_SUSPECT_PCT = 3.0  # less idle CPU than this in some second: the machine was the bottleneck
BUSY_SUSPECT_PCT = 25.0  # more than this used by others just before the run: they were measured, too

Verdict = Literal["holds", "fails", "differs", "not-testable"]


class BadRun(Exception):
    """A directory that is not that of a run, or of a run that this version cannot read."""


@dataclass
class Claim:
    """One statement about a run.  `shape`: it is about correctness or shape, and its failure fails the run."""

    id: str
    statement: str
    paper: str
    value: float | None
    unit: str
    expected: str
    verdict: Verdict
    shape: bool = True
    ci95: tuple[float, float] | None = None


def claim(
    id: str, statement: str, paper: str, value: float | None, unit: str, expected: str, *, shape: bool = True,
    ci95: tuple[float, float] | None = None,
) -> Claim:  # fmt: skip
    """A claim whose verdict follows from `expected`: an operator and a number, such as '>= 0.9'."""
    if value is None:
        return Claim(id, statement, paper, None, unit, expected, "not-testable", shape, ci95)
    operator, bound = expected.split()
    ok = {"==": value == float(bound), ">=": value >= float(bound), "<=": value <= float(bound)}[operator]
    return Claim(id, statement, paper, value, unit, expected, "holds" if ok else "fails" if shape else "differs", shape, ci95)


@dataclass
class Summary:
    """What a run shows.  `cpu_bound`: it uses all of the CPU on purpose."""

    experiment: str
    profile: str
    claims: list[Claim]
    metrics: dict[str, float]
    cpu_idle_min_pct: float
    notes: list[str] = field(default_factory=list)
    cpu_bound: bool = False
    busy_before_pct: float = 0.0
    complete: bool = True

    @classmethod
    def of(cls, run: RunDirectory, claims: list[Claim], metrics: dict[str, float], notes: Sequence[str] = ()) -> Summary:
        """With what the manifest and the samples tell of the run: profile, fidelity, whether it was interrupted."""
        manifest = run.manifest()
        ended, duration = manifest.get("ended", "complete"), manifest["duration_s"]
        said = list(notes) if ended == "complete" else [f"{ended} after {duration:.0f} s", *notes]
        rounded = {name: round(value, 3) for name, value in metrics.items() if math.isfinite(value)}
        return cls(
            manifest["experiment"], manifest["profile"], claims, rounded, idle_min(run.samples()), said,
            manifest.get("cpu_bound", False), manifest.get("busy_before_pct", 0.0), ended == "complete",
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        if not self.complete:
            return "incomplete"
        return "fails" if any(c.verdict == "fails" for c in self.claims) else "holds"

    @property
    def suspicion(self) -> str:
        """Why the figures are to be doubted; empty if they are not."""
        if self.busy_before_pct > BUSY_SUSPECT_PCT:
            return f"others used {self.busy_before_pct:.0f} % of the CPU when the run began"
        if not self.cpu_bound and self.cpu_idle_min_pct < IDLE_SUSPECT_PCT:
            return f"the CPU was exhausted ({self.cpu_idle_min_pct:.0f} % idle in some second)"
        return ""

    @property
    def fidelity(self) -> str:
        return "suspect" if self.suspicion else "trusted"

    def as_json(self) -> dict[str, Any]:
        notes = [self.suspicion] if self.suspicion else []
        return {
            "experiment": self.experiment,
            "profile": self.profile,
            "verdict": self.verdict,
            "claims": [asdict(c) for c in self.claims],
            "metrics": self.metrics,
            "fidelity": {
                "verdict": self.fidelity,
                "cpu_idle_min_pct": round(self.cpu_idle_min_pct, 1),
                "notes": notes + self.notes,
            },
        }


def idle_min(samples: Any) -> float:
    """The least idle CPU of a second while there was load, in per cent; 100 if nobody has watched."""
    rows = samples[(samples.quantity == "idle_pct") & (samples.time_s > 0)]
    return 100.0 if rows.empty else float(rows.groupby(rows.time_s.astype(int)).value.mean().min())


class RunDirectory:
    """results/<experiment>/<run-id>/"""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw, self.figures = path / "raw", path / "figures"

    @classmethod
    def create(cls, experiment: str, parent: Path | None = None, *, latest: bool = True) -> RunDirectory:
        """A new one.  OSError that names the place if it cannot be written."""
        run = cls((parent or RESULTS / experiment) / (time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)))
        try:
            run.raw.mkdir(parents=True)
            run.figures.mkdir()
            if latest:
                run.make_latest()
        except OSError as error:
            raise OSError(f"cannot write results to {run.path.parent}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A recorded one.  BadRun if it is none, or one of another version."""
        run = cls(path.resolve())
        try:
            schema = run.manifest().get("schema", 1)
        except OSError:
            raise BadRun(f"{path} is not the directory of a run: it has no manifest.json") from None
        except (ValueError, AttributeError):
            raise BadRun(f"{path}/manifest.json is not that of a run") from None
        if schema != SCHEMA:
            raise BadRun(f"{path} is a run of schema {schema}, this version reads schema {SCHEMA}: measure again")
        run.figures.mkdir(exist_ok=True)
        return run

    def make_latest(self) -> None:
        latest = self.path.parent / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(self.path.name)

    # ---- step 1: what was measured ----

    def write_manifest(self, **facts: Any) -> None:
        manifest = {"schema": SCHEMA, **environment.facts(), **facts}
        (self.path / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str) + "\n")

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return found

    def samples(self) -> Any:
        """samples.csv as a pandas data frame."""
        import pandas

        return pandas.read_csv(self.path / "samples.csv", dtype={"subject": str, "quantity": str})

    # ---- step 2: what it means ----

    def write_summary(self, summary: Summary) -> None:
        (self.path / "summary.json").write_text(json.dumps(summary.as_json(), indent=1) + "\n")
        (self.path / "REPORT.md").write_text(report(summary, self.figures))

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return found


def newest(experiment: str) -> RunDirectory:
    """The latest run of an experiment, or the reference run.  BadRun if there is neither."""
    for path in (RESULTS / experiment / "latest", RESULTS / "reference" / experiment):
        if (path / "summary.json").exists():
            return RunDirectory.open(path)
    raise BadRun(f"no run of {experiment} yet: `make experiment-{experiment}` makes one")


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _here(c: Claim) -> str:
    interval = f" [{shown(c.ci95[0])}, {shown(c.ci95[1])}]" if c.ci95 else ""
    return f"{shown(c.value)} {c.unit}".strip() + interval


def _watched(summary: Summary) -> str:
    if summary.suspicion or summary.cpu_bound:
        return summary.suspicion or "bound by the CPU on purpose, so that only ratios within the run mean something"
    return f"at least {summary.cpu_idle_min_pct:.0f} % of the CPU idle in every second"


def report(summary: Summary, figures: Path) -> str:
    """The run claim by claim, as Markdown."""
    lines = [
        f"# {summary.experiment}, profile {summary.profile}: {summary.verdict}",
        "",
        "| claim | paper | here | expected | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {c.statement} | {c.paper} | {_here(c)} | {c.expected} | {c.verdict} |" for c in summary.claims]
    lines += ["", f"Fidelity: {summary.fidelity}; {_watched(summary)}.", *(f"- {note}" for note in summary.notes), ""]
    lines += [f"![{p.stem}](figures/{p.name})" for p in sorted(figures.glob("*.png"))]
    return "\n".join(lines) + "\n"
