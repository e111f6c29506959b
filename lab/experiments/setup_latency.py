# SPDX-License-Identifier: Apache-2.0
"""How long connect() takes through 0 to 4 middleboxes: without Dysco, with it, with signatures (paper Fig. 8).

The middleboxes are routers, and the way through them is the same in all three modes: without agents the router in the
middle steers by static rules.  What comes on top is Dysco's.  The end of a session is timed, too.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.experiments.framework import bpf_stats, frames
from lab.experiments.framework.costs import (
    LENGTHS,
    MODES,
    PORT,
    compared,
    connect_times,
    lengths_of,
    mode,
    on_cpu,
    rounds_of,
)
from lab.experiments.framework.figures import Drawing, points
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import Claim, RunDirectory, Summary, claim
from lab.statistics import Interval, mean_interval, median_interval
from lab.tools import connect
from lab.topologies import Settings, build

DESCRIPTION = "connect() through 0 to 4 middleboxes: without Dysco, with it, with signatures (paper Fig. 8)"
TOOLS = (str(connect.BINARY), "iperf3", "tcpdump", "tshark")
CPU_BOUND = True
PAPER_OVER_US = 22  # secure Dysco over none, four middleboxes
HOLD_MS = 1500  # sessions stay open while the accounts are read
BUDGET_US = {"dysco": 15, "hmac": 26}
Middle = tuple[str, Callable[[Sequence[float]], float], Callable[[Sequence[float]], Interval]]
MIDDLES: tuple[Middle, ...] = (("median", statistics.median, median_interval), ("mean", statistics.fmean, mean_interval))
QUANTITIES = (("connect_us", "connect()"), ("close_us", "last FIN until acknowledged"))


@dataclass(frozen=True)
class Plan:
    rounds: int
    connects: int  # in each round, at each point


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    rounds = settings.integer("rounds", 15 if paper else 5, 2, 100)
    return Plan(rounds, settings.integer("connects", 1000 if paper else 220, 10, 3000))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    lengths = record.lengths(LENGTHS)
    record.expect(len(lengths) * len(MODES) * (plan.rounds + 1) + 2 * len(MODES) - 1)
    for length in lengths:
        with record.network(build("chain", {"middleboxes": str(length), "dysco": "off"})) as lab, record.watched():
            times = lab.file("server", "closings.txt")
            server = connect.server_command(lab.topology.host("server").address, PORT, times)
            with lab.service("server", on_cpu(lab, "server", 1, server)):
                _turns(lab, length, plan, record, connect.Closings(partial(lab.read, "server", times)))
                if lab.local and length == LENGTHS[-1]:
                    _agents(lab, plan, record)
            if lab.local and length == LENGTHS[-1]:
                _frames(lab, record)


def _turns(lab: Lab, length: int, plan: Plan, record: Recorder, closings: connect.Closings) -> None:
    for turn in record.turns(plan.rounds, MODES, f"{length} middleboxes,"):
        with mode(lab, turn.mode):
            opening = connect_times(lab, plan.connects)
            closing = closings.next(plan.connects + plan.connects // 10)[-plan.connects :]
        record.all(f"{turn.mode}_{length}", "connect_us", opening)
        record.all(f"{turn.mode}_{length}", "close_us", closing)


def _agents(lab: Lab, plan: Plan, record: Recorder) -> None:
    """How long the programs of each agent run for one connect(), by the kernel's account."""
    address = lab.topology.host("server").address
    for name in MODES[1:]:
        record.step(f"agents, {name}")
        with mode(lab, name), bpf_stats.enabled():
            connect_times(lab, plan.connects)  # warms up
            floor, before = bpf_stats.floor_ns(), bpf_stats.accounts(lab)
            words = on_cpu(lab, "client", 0, connect.client_command(address, PORT, plan.connects, HOLD_MS))
            client = lab.popen("client", words, stdout=subprocess.PIPE)
            assert client.stdout
            for _ in range(plan.connects):
                client.stdout.readline()
            after = bpf_stats.accounts(lab)
            client.communicate()
        for (host, program), (ns, _) in bpf_stats.spent_ns(before, after, floor).items():
            record(f"{name}_{host}", f"{program.removeprefix('dysco_')}_us_per_connect", ns / 1000 / plan.connects)


def _frames(lab: Lab, record: Recorder) -> None:
    frames.cut(lab)
    for name in MODES:
        record.step(f"frames, {name}")
        with mode(lab, name):
            frames.record_frames(lab, record, name)


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str) -> list[float]:
    found: list[float] = samples[(samples.subject == subject) & (samples.quantity == quantity)].value.tolist()
    return found


def _metrics(samples: Any) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name in MODES:
        for length in lengths_of(samples):
            for quantity, _ in QUANTITIES:
                values = _values(samples, f"{name}_{length}", quantity)
                metrics[f"{quantity}_p50_{name}_{length}"] = statistics.median(values)
                metrics[f"{quantity}_mean_{name}_{length}"] = statistics.fmean(values)
            metrics[f"connects_{name}_{length}"] = len(values)
        agents = samples[samples.subject.str.match(f"{name}_[a-z]") & samples.quantity.str.endswith("_us_per_connect")]
        if not agents.empty:
            metrics[f"agents_us_per_connect_{name}_{LENGTHS[-1]}"] = float(agents.value.sum())
        for row in samples[samples.subject == name].itertuples():
            metrics[f"{row.quantity}_{name}"] = row.value
    return metrics


def _over(samples: Any, name: str, length: int, quantity: str) -> tuple[float, Interval]:
    """Round by round, the median in a mode less that without agents."""
    with_it, plain = (rounds_of(samples, f"{which}_{length}", quantity) for which in (name, "baseline"))
    return compared(with_it, plain, "difference")


def _frame_claims(metrics: dict[str, float]) -> list[Claim]:
    claims = [claim("frames", "frames captured with signatures", "-", metrics.get("frames_hmac"), "", ">= 100")]
    for name in MODES[1:]:
        for what, text in (
            ("data_frame_bytes_max", "longest frame after the SYN"),
            ("header_bytes", "headers of a segment with data"),
        ):
            with_it, plain = f"{what}_{name}", f"{what}_baseline"
            more = metrics[with_it] - metrics[plain] if {with_it, plain} <= metrics.keys() else None
            claims.append(claim(f"{what}_{name}", f"{text}, {name} over plain", "not longer", more, "bytes", "<= 0"))
    return claims


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()
    lengths = lengths_of(samples)
    longest = lengths[-1]
    metrics, claims = _metrics(samples), []
    for name in MODES[1:]:
        for quantity, text in QUANTITIES:
            for length in lengths:
                over, interval = _over(samples, name, length, quantity)
                metrics[f"{quantity.removesuffix('_us')}_over_us_{name}_{length}"] = over
                if length == longest and quantity == "connect_us":
                    claims.append(claim(f"over_{name}", f"{text} through {longest} middleboxes, {name} over plain",
                                        f"{PAPER_OVER_US} us" if name == "hmac" else f"less than {PAPER_OVER_US} us",
                                        over, "us", f"<= {BUDGET_US[name]}", shape=False, ci95=interval))  # fmt: skip
                elif length == longest:
                    claims.append(claim(f"close_over_{name}", f"{text}, {longest} middleboxes, {name} over plain", "-", over,
                                        "us", f"<= {BUDGET_US[name]}", shape=False, ci95=interval))  # fmt: skip
    least = min(value for key, value in metrics.items() if key.startswith("connects_"))
    claims.append(claim("connects", "connects at each point", "-", least, "", ">= 1000", shape=False))
    return Summary.of(run, claims + _frame_claims(metrics), metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    lengths = lengths_of(samples)
    caption = f"{summary.metrics[f'connects_hmac_{lengths[-1]}']:.0f} sessions a point, modes in turns; bars: 95 % intervals"
    for quantity, text in QUANTITIES:
        with drawing.figure(quantity.removesuffix("_us") + "-latency", caption, (9, 4.2), ncols=2) as (_, axes):
            for axis, (what, middle, interval) in zip(axes, MIDDLES, strict=True):
                for shift, name in enumerate(MODES):
                    by_length = [(n, _values(samples, f"{name}_{n}", quantity)) for n in lengths]
                    points(axis, [(n, middle(v), interval(v)) for n, v in by_length], name, 0.06 * (shift - 1))
                axis.set(xlabel="middleboxes", ylabel=f"{text} (us)", xticks=lengths, ylim=(0, None), title=what)
            axes[0].legend(loc="upper left")
    return drawing.paths
