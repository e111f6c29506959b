# SPDX-License-Identifier: Apache-2.0
"""Figures of sdn-baseline: connect() and goodput, rules as sessions grow, who sees the sessions when there is a NAT."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from lab.experiments.framework.costs import rounds_of
from lab.experiments.framework.figures import COLOURS, MODES, Drawing, distribution, series
from lab.results import RunDirectory, Summary
from lab.statistics import median_interval

LOOKS = {  # label, colour, marker
    "static": ("static rules", MODES["baseline"][1], "o"),
    "sdn": ("rules for each session", COLOURS[5], "^"),
    "dysco": MODES["dysco"],
}
SWITCHES = {"s1": ("client's switch", "-"), "s2": ("middleboxes' switch", "-"), "s3": ("server's switch", "--")}
NAT_CASES = {
    "sdn nat forward": ("rules; else forwarded", COLOURS[5]),
    "sdn nat drop": ("rules; else dropped", COLOURS[1]),
    "dysco nat": ("Dysco", COLOURS[0]),
}


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    _draw_costs(drawing, samples, summary)
    _draw_rules(drawing, samples)
    _draw_nat(drawing, samples)
    return drawing.paths


def _draw_costs(drawing: Drawing, samples: Any, summary: Summary) -> None:
    rounds = len(rounds_of(samples, "dysco", "goodput_mbps"))
    connects = summary.metrics["connects_dysco"]
    caption = f"{connects:.0f} connects each, {rounds} rounds in turns; bars: 95 % interval of the median"
    with drawing.figure("costs", caption, (9.5, 4.2), ncols=2, width_ratios=(2.4, 1)) as (_, (left, right)):
        for x, (mode, (label, colour, marker)) in enumerate(LOOKS.items()):
            times = samples[(samples.subject == mode) & (samples.quantity == "connect_us")].value.tolist()
            distribution(left, times, colour, f"{label}: {statistics.median(times):,.0f} us")
            goodput = rounds_of(samples, mode, "goodput_mbps")
            series(right, [(x, statistics.median(goodput), median_interval(goodput))], label, colour, marker)
        left.set(xscale="log", xlabel="connect() (us)", ylabel="sessions (%)", title="Setting a session up")
        left.set(ylim=(0, 145), yticks=range(0, 101, 20))
        left.legend(loc="upper left", title="median")
        right.set_xticks(range(len(LOOKS)), [label.replace(" ", "\n", 1) for label, _, _ in LOOKS.values()], fontsize=9)
        right.set(ylabel="goodput (Mbit/s)", ylim=(0, None), xlim=(-0.5, len(LOOKS) - 0.5), title="Goodput")


def rules_by_sessions(samples: Any) -> Any:
    """Rules at each switch: a table by mode and switch (columns) and open sessions (index)."""
    rows = samples[samples.quantity.str.startswith("rules_")].copy()
    rows["sessions"] = rows.quantity.str.removeprefix("rules_").astype(int)
    rows[["mode", "switch"]] = rows.subject.str.split("_", expand=True)
    return rows.pivot_table(index="sessions", columns=["mode", "switch"], values="value")


def _draw_rules(drawing: Drawing, samples: Any) -> None:
    table = rules_by_sessions(samples)
    with drawing.figure("rules", "1 run; sessions open at once", (9, 4.2), ncols=2, sharey=True) as (_, (left, right)):
        for mode, (label, colour, marker) in LOOKS.items():
            total = table[mode].sum(axis=1)
            size = 9 if mode == "static" else 5  # it lies below another one
            left.plot(total.index, total.values, color=colour, marker=marker, markersize=size, linewidth=1.8, label=label)
        for (switch, (name, line)), colour in zip(SWITCHES.items(), COLOURS, strict=False):
            right.plot(table.index, table["sdn"][switch].values, line, color=colour, marker="o", linewidth=1.8, label=name)
        left.set(xlabel="sessions", ylabel="rules", title="All switches")
        right.set(xlabel="sessions", title="Each switch, rules for each session")
        for axis in (left, right):
            axis.legend(loc="upper left")


def _draw_nat(drawing: Drawing, samples: Any) -> None:
    hosts = [h for h in samples.quantity.str.extract(r"^passed_(\w+)$")[0].dropna().unique() if h != "server"]
    with drawing.figure("nat", "1 run each", (9, 4.0)) as (_, axis):
        for shift, (case, (label, colour)) in enumerate(NAT_CASES.items()):
            rows = samples[samples.subject == case].set_index("quantity").value
            values = [*(rows[f"passed_{host}"] for host in hosts), rows["completed"]]
            at = [x + 0.27 * (shift - 1) for x in range(len(values))]
            axis.bar(at, values, 0.25, color=colour, label=label)
            for x, value in zip(at, values, strict=True):
                axis.annotate(f"{value:.0f}", (x, value), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9)
        names = [f"{host}\n(NAT)" if host == "mb2" else host for host in hosts]
        axis.set_xticks(range(len(names) + 1), [*names, "complete\nat both ends"])
        axis.set(ylabel="sessions", ylim=(0, 1.3 * rows["sessions"]))
        axis.set_title("A NAT in the chain: who sees the sessions, and how many come about")
        axis.legend(loc="upper center", ncols=3)
