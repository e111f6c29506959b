# SPDX-License-Identifier: Apache-2.0
"""Suspicious traffic on live sessions goes through a scrubber, by one command at the policy server, and back (paper I, II-B).

Sessions of all clients pass a firewall.  Those with some ports of the server begin to look suspicious: one order, which every
agent carries out for what begins at it, inserts a scrubber into just these, another takes it out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import COLOURS, Drawing
from lab.experiments.framework.load import Flow, ends, goodput, intact, loaded
from lab.experiments.framework.orders import ordered, when
from lab.experiments.framework.recorder import Recorder
from lab.experiments.framework.watch import packets, silent, watched_packets
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tools import bulk
from lab.topologies import Settings, Topology

DESCRIPTION = "suspicious traffic on live sessions goes through a scrubber and back, by one command each"
TOOLS = (str(bulk.BINARY),)
CPU_BOUND = False
FIREWALL, SCRUBBER = "mb1", "scrubber"
USUAL, SUSPICIOUS = 5000, 5010  # and the client's number: ports of the server
CLASSIFIER = f"tcp dst portrange {SUSPICIOUS + 1}-{SUSPICIOUS + 8}"
ORDERS = {"in": ("--insert", SCRUBBER, "--after", FIREWALL), "out": ("--remove", SCRUBBER)}
SILENT_S = 0.5


@dataclass(frozen=True)
class Plan:
    topology: Topology
    clients: int
    usual: int  # sessions of each client
    suspicious: int
    step_s: float

    @property
    def seconds(self) -> float:
        return 3 * self.step_s


def plan(settings: Settings, profile: str) -> Plan:
    clients = settings.integer("clients", 4, 1, 8)
    usual, suspicious = settings.integer("usual", 8, 0, 500), settings.integer("suspicious", 8, 1, 500)
    step = settings.integer("step", 30 if profile == "paper" else 5, 1, 1000)
    return Plan(settings.topology("shared", clients=clients, middleboxes=1), clients, usual, suspicious, float(step))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    flows = [Flow(f"suspicious{i}", f"client{i}", SUSPICIOUS + i, plan.suspicious) for i in range(1, plan.clients + 1)]
    flows += [Flow(f"usual{i}", f"client{i}", USUAL + i, plan.usual) for i in range(1, plan.clients + 1) if plan.usual]
    with Lab(plan.topology) as lab, loaded(lab, record, flows) as zero, record.watched():
        with watched_packets(lab, record, (FIREWALL, SCRUBBER)):
            for number, (name, words) in enumerate(ORDERS.items(), 1):
                record.sleep(zero + number * plan.step_s - time.monotonic(), f"before: scrubber {name}", zero, plan.seconds)
                ordered(record, name, "--everywhere", "--match", CLASSIFIER, *words)
                _look(lab, record, name)
            record.sleep(zero + plan.seconds - time.monotonic(), "scrubber out again", zero, plan.seconds)
        record(SCRUBBER, "packets_after", silent(lab, SCRUBBER, SILENT_S))


def _look(lab: Lab, record: Recorder, name: str) -> None:
    """Which sessions the scrubber's agent has now."""
    live = [s for s in lab.agent(SCRUBBER).request("sessions")["sessions"] if s["state"] != "over"]
    suspicious = sum(int(s["tuple"].rsplit(":")[-1]) > SUSPICIOUS for s in live)
    record(SCRUBBER, f"suspicious_{name}", suspicious)
    record(SCRUBBER, f"others_{name}", len(live) - suspicious)


# ---- step 2 ----


def summarise(run: RunDirectory) -> Summary:
    samples, settings = run.samples(), run.manifest()["settings"]
    suspicious = int(settings["clients"]) * int(settings["suspicious"])

    def of(subject: str, quantity: str) -> Any:
        return samples[(samples.subject == subject) & (samples.quantity == quantity)].value

    done = {name: float(of(name, "reconfigured").sum()) for name in ORDERS}
    metrics = {
        **ends(samples),
        "sessions_suspicious": float(suspicious),
        "sessions_reconfigured": min(done.values()),
        "scrubbed_suspicious": float(of(SCRUBBER, "suspicious_in").sum()),
        "scrubbed_others": float(of(SCRUBBER, "others_in").sum()),
        "scrubbed_after": float(of(SCRUBBER, "suspicious_out").sum() + of(SCRUBBER, "others_out").sum()),
        "scrubber_packets_after": float(of(SCRUBBER, "packets_after").sum()),
    }
    for name in ORDERS:
        metrics[f"command_s_{name}"] = float(of(name, "command_s").sum())
        metrics[f"reconfig_us_p50_{name}"] = percentile(of(name, "reconfig_us").tolist(), 0.5)
    claims = [
        claim("in", "suspicious sessions that one command sent through the scrubber", "all", done["in"], "", f"== {suspicious}"),
        claim("seen", "suspicious sessions that the scrubber has then", "all", metrics["scrubbed_suspicious"], "",
              f"== {suspicious}"),
        claim("others", "other sessions that the scrubber has then", "0", metrics["scrubbed_others"], "", "== 0"),
        claim("out", "suspicious sessions that one command took back", "all", done["out"], "", f"== {suspicious}"),
        claim("after", "packets at the scrubber after it has left", "0", metrics["scrubber_packets_after"], "", "== 0"),
        *intact(metrics),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples, settings = Drawing(run, summary), run.samples(), run.manifest()["settings"]
    names = sorted(samples[samples.quantity == "goodput_up_mbps"].subject.unique())
    caption = f"1 run, {summary.metrics['sessions']:.0f} sessions of {settings['clients']} clients; windows of 0.25 s"
    with drawing.figure("scrubber", caption, (9, 5.2), nrows=2, sharex=True) as (_, (top, bottom)):
        for kind, colour in (("usual", COLOURS[0]), ("suspicious", COLOURS[1])):
            values = goodput(samples, [name for name in names if name.startswith(kind)], 0.25)
            top.plot(values.index, values.values, color=colour, linewidth=1.8, label=f"{kind} sessions")
        for host, colour in ((FIREWALL, "#555555"), (SCRUBBER, COLOURS[5])):
            rate = packets(samples, host)
            bottom.plot(rate.index, rate.values, color=colour, linewidth=1.8, label="firewall" if host == FIREWALL else host)
        for axis in (top, bottom):
            axis.axvspan(when(samples, "in"), when(samples, "out"), color=COLOURS[5], alpha=0.1)
            axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
            axis.legend(loc="upper left", ncols=2, fontsize=9)
        top.set(ylabel="goodput (Mbit/s)")
        top.set_title(f"{summary.metrics['sessions_suspicious']:.0f} suspicious sessions pass the scrubber between two commands")
        bottom.set(xlabel="time (s)", ylabel="packets received (1/s)", xlim=(0, 3 * float(settings["step"])))
    return drawing.paths
