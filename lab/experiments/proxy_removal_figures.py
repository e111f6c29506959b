# SPDX-License-Identifier: Apache-2.0
"""Figures of proxy-removal: goodput with the proxy's CPU below it (paper Fig. 13), reconfiguration times (Fig. 14), round
trips, and the further runs if there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.experiments import proxy_removal_arms as arms
from lab.experiments.framework.figures import ALARM, COLOURS, Drawing, cdf, distribution
from lab.results import RunDirectory, Summary
from lab.statistics import percentile

RTT_WINDOW_S = 0.25


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
    rows = samples[(samples.quantity == "reconfig_us") & ~samples.subject.str.startswith(arms.ARM)]
    values = rows.value.tolist()
    if not values:
        return
    with drawing.figure("reconfiguration-time", "1 run") as (_, axis):
        cdf(axis, values, COLOURS[0])
        axis.set(xscale="log", xlabel="from requestLock until new data may take the new path (us)", ylabel="reconfigurations (%)")
        axis.set_title(f"Reconfiguration time of {len(values)} sessions under load")


def _round_trips(drawing: Drawing, samples: Any, removals: list[dict[str, Any]]) -> None:
    rows = samples[(samples.quantity == "rtt_us") & (samples.time_s >= 0)]
    if rows.empty:
        return
    middle = rows.groupby((rows.time_s / RTT_WINDOW_S).astype(int) * RTT_WINDOW_S).value.median() / 1000
    with drawing.figure("round-trip", f"1 run, 1 session of pair 1; line: medians of {RTT_WINDOW_S:g} s", (9, 3.8)) as (_, axis):
        axis.plot(rows.time_s, rows.value / 1000, ".", color="#999999", markersize=3)
        axis.step(middle.index, middle.values, where="post", color=COLOURS[0], linewidth=1.8)
        for removal in removals:
            axis.axvline(removal["at_s"], color=ALARM, linewidth=1.2, linestyle="--")
        axis.set(xlabel="time (s)", ylabel="round trip (ms)", ylim=(0, None), xlim=(0, rows.time_s.max()))
        axis.set_title("A short message among the load of pair 1, which is the first to lose the proxy")


def _throttles(drawing: Drawing, samples: Any, removals: list[float]) -> None:
    """Goodput of the arms that throttle, and how long old paths lived in each."""
    found = [name for name in arms.names(samples) if name.startswith("throttle")]
    with drawing.figure("throttle", "1 run each; means of 0.2 s", (10, 4.2), ncols=2, width_ratios=(2, 1)) as (_, (left, right)):
        for name, colour in zip(found, COLOURS, strict=False):
            goodput = arms.goodput(samples, name, 0.2)
            left.plot(goodput.index, goodput.values, color=colour, linewidth=1.6, label=name)
            distribution(right, [us / 1e6 for us in arms.values(samples, name, "old_path_drained_us")], colour)
        for at in removals:
            left.axvline(at, color=ALARM, linewidth=1, linestyle="--")
        left.set(xlabel="time (s)", ylabel="goodput, both directions (Mbit/s)", ylim=(0, 1.25 * left.get_ylim()[1]))
        left.set_title("The most window offered while an old path lives")
        left.legend(loc="upper left", ncols=len(found))
        right.set(xlabel="until the old path is drained (s)", ylabel="sessions (%)", xlim=(0, None))


def _losses(drawing: Drawing, samples: Any) -> None:
    """The tail of Fig. 14."""
    found = [name for name in arms.names(samples) if name == "throttle off" or name.startswith("loss")]
    with drawing.figure("messages-lost", "1 run each") as (_, axis):
        for name, colour in zip(found, COLOURS, strict=False):
            values, label = arms.values(samples, name, "reconfig_us"), "none lost" if name == "throttle off" else name
            distribution(axis, values, colour, f"{label}: p80 {percentile(values, 0.8):,.0f} us, largest {max(values):,.0f} us")
        axis.set(xscale="log", xlabel="reconfiguration time (us)", ylabel="reconfigurations (%)")
        axis.set_title("Control messages lost on purpose")
        axis.set(ylim=(0, 145), yticks=range(0, 101, 20))
        axis.legend(loc="upper left")


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    """Draws all figures from samples.csv; measures nothing.  Returns the files."""
    drawing, samples, manifest = Drawing(run, summary), run.samples(), run.manifest()
    _goodput(drawing, samples, manifest)
    _times(drawing, samples)
    _round_trips(drawing, samples, manifest["removals"])
    if arms.names(samples):
        _throttles(drawing, samples, manifest["arm_removals_s"])
        _losses(drawing, samples)
    return drawing.paths
