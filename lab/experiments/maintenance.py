# SPDX-License-Identifier: Apache-2.0
"""A middlebox instance replaces itself in all its sessions on one command, is switched off, and comes back (paper I, II-B).

Sessions of several clients pass one firewall.  It is told to put another in its place; then its link is down for a while,
as one that is under maintenance; afterwards the other is told the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import COLOURS, Drawing
from lab.experiments.framework.load import Flow, ends, goodput, intact, loaded
from lab.experiments.framework.orders import ordered, when
from lab.experiments.framework.recorder import Recorder
from lab.experiments.framework.watch import packets, silent, watched_packets
from lab.network import Lab, wait_until
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tools import bulk
from lab.topologies import Settings, Topology

DESCRIPTION = "a firewall replaces itself in all its sessions on one command, is switched off, and comes back"
TOOLS = (str(bulk.BINARY),)
CPU_BOUND = False
BOX, SPARE = "mb1", "mb2"
ORDERS = {"leave": (BOX, SPARE), "return": (SPARE, BOX)}
PORT = 5000  # and the client's number
SILENT_S, READY_S = 0.5, 10.0


@dataclass(frozen=True)
class Plan:
    topology: Topology
    clients: int
    sessions: int  # of each client
    step_s: float

    @property
    def seconds(self) -> float:
        return 4 * self.step_s


def plan(settings: Settings, profile: str) -> Plan:
    clients, sessions = settings.integer("clients", 4, 1, 8), settings.integer("sessions", 15, 1, 500)
    step = settings.integer("step", 20 if profile == "paper" else 4, 1, 1000)
    return Plan(settings.topology("shared", clients=clients, middleboxes=2, initial=1), clients, sessions, float(step))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    flows = [Flow(f"client{i}", f"client{i}", PORT + i, plan.sessions) for i in range(1, plan.clients + 1)]
    with Lab(plan.topology) as lab, loaded(lab, record, flows) as zero, record.watched():
        with watched_packets(lab, record, (BOX, SPARE)):
            record.sleep(plan.step_s, "before maintenance", zero, plan.seconds)
            _order(record, "leave")
            record(BOX, "packets_after", silent(lab, BOX, SILENT_S))
            _switch(lab, record, "down")
            record.sleep(plan.step_s, "maintenance", zero, plan.seconds)
            _switch(lab, record, "up")
            _order(record, "return")
            record.sleep(plan.step_s, "after maintenance", zero, plan.seconds)
        record(SPARE, "packets_after", silent(lab, SPARE, SILENT_S))


def _order(record: Recorder, name: str) -> None:
    """Said to the instance itself: it is in the middle of all its sessions, who must lead is found from there."""
    box, other = ORDERS[name]
    ordered(record, name, "--at", box, "--all", "--replace", f"{box}={other}")


def _switch(lab: Lab, record: Recorder, to: str) -> None:
    lines = [f"link set eth0 {to}"]
    if to == "up":  # the kernel has forgotten it with the link
        lines.append(f"route add default via {lab.topology.host(BOX).gateway}")
    lab.batch(BOX, lines)
    if to == "up":
        wait_until(lambda: lab.agent(BOX).request("ping")["interfaces"], READY_S, "the agent has seen its interface")
    record(BOX, f"link_{to}", 1)


# ---- step 2 ----


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()

    def of(subject: str, quantity: str) -> Any:
        return samples[(samples.subject == subject) & (samples.quantity == quantity)].value

    common = ends(samples)
    done = {name: float(of(name, "reconfigured").sum()) for name in ORDERS}
    metrics = {
        **common,
        "sessions_reconfigured": min(done.values()),
        "packets_after": float(of(BOX, "packets_after").sum() + of(SPARE, "packets_after").sum()),
    }
    for name in ORDERS:
        metrics[f"command_s_{name}"] = float(of(name, "command_s").sum())
        metrics[f"reconfig_us_p50_{name}"] = percentile(of(name, "reconfig_us").tolist(), 0.5)
    sessions = common.get("sessions", 0.0)
    claims = [
        claim("leave", "sessions in which one command replaced the instance", "all", done["leave"], "", f"== {sessions:.0f}"),
        claim("return", "sessions in which one command brought it back", "all", done["return"], "", f"== {sessions:.0f}"),
        claim("silent", "packets at an instance that has been replaced", "0", metrics["packets_after"], "", "== 0"),
        *intact(metrics),
    ]
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    names = samples[samples.quantity == "goodput_up_mbps"].subject.unique()
    down, up = when(samples, BOX, "link_down"), when(samples, BOX, "link_up")
    caption = f"1 run, {summary.metrics['sessions']:.0f} sessions of {len(names)} clients; windows of 0.25 s"
    with drawing.figure("maintenance", caption, (9, 5.2), nrows=2, sharex=True) as (_, (top, bottom)):
        values = goodput(samples, names, 0.25)
        top.plot(values.index, values.values, color=COLOURS[2], linewidth=1.8)
        for host, colour in ((BOX, COLOURS[0]), (SPARE, COLOURS[1])):
            rate = packets(samples, host)
            bottom.plot(rate.index, rate.values, color=colour, linewidth=1.8, label=host)
        for axis in (top, bottom):
            axis.axvspan(down, up, color="#999999", alpha=0.2)
            for name in ORDERS:
                axis.axvline(when(samples, name), color="#555555", linestyle="--", linewidth=1.2)
            axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
        top.annotate(f"{BOX} is switched off", ((down + up) / 2, 0), xytext=(0, 8), textcoords="offset points", ha="center")
        for name, (box, other) in ORDERS.items():
            top.annotate(f"{box}={other}", (when(samples, name), top.get_ylim()[1]), xytext=(4, -12),
                         textcoords="offset points", fontsize=9)  # fmt: skip
        top.set(ylabel="goodput, both ways (Mbit/s)")
        top.set_title("An instance replaces itself in all its sessions on one command, twice")
        bottom.set(xlabel="time (s)", ylabel="packets received (1/s)", xlim=(0, values.index.max()))
        bottom.legend(loc="upper left", ncols=2, fontsize=9)
    return drawing.paths
