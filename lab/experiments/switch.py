# SPDX-License-Identifier: Apache-2.0
"""Middleboxes come and go under load: is there a dip in goodput beyond what the paths' rates explain?

A hundred sessions send both ways through shaped links while a firewall is inserted, replaced by another, and deleted, all
sessions at once.  Goodput is what the applications at both ends received, in windows of 100 ms.
"""

from __future__ import annotations

import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import ALARM, Drawing
from lab.experiments.framework.recorder import Recorder
from lab.measure import tcp_counters
from lab.network import Lab, wait_for
from lab.results import RunDirectory, Summary, claim
from lab.tools import bulk
from lab.topologies import Settings, Topology

DESCRIPTION = "insertion, replacement and deletion under load of 100 sessions: goodput around each switch"
TOOLS = (str(bulk.BINARY),)
CPU_BOUND = False
PORT, RATE_MBPS = 5001, 80
STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("insert", {"insert": ["mb1"]}),
    ("replace", {"replace": {"mb1": ["mb2"]}}),
    ("delete", {"remove": "mb2"}),
)
INTERVAL_MS, WINDOW_S = 20, 0.1
SPARE_S = 6.0  # the steps take time, too, and a while of undisturbed traffic must follow the last


@dataclass(frozen=True)
class Plan:
    topology: Topology
    sessions: int
    pause_s: float  # between the steps

    @property
    def seconds(self) -> float:
        return self.pause_s * (len(STEPS) + 1) + SPARE_S


def plan(settings: Settings, profile: str) -> Plan:
    sessions = settings.integer("sessions", 100, 1, 2000)
    pause = settings.integer("pause", 15 if profile == "paper" else 4, 1, 1000)
    topology = settings.topology("chain", middleboxes=2, initial=0, kind="firewall", rate=RATE_MBPS)
    return Plan(topology, sessions, float(pause))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    """Goodput of each interval at both ends, and when each step was asked for and done."""
    reports = [record.raw / f"{end}.jsonl" for end in ("client", "server")]
    with Lab(plan.topology) as lab:
        address = plan.topology.host("server").address
        with lab.service("server", bulk.server_command(address, PORT, reports[1])):
            command = bulk.client_command(address, PORT, reports[0], sessions=plan.sessions, seconds=plan.seconds,
                                          interval_ms=INTERVAL_MS, seed=record.seed)  # fmt: skip
            client = lab.popen("client", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(client, "connected")
            zero = record.zero()
            with record.watched():
                _switch(lab, plan, record, zero)
                record.sleep(SPARE_S, "all deleted", zero, plan.seconds)
                client.wait(60)
        resets = sum(tcp_counters(lab.pid(h))["TcpEstabResets"] for h in plan.topology.names)
    for end, path in zip(("client", "server"), reports, strict=True):
        for ns, received in bulk.read_report(path).intervals:
            record(end, "received_bytes", received, ns / 1e9)
    compared = bulk.compare([(bulk.read_report(reports[0]), bulk.read_report(reports[1]))])
    for name, value in (("failed", compared.failed), ("mismatched", compared.bytes_mismatched), ("resets", resets),
                        ("compared", compared.bytes_compared)):  # fmt: skip
        record("all", name, value)


def _switch(lab: Lab, plan: Plan, record: Recorder, zero: float) -> None:
    for name, change in STEPS:
        record.sleep(plan.pause_s, f"before: {name}", zero, plan.seconds)
        record(name, "asked", 1)
        results = lab.agent("client").request("reconfigure", all=True, timeout_s=30, **change)["results"]
        record(name, "done", sum(r["outcome"] == "done" for r in results))


# ---- step 2 ----


def _goodput(samples: Any) -> Any:
    """Mbit/s of both directions together, by the start of each window of 100 ms."""
    rows = samples[samples.quantity == "received_bytes"]
    windows = (rows.time_s // WINDOW_S) * WINDOW_S
    return rows.groupby(windows).value.sum() * 8 / 1e6 / WINDOW_S


def _switches(samples: Any) -> list[tuple[str, float, float]]:
    found = samples[samples.quantity.isin(["asked", "done"])].pivot(index="subject", columns="quantity", values="time_s")
    return [(name, found.asked[name], found.done[name]) for name, _ in STEPS]


def _dips(samples: Any) -> dict[str, float]:
    """By step: the least goodput of a window that touches the switch, over the lower of the medians before and after."""
    goodput, dips = _goodput(samples), {}
    for name, asked, done in _switches(samples):
        before = goodput[(goodput.index > asked - 2) & (goodput.index < asked - WINDOW_S)].median()
        after = goodput[(goodput.index > done + 1) & (goodput.index < done + 3)].median()
        around = goodput[(goodput.index > asked - WINDOW_S) & (goodput.index < done + WINDOW_S)]
        dips[name] = float(around.min() / min(before, after))
    return dips


def summarise(run: RunDirectory) -> Summary:
    samples, sessions = run.samples(), int(run.manifest()["settings"]["sessions"])
    single = {r.quantity: r.value for r in samples[samples.subject == "all"].itertuples()}
    done = {r.subject: r.value for r in samples[samples.quantity == "done"].itertuples()}
    dips = _dips(samples)
    metrics = {
        "sessions": float(sessions),
        "sessions_reconfigured_min": min(done.values()),
        "bytes_compared": single["compared"],
        "bytes_mismatched": single["mismatched"],
        "sessions_failed": single["failed"],
        "resets": single["resets"],
        **{f"dip_ratio_{name}": value for name, value in dips.items()},
        "goodput_median_mbps": statistics.median(_goodput(samples)),
    }
    claims = [
        claim("mismatched", "bytes that differ", "0", metrics["bytes_mismatched"], "", "== 0"),
        claim("failed", "sessions that failed", "0", metrics["sessions_failed"], "", "== 0"),
        claim("resets", "sessions reset", "0", metrics["resets"], "", "== 0"),
        claim("all", "sessions reconfigured in each step", "all", metrics["sessions_reconfigured_min"], "", f"== {sessions}"),
        *(
            claim(f"dip-{n}", f"{n}: least goodput around the switch over the lower of before and after", "no visible dip", v, "",
                  ">= 0.8", shape=False)
            for n, v in dips.items()
        ),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    goodput = _goodput(samples)[1:-1]
    with drawing.figure("switch", f"1 run; windows of {WINDOW_S * 1000:.0f} ms", (9, 4)) as (_, axes):
        axes.step(goodput.index, goodput.values, where="post")
        for name, asked, done in _switches(samples):
            axes.axvspan(asked, done, alpha=0.2, color=ALARM)
            axes.annotate(name, (asked, goodput.max()), fontsize=9)
        axes.set(xlabel="time (s)", ylabel="goodput, both ways (Mbit/s)", ylim=(0, None))
        axes.set_title(f"{summary.metrics['sessions']:.0f} sessions; shaded: asked until the last old path has ended")
    return drawing.paths
