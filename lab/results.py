# SPDX-License-Identifier: Apache-2.0
"""The bundle of a run: raw output, tidy samples, a summary computed from them, a report that compares with the paper.

docs/results.md describes the files.  Running, summing up and drawing are three steps; the last two can be repeated.
"""

from __future__ import annotations

import csv
import json
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
IDLE_SUSPECT_PCT = 3.0  # less idle CPU than this in some second: the machine was the bottleneck

Verdict = Literal["holds", "fails", "differs", "not-testable"]


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
    experiment: str
    profile: str
    claims: list[Claim]
    metrics: dict[str, float]
    cpu_idle_min_pct: float
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "fails" if any(c.verdict == "fails" for c in self.claims) else "holds"

    @property
    def fidelity(self) -> str:
        return "suspect" if self.cpu_idle_min_pct < IDLE_SUSPECT_PCT else "trusted"

    def as_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "profile": self.profile,
            "verdict": self.verdict,
            "claims": [asdict(c) for c in self.claims],
            "metrics": self.metrics,
            "fidelity": {
                "verdict": self.fidelity,
                "cpu_idle_min_pct": round(self.cpu_idle_min_pct, 1),
                "notes": self.notes,
            },
        }


class RunDirectory:
    """results/<experiment>/<run-id>/"""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw, self.figures = path / "raw", path / "figures"

    @classmethod
    def create(cls, experiment: str, parent: Path | None = None) -> RunDirectory:
        run_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        run = cls((parent or RESULTS / experiment) / run_id)
        run.raw.mkdir(parents=True)
        run.figures.mkdir()
        latest = run.path.parent / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(run.path.name)
        return run

    # ---- step 1: what was measured ----

    def write_manifest(self, **facts: Any) -> None:
        manifest = {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "commit": _commit(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            **facts,
        }
        (self.path / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str) + "\n")

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return found

    def write_samples(self, rows: Iterable[Sequence[Any]]) -> None:
        """Rows of (time_s, subject, quantity, value); the unit is the end of the quantity's name."""
        with (self.path / "samples.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["time_s", "subject", "quantity", "value"])
            writer.writerows(rows)

    def samples(self) -> Any:
        """samples.csv as a pandas data frame."""
        import pandas

        return pandas.read_csv(self.path / "samples.csv")

    # ---- step 2: what it means ----

    def write_summary(self, summary: Summary) -> None:
        (self.path / "summary.json").write_text(json.dumps(summary.as_json(), indent=1) + "\n")
        (self.path / "REPORT.md").write_text(report(summary, self.figures))

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return found


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def report(summary: Summary, figures: Path) -> str:
    """The run claim by claim, as Markdown."""
    lines = [
        f"# {summary.experiment}, profile {summary.profile}: {summary.verdict}",
        "",
        "| claim | paper | here | expected | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {c.statement} | {c.paper} | {shown(c.value)} {c.unit} | {c.expected} | {c.verdict} |" for c in summary.claims]
    idle = f"Fidelity: {summary.fidelity} (least idle CPU in a second: {summary.cpu_idle_min_pct:.0f} %)."
    lines += ["", idle, *(f"- {note}" for note in summary.notes), ""]
    lines += [f"![{p.stem}](figures/{p.name})" for p in sorted(figures.glob("*.png"))]
    return "\n".join(lines) + "\n"
