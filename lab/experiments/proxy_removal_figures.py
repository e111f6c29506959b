# SPDX-License-Identifier: Apache-2.0
"""Figures of proxy-removal: goodput with the proxy's CPU below it (paper Fig. 13), reconfiguration times (Fig. 14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.results import RunDirectory

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")


def style() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )
    return plt


def save(figure: Any, directory: RunDirectory, name: str) -> list[Path]:
    paths = [directory.figures / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _per_pair(samples: Any, step: float) -> Any:
    """Goodput of each pair, both directions together, in steps of `step` seconds."""
    rows = samples[samples.quantity.str.startswith("goodput") & (samples.time_s >= 0)].copy()
    rows["at"] = (rows.time_s / step).astype(int) * step
    each = rows.groupby(["at", "subject", "quantity"]).value.mean()
    return each.groupby(level=["at", "subject"]).sum().unstack("subject").fillna(0)


def _goodput(plt: Any, directory: RunDirectory, samples: Any, manifest: dict[str, Any]) -> list[Path]:
    step = 1.0 if manifest["profile"] == "paper" else 0.2
    pairs = _per_pair(samples, step)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=(3, 1))
    top.stackplot(pairs.index, pairs.T.values, labels=[f"pair {c[4:]}" for c in pairs.columns], colors=COLOURS, alpha=0.85)
    settings = manifest["settings"]
    limits = (("proxy's link", settings["proxy_mbps"], 1), ("direct links", settings["direct_mbps"], 2 * len(pairs.columns)))
    for label, rate, times in limits:
        if rate != "none":
            top.axhline(float(rate) * times, color="black", linewidth=1, linestyle=":")
            top.annotate(label, (0, float(rate) * times), xytext=(3, 3), textcoords="offset points", fontsize=9)
    cpu = samples[(samples.subject == "proxy") & (samples.quantity == "cpu_pct") & (samples.time_s >= 0)]
    smooth = cpu.groupby((cpu.time_s / step).astype(int) * step).value.mean()
    bottom.fill_between(smooth.index, smooth.values, color="#555555", alpha=0.7, step="mid")
    for axis in (top, bottom):
        for removal in manifest.get("removals", []):
            axis.axvline(removal["at_s"], color="#d55e00", linewidth=1.2, linestyle="--")
    top.set_ylabel("goodput, both directions (Mbit/s)")
    top.set_title("One pair after the other loses the proxy, in the middle of its sessions", fontsize=12)
    top.legend(loc="upper left", ncols=len(pairs.columns), fontsize=9, bbox_to_anchor=(0.0, 0.97))
    top.set_ylim(0, top.get_ylim()[1] * 1.12)
    bottom.set_ylabel("proxy CPU\n(% of a core)")
    bottom.set_xlabel("time (s)")
    bottom.set_xlim(0, pairs.index.max())
    return save(figure, directory, "goodput")


def cdf(axis: Any, values: list[float], colour: str, label: str = "") -> None:
    """Draws an empirical distribution and marks p50, p80 and p99."""
    ordered = sorted(values)
    shares = [100 * (i + 1) / len(ordered) for i in range(len(ordered))]
    axis.step(ordered, shares, where="post", color=colour, linewidth=2, label=label)
    for share in (50, 80, 99):
        at = ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))]
        axis.plot(at, share, "o", color=colour)
        axis.annotate(f"p{share}: {at:,.0f} us", (at, share), xytext=(8, -12), textcoords="offset points", fontsize=9)


def _times(plt: Any, directory: RunDirectory, samples: Any) -> list[Path]:
    values = samples[samples.quantity == "reconfig_us"].value.tolist()
    if not values:
        return []
    figure, axis = plt.subplots(figsize=(7, 4))
    cdf(axis, values, COLOURS[0])
    axis.set_xscale("log")
    axis.set_xlabel("from requestLock until new data may take the new path (us)")
    axis.set_ylabel("reconfigurations (%)")
    axis.set_title(f"Reconfiguration time of {len(values)} sessions under load", fontsize=12)
    return save(figure, directory, "reconfiguration-time")


def draw(directory: RunDirectory) -> list[Path]:
    """Draws both figures from samples.csv; measures nothing.  Returns the files."""
    plt = style()
    samples, manifest = directory.samples(), directory.manifest()
    paths = _goodput(plt, directory, samples, manifest) + _times(plt, directory, samples)
    plt.close("all")
    return paths
