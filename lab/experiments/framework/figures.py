# SPDX-License-Identifier: Apache-2.0
"""The one style of figures: colours that the colour-blind can tell apart, a caption, a mark on what is suspect.

Every figure says below it the profile, how many runs a point is made of, and what its interval is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.results import RunDirectory, Summary

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")  # Okabe and Ito
ALARM = "#d55e00"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 12,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "dysco",  # the same run gives the same file
    "savefig.dpi": 150,
}
MODES = {  # how a mode is named, coloured and marked in every figure
    "baseline": ("without Dysco", "#555555", "o"),
    "dysco": ("Dysco", COLOURS[0], "s"),
    "hmac": ("Dysco, HMAC", COLOURS[1], "^"),
}


def style() -> Any:
    """matplotlib.pyplot in our style, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt


class Drawing:
    """The figures of one run."""

    def __init__(self, run: RunDirectory, summary: Summary) -> None:
        self._run, self._summary = run, summary
        self.paths: list[Path] = []

    @contextmanager
    def figure(self, name: str, caption: str, size: tuple[float, float] = (7.0, 4.2), **subplots: Any) -> Iterator[Any]:
        """(figure, axes) of plt.subplots(); saved as png and svg.  `caption`: number of runs, the interval."""
        plt = style()
        figure, axes = plt.subplots(figsize=size, **subplots)
        yield figure, axes
        self._sign(figure, caption)
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            path = self._run.figures / f"{name}.{kind}"
            figure.savefig(path, metadata=metadata)
            self.paths.append(path)
        plt.close(figure)

    def _sign(self, figure: Any, caption: str) -> None:
        """The caption below, the mark across."""
        summary, line = self._summary, 0.19 / figure.get_figheight()
        low = line * (2.2 if summary.suspicion else 1.3)
        figure.get_layout_engine().set(rect=(0, low, 1, 1 - low))
        words = [summary.experiment, f"profile {summary.profile}", caption]
        if summary.cpu_bound:
            words.append("bound by the CPU on purpose")
        if not summary.complete:
            words.append("INCOMPLETE")
        figure.text(0.01, 0.01, " · ".join(words), fontsize=8, color="#444444")
        if summary.suspicion:
            figure.text(0.5, 0.5, "SUSPECT", fontsize=60, color=ALARM, alpha=0.18, ha="center", va="center", rotation=25)
            figure.text(0.01, 0.01 + line, f"suspect: {summary.suspicion}", fontsize=8, color=ALARM)


Points = Sequence[tuple[float, float, tuple[float, float]]]  # x, the value, its interval


def points(axis: Any, values: Points, mode: str, shift: float = 0.0) -> None:
    """A line of values with their intervals, in the colour of a mode; `shift` keeps bars of several modes apart."""
    label, colour, marker = MODES[mode]
    series(axis, values, label, colour, marker, shift)


def series(axis: Any, values: Points, label: str, colour: str, marker: str = "o", shift: float = 0.0) -> None:
    xs, ys = [x + shift for x, _, _ in values], [y for _, y, _ in values]
    errors = [[y - low for _, y, (low, _) in values], [high - y for _, y, (_, high) in values]]
    axis.errorbar(xs, ys, yerr=errors, label=label, color=colour, marker=marker, capsize=4, linewidth=1.5)


def distribution(axis: Any, values: Sequence[float], colour: str, label: str = "") -> None:
    """An empirical distribution, in per cent."""
    ordered = sorted(values)
    shares = [100 * (i + 1) / len(ordered) for i in range(len(ordered))]
    axis.step(ordered, shares, where="post", color=colour, linewidth=2, label=label)


def cdf(axis: Any, values: Sequence[float], colour: str, label: str = "", unit: str = "us") -> None:
    """A distribution with p50, p80 and p99 marked: for one, or some that are far apart."""
    distribution(axis, values, colour, label)
    ordered = sorted(values)
    for share in (50, 80, 99):
        at = ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))]
        axis.plot(at, share, "o", color=colour)
        axis.annotate(f"p{share}: {at:,.0f} {unit}", (at, share), xytext=(8, -12), textcoords="offset points", fontsize=9)
