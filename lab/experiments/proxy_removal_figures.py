# SPDX-License-Identifier: Apache-2.0
"""Figures of proxy-removal: goodput with the proxy's CPU below it (paper Fig. 13), reconfiguration times (Fig. 14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import ALARM, COLOURS, Drawing, cdf
from lab.results import RunDirectory, Summary


def _per_pair(samples: Any, step: float) -> Any:
    """Goodput of each pair, both directions together, in steps of `step` seconds."""
    rows = samples[samples.quantity.str.startswith("goodput") & (samples.time_s >= 0)].copy()
    rows["at"] = (rows.time_s / step).astype(int) * step
    each = rows.groupby(["at", "subject", "quantity"]).value.mean()
    return each.groupby(level=["at", "subject"]).sum().unstack("subject").fillna(0)


def _goodput(drawing: Drawing, samples: Any, manifest: dict[str, Any]) -> None:
    step = 1.0 if manifest["profile"] == "paper" else 0.2
    pairs = _per_pair(samples, step)
    caption = f"1 run; means of {step:g} s"
    with drawing.figure("goodput", caption, (9, 6), nrows=2, sharex=True, height_ratios=(3, 1)) as (_, (top, bottom)):
        names = [f"pair {c[4:]}" for c in pairs.columns]
        top.stackplot(pairs.index, pairs.T.values, labels=names, colors=COLOURS, alpha=0.85)
        _limits(top, manifest["settings"], len(pairs.columns))
        cpu = samples[(samples.subject == "proxy") & (samples.quantity == "cpu_pct") & (samples.time_s >= 0)]
        smooth = cpu.groupby((cpu.time_s / step).astype(int) * step).value.mean()
        bottom.fill_between(smooth.index, smooth.values, color="#555555", alpha=0.7, step="mid")
        for axis in (top, bottom):
            for removal in manifest.get("removals", []):
                axis.axvline(removal["at_s"], color=ALARM, linewidth=1.2, linestyle="--")
        top.set_ylabel("goodput, both directions (Mbit/s)")
        top.set_title("One pair after the other loses the proxy, in the middle of its sessions")
        top.legend(loc="upper left", ncols=len(pairs.columns), fontsize=9, bbox_to_anchor=(0.0, 0.97))
        top.set_ylim(0, top.get_ylim()[1] * 1.12)
        bottom.set(ylabel="proxy CPU\n(% of a core)", xlabel="time (s)", xlim=(0, pairs.index.max()))


def _limits(axis: Any, settings: dict[str, str], pairs: int) -> None:
    """Lines at the rates of the links."""
    for label, rate, times in (("proxy's link", settings["proxy_mbps"], 1), ("direct links", settings["direct_mbps"], 2 * pairs)):
        if rate != "none":
            axis.axhline(float(rate) * times, color="black", linewidth=1, linestyle=":")
            axis.annotate(label, (0, float(rate) * times), xytext=(3, 3), textcoords="offset points", fontsize=9)


def _times(drawing: Drawing, samples: Any) -> None:
    values = samples[samples.quantity == "reconfig_us"].value.tolist()
    if not values:
        return
    with drawing.figure("reconfiguration-time", "1 run") as (_, axis):
        cdf(axis, values, COLOURS[0])
        axis.set(xscale="log", xlabel="from requestLock until new data may take the new path (us)", ylabel="reconfigurations (%)")
        axis.set_title(f"Reconfiguration time of {len(values)} sessions under load")


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    """Draws both figures from samples.csv; measures nothing.  Returns the files."""
    drawing, samples = Drawing(run, summary), run.samples()
    _goodput(drawing, samples, run.manifest())
    _times(drawing, samples)
    return drawing.paths
