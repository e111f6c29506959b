# SPDX-License-Identifier: Apache-2.0
"""Goodput and packets per second through 0 to 4 middleboxes, Dysco over plain (paper Fig. 9 and 10 in spirit).

Sender and receiver share one processor: every cycle that an agent takes is then missing from goodput, and nothing depends
on how two processors wake each other.  Links are not shaped.  Without agents the router in the middle steers the same way.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework import bpf_stats
from lab.experiments.framework.costs import LENGTHS, PORT, compared, lengths_of, mode, on_cpu, rounds_of
from lab.experiments.framework.figures import COLOURS, MODES, Drawing, Points, points, series
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import median_interval
from lab.tools import flood
from lab.topologies import Settings, build

DESCRIPTION = "goodput and packets/s through 0 to 4 middleboxes, by sessions and packet size (paper Fig. 9, 10)"
TOOLS = (str(flood.BINARY),)
CPU_BOUND = True
COMPARED = ("baseline", "dysco")
WAYS = {"gso": ("super-packets (GSO)", 0.97), "mtu": ("packets of 1500 bytes", 0.90)}  # and the least ratio expected
SIZES = (64, 128, 256, 512, 1024, 1518)  # frames with their check sequence, as the paper counts
OVERHEAD = 58  # of a frame without TCP options
SIZED = (0, 4)  # chains for which packet sizes are varied
SESSIONS = (1, 10, 100, 400)
PAPER_PENALTY_PCT = 27.85  # one core, 64 bytes


@dataclass(frozen=True)
class Plan:
    rounds: int
    window_ms: int


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    rounds = settings.integer("rounds", 15 if paper else 4, 2, 100)
    return Plan(rounds, settings.integer("window_ms", 2000 if paper else 300, 50, 60000))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    lengths = record.lengths(LENGTHS)
    record.expect(len(lengths) * len(COMPARED) * plan.rounds + 1)
    for length in lengths:
        with record.network(build("chain", {"middleboxes": str(length), "dysco": "off"})) as lab, record.watched():
            server = flood.server_command(lab.topology.host("server").address, PORT)
            with lab.service("server", on_cpu(lab, "server", 0, server)):
                for turn in record.turns(plan.rounds, COMPARED, f"{length} middleboxes,", warm_up=0):
                    with mode(lab, turn.mode):
                        _turn(lab, f"{turn.mode}_{length}", length, length == lengths[-1], plan, record)
                if lab.local and length == LENGTHS[-1]:
                    record.step("what an agent takes of the CPU")
                    _agents(lab, record)


def _rate(lab: Lab, **load: int) -> flood.Rate:
    address = lab.topology.host("server").address
    return flood.read_rate(lab.run("client", on_cpu(lab, "client", 0, flood.client_command(address, PORT, **load))))


def _turn(lab: Lab, subject: str, length: int, longest: bool, plan: Plan, record: Recorder) -> None:
    for way in WAYS:
        with _cut(lab, way == "mtu"):
            rate = _rate(lab, ms=plan.window_ms)
        record(subject, f"goodput_{way}_mbps", rate.goodput_mbps)
        record(subject, f"packets_{way}_kpps", rate.packets_kpps)
    if length in SIZED:
        with _bare(lab):
            for size in SIZES:
                record(subject, f"packets_{size}_kpps", _rate(lab, payload=size - OVERHEAD, ms=plan.window_ms // 2).packets_kpps)
    if longest:
        for sessions in SESSIONS:
            record(subject, f"sessions_{sessions}_mbps", _rate(lab, sessions=sessions, ms=plan.window_ms).goodput_mbps)


@contextmanager
def _cut(lab: Lab, cut: bool) -> Iterator[None]:
    """The sender makes packets of the wire's size itself, if `cut`."""
    for most in ("1", "65535") if cut else ():
        lab.batch("client", [f"link set dev {lab.device('client')} gso_max_segs {most}"])
        if most == "1":
            yield
    if not cut:
        yield


@contextmanager
def _bare(lab: Lab) -> Iterator[None]:
    """New sessions go without time stamps: with them no frame is as small as 64 bytes."""
    for value in ("0", "1"):
        for host in ("client", "server"):
            lab.sysctl(host, {"net.ipv4.tcp_timestamps": value})
        if value == "0":
            yield


def _agents(lab: Lab, record: Recorder) -> None:
    """Nanoseconds of one pass in each host, under small packets."""
    with mode(lab, "dysco"), bpf_stats.enabled():
        floor, before = bpf_stats.floor_ns(), bpf_stats.accounts(lab)
        with _cut(lab, True):
            _rate(lab, ms=1000)
        after = bpf_stats.accounts(lab)
    record("empty program", "account_ns", floor)
    for (host, program), (ns, runs) in bpf_stats.spent_ns(before, after, floor).items():
        record(host, f"{program.removeprefix('dysco_')}_ns", ns / runs)
        record(host, f"{program.removeprefix('dysco_')}_runs", runs)


# ---- step 2 ----


def _ratio(samples: Any, length: int, quantity: str) -> tuple[float, tuple[float, float]]:
    with_it, plain = (rounds_of(samples, f"{name}_{length}", quantity) for name in ("dysco", "baseline"))
    return compared(with_it, plain, "ratio")


def _middle(samples: Any, subject: str, quantity: str) -> float:
    return float(samples[(samples.subject == subject) & (samples.quantity == quantity)].value.median())


def _agent_metrics(samples: Any) -> dict[str, float]:
    """Nanoseconds of one pass: means over the hosts of a role; of agents whose kernel we could ask."""
    metrics = {"account_ns": _middle(samples, "empty program", "account_ns")}
    for role in ("client", "mb", "server"):
        rows = samples[samples.subject.str.startswith(role)]
        for way in ("egress", "ingress"):
            metrics[f"agent_{way}_ns_{role}"] = float(rows[rows.quantity == f"{way}_ns"].value.mean())
    return metrics


def _sized(lengths: list[int]) -> list[int]:
    return [length for length in SIZED if length in lengths]


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()
    metrics, claims, lengths = _agent_metrics(samples), [], lengths_of(samples)
    longest = lengths[-1]
    for way, (text, least) in WAYS.items():
        for length in lengths:
            name = f"goodput_ratio_{length}" if way == "gso" else f"goodput_ratio_{way}_{length}"
            metrics[name], interval = _ratio(samples, length, f"goodput_{way}_mbps")
            claims.append(claim(name, f"goodput through {length} middleboxes over plain, {text}", "about 1", metrics[name], "",
                                f">= {least}", shape=False, ci95=interval))  # fmt: skip
            for which in COMPARED:
                for unit in ("goodput_{}_mbps", "packets_{}_kpps"):
                    quantity = unit.format(way)
                    metrics[f"{quantity}_{which}_{length}"] = _middle(samples, f"{which}_{length}", quantity)
    for length in _sized(lengths):
        for size in SIZES:
            ratio, interval = _ratio(samples, length, f"packets_{size}_kpps")
            metrics[f"penalty_pct_{size}_{length}"] = 100 * (1 - ratio)
            if size == SIZES[0]:
                low, high = (100 * (1 - bound) for bound in interval[::-1])
                claims.append(claim(f"penalty_{length}", f"fewer packets/s of 64 bytes through {length} middleboxes",
                                    f"{PAPER_PENALTY_PCT} % (0)", 100 * (1 - ratio), "%", f"<= {PAPER_PENALTY_PCT}",
                                    shape=False, ci95=(low, high)))  # fmt: skip
    for sessions in SESSIONS:
        metrics[f"sessions_ratio_{sessions}"], _ = _ratio(samples, longest, f"sessions_{sessions}_mbps")
    spread = max(metrics[f"sessions_ratio_{n}"] for n in SESSIONS) - min(metrics[f"sessions_ratio_{n}"] for n in SESSIONS)
    claims.append(claim("sessions", f"ratio for 1 to 400 sessions, {longest} middleboxes: largest less least", "-", spread, "",
                        "<= 0.1", shape=False))  # fmt: skip
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def _points(samples: Any, subjects: dict[float, str], quantity: str) -> Points:
    """Median and interval of a quantity at each x."""
    found = []
    for x, subject in subjects.items():
        values = rounds_of(samples, subject, quantity)
        found.append((x, statistics.median(values), median_interval(values)))
    return found


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    rounds = int(samples["round"].max()) + 1
    caption = f"{rounds} rounds a point, interleaved; bars: 95 % interval of the median"
    _draw_lengths(drawing, samples, caption)
    _draw_sizes(drawing, samples, caption)
    _draw_sessions(drawing, samples, caption)
    return drawing.paths


def _draw_lengths(drawing: Drawing, samples: Any, caption: str) -> None:
    lengths = lengths_of(samples)
    with drawing.figure("goodput", caption, (10, 4.2), ncols=3) as (_, (left, middle, right)):
        for axis, (way, (text, _)) in zip((left, middle), WAYS.items(), strict=True):
            for shift, name in enumerate(COMPARED):
                subjects = {float(n): f"{name}_{n}" for n in lengths}
                points(axis, _points(samples, subjects, f"goodput_{way}_mbps"), name, 0.06 * shift)
            axis.set(xlabel="middleboxes", ylabel="goodput (Mbit/s)", title=text, xticks=lengths, ylim=(0, None))
        left.legend()
        for colour, (way, (text, least)) in zip(COLOURS, WAYS.items(), strict=False):
            ratios = [(n, *_ratio(samples, n, f"goodput_{way}_mbps")) for n in lengths]
            series(right, ratios, text, colour)
            right.axhline(least, color=colour, linestyle=":", linewidth=1)
        right.set(xlabel="middleboxes", title="Dysco over plain (dotted: goal)", xticks=lengths, ylim=(0.5, 1.3))
        right.legend(fontsize=9)


def _draw_sizes(drawing: Drawing, samples: Any, caption: str) -> None:
    sized = _sized(lengths_of(samples))
    with drawing.figure("packet-size", caption, (10, 4.2), ncols=len(sized), sharey=True, squeeze=False) as (_, grid):
        for axis, length in zip(grid[0], sized, strict=True):
            for name in COMPARED:
                label, colour, marker = MODES[name]
                values = [(s, *_size(samples, f"{name}_{length}", s)) for s in SIZES]
                series(axis, values, label, colour, marker)
            axis.set(xlabel="frame (bytes)", title=f"{length} middleboxes", ylim=(0, None), xscale="log")
            axis.set_xticks(SIZES, [str(s) for s in SIZES], rotation=45)
            axis.minorticks_off()
        grid[0][0].set_ylabel("packets on one core (1000/s)")
        grid[0][0].legend()


def _size(samples: Any, subject: str, size: int) -> tuple[float, tuple[float, float]]:
    values = rounds_of(samples, subject, f"packets_{size}_kpps")
    return statistics.median(values), median_interval(values)


def _draw_sessions(drawing: Drawing, samples: Any, caption: str) -> None:
    longest = lengths_of(samples)[-1]
    with drawing.figure("sessions", caption) as (_, axis):
        for name in COMPARED:
            label, colour, marker = MODES[name]
            values = []
            for count in SESSIONS:
                measured = rounds_of(samples, f"{name}_{longest}", f"sessions_{count}_mbps")
                values.append((count, statistics.median(measured), median_interval(measured)))
            series(axis, values, label, colour, marker)
        axis.set(xlabel="sessions", ylabel="goodput (Mbit/s)", xscale="log", ylim=(0, None))
        axis.set_xticks(SESSIONS, [str(n) for n in SESSIONS])
        axis.set_title(f"Goodput of many sessions through {longest} middleboxes")
        axis.legend()
