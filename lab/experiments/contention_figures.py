# SPDX-License-Identifier: Apache-2.0
"""Figures of contention: the locks of one set over time (paper Fig. 5 as it happened), and who has won."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco_ns.model.events import Event
from lab.experiments.contention_sets import PATTERNS, Set, sets, told
from lab.experiments.framework.figures import ALARM, COLOURS, Drawing
from lab.results import RunDirectory, Summary

CHAIN = ("client", "mb1", "mb2", "mb3", "mb4", "mb5", "server")
BEGIN = {"lock_requested": "locked", "lock_pending": "pending", "locked": "locked"}  # event -> how the lock is then
END = {"lock_refused", "unlocked", "left_chain", "old_path_gone", "cancelled", "settled"}


@dataclass(frozen=True)
class Held:
    """The lock of the subsession right of a host, for one contender; times in microseconds from the first request."""

    host: str
    contender: str
    how: str
    start: float
    stop: float


def held(events: list[Event]) -> list[Held]:
    ordered = sorted((e for e in events if e.side == "right"), key=lambda e: e.time_ns)
    asked = {e.txid: e.host for e in ordered if e.kind == "lock_requested"}
    zero = min(e.time_ns for e in ordered if e.kind == "lock_requested")
    found, open_ = [], dict[tuple[str, int], tuple[str, int]]()
    for e in ordered:
        begun = open_.pop((e.host, e.txid), None)
        if begun and begun[0] != BEGIN.get(e.kind) and e.kind in BEGIN.keys() | END:
            found.append(Held(e.host, asked[e.txid], begun[0], (begun[1] - zero) / 1000, (e.time_ns - zero) / 1000))
        elif begun:
            open_[e.host, e.txid] = begun
        if e.kind in BEGIN and e.txid in asked and (e.host, e.txid) not in open_:
            open_[e.host, e.txid] = BEGIN[e.kind], e.time_ns
    return found


def _example(found: list[Set], events: dict[str, list[Event]]) -> tuple[Set, list[Held]] | None:
    """Of the sets whose contenders have all sent a request, the one in which they came closest to one another."""

    def spread(s: Set) -> float:
        times = [e.time_ns for e in events[s.session] if e.kind == "lock_requested"]
        return max(times) - min(times) if len(times) == len(PATTERNS[s.pattern]) else float("inf")

    candidates = [s for s in found if s.contended and spread(s) < float("inf")]
    best = min(candidates, key=lambda s: (-len(PATTERNS[s.pattern]), spread(s)), default=None)
    return (best, held(events[best.session])) if best else None


def _draw_locks(axis: Any, example: Set, locks: list[Held]) -> None:
    contenders = PATTERNS[example.pattern]
    colours = {c.host: COLOURS[c.left] for c in contenders}
    losers = [h.stop for h in locks if h.contender not in {c.host for c in example.winners}]
    stop = 1.3 * max([*losers, *(h.stop for h in locks if h.how == "pending"), 1.0])
    for h in locks:
        row, style = CHAIN.index(h.host), {"alpha": 0.35, "hatch": "///"} if h.how == "pending" else {}
        axis.barh(row, min(h.stop, stop) - h.start, 0.55, left=h.start, color=colours[h.contender], edgecolor="white", **style)
    for c in contenders:
        won = "wins" if c in example.winners else "is refused"
        axis.barh(0, 0, color=colours[c.host], label=f"{c.host} .. mb{c.right} {won}")
    axis.barh(0, 0, color="#777777", alpha=0.35, hatch="///", edgecolor="white", label="lockPending")
    axis.set_yticks(range(len(CHAIN) - 1), [f"{a} - {b}" for a, b in itertools.pairwise(CHAIN)])
    axis.set(xlim=(0, stop), ylim=(len(CHAIN) - 1.5, -1.3), xlabel="time from the first request (us)")
    axis.set_title("The locks of one session's subsessions, as the agents told it")
    axis.legend(loc="upper left", ncols=4, fontsize=9)


def _draw_winners(axis: Any, found: list[Set]) -> None:
    for row, name in enumerate(PATTERNS):
        won = [s for s in found if s.pattern == name and s.contended]
        ways = Counter(" and ".join(c.host for c in s.winners) or "nobody" for s in won)
        left = 0
        for way, count in sorted(ways.items()):
            colour = COLOURS[CHAIN.index(way.split()[0])] if way != "nobody" else ALARM
            axis.barh(row, count, 0.55, left=left, color=colour, alpha=0.75, edgecolor="white")
            axis.annotate(way, (left + count / 2, row), ha="center", va="center", fontsize=8)
            left += count
    axis.set_yticks(range(len(PATTERNS)), list(PATTERNS))
    axis.invert_yaxis()
    axis.set(xlabel="sets")
    axis.set_title("Who wins")


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, events = Drawing(run, summary), told(run.raw)
    found = list(sets(run.samples()))
    example = _example(found, events)
    if example:
        caption = f"1 set of {len(found)}, the closest; {len(events[example[0].session])} events"
        with drawing.figure("locks", caption, (9, 4.4)) as (_, axis):
            _draw_locks(axis, *example)
    with drawing.figure("winners", f"{len(found)} sets, each contended for once", (9, 3.2)) as (_, axis):
        _draw_winners(axis, found)
    return drawing.paths
