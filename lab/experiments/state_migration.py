# SPDX-License-Identifier: Apache-2.0
"""A stateful firewall is replaced by another during long sessions, with and without its state (paper III-F, IV-D; [34]).

The state is one that the new path's handshake cannot make again: a connection mark, set by the header that each session
begins with.  Data of connections without that mark is dropped.  Half of the sessions are replaced with migration, then the
other half without; those would never end, so that the new firewall is told later not to ask for the mark.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import ALARM, COLOURS, Drawing
from lab.experiments.framework.load import Flow, ends, goodput, intact, loaded
from lab.experiments.framework.orders import recorded
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tool import run as run_tool
from lab.tools import bulk
from lab.topologies import Settings, Topology

DESCRIPTION = "a stateful firewall is replaced during long sessions, with its state and without"
TOOLS = (str(bulk.BINARY), "iptables-restore", "conntrack")
CPU_BOUND = False
OLD, NEW = "mb1", "mb2"
PORTS = {"with": 5001, "without": 5002}  # the two halves
HEADER = "6b6c7562"  # the first bytes of every session of bulk, as they are on the wire
RULES = f"""*mangle
-A FORWARD -p tcp -m string --algo bm --from 40 --to 140 --hex-string "|{HEADER}|" -j CONNMARK --set-mark 7
COMMIT
*filter
-I FORWARD 1 -p tcp -m multiport --ports {PORTS["with"]} -m length --length 200:65535 -m connmark ! --mark 7 -j DROP
-I FORWARD 2 -p tcp -m multiport --ports {PORTS["without"]} -m length --length 200:65535 -m connmark ! --mark 7 -j DROP
COMMIT
"""
TIMEOUT_S = 30


@dataclass(frozen=True)
class Plan:
    topology: Topology
    sessions: int  # of each half
    step_s: float

    @property
    def seconds(self) -> float:
        return self.step_s * 4


def plan(settings: Settings, profile: str) -> Plan:
    sessions = settings.integer("sessions", 50, 1, 500)
    step = settings.integer("step", 20 if profile == "paper" else 4, 1, 1000)
    rate = settings.integer("rate", 80, 1, 10_000)
    return Plan(settings.topology("chain", middleboxes=2, initial=1, kind="firewall", rate=rate), sessions, float(step))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    flows = [Flow(half, "client", port, plan.sessions) for half, port in PORTS.items()]
    with Lab(plan.topology) as lab:
        for host in (OLD, NEW):
            run_tool(lab.inside(host, ["iptables-restore", "--noflush"]), RULES)
        with loaded(lab, record, flows) as zero, record.watched():
            begun = _dropped(lab, OLD)["with"]
            record.sleep(zero + plan.step_s - time.monotonic(), "before the first half", zero, plan.seconds)
            _replace(lab, record, "with", migrate=True)
            record.sleep(zero + 2 * plan.step_s - time.monotonic(), "before the second half", zero, plan.seconds)
            _replace(lab, record, "without", migrate=False)
            record.sleep(plan.step_s / 2, "without its state", zero, plan.seconds)
            dropped = _dropped(lab, NEW)
            record("without", "dropped_packets", dropped["without"])
            lab.run(NEW, ["iptables", "-D", "FORWARD", "2"])
            record("without", "relieved", 1)
            record.sleep(zero + plan.seconds - time.monotonic(), "to the end", zero, plan.seconds)
            record("with", "dropped_packets", _dropped(lab, NEW)["with"] + _dropped(lab, OLD)["with"] - begun)


def _replace(lab: Lab, record: Recorder, half: str, migrate: bool) -> None:
    """All sessions of one half, asked of the client's agent as the policy server would ask it."""
    sockets = [str(lab.agent(host).path) for host in (OLD, NEW)]
    how: dict[str, Any] = {"migrate": sockets} if migrate else {}
    record(half, "asked", 1)
    reply = lab.agent("client").request(
        "reconfigure", match=f"tcp dst port {PORTS[half]}", replace={OLD: [NEW]}, timeout_s=TIMEOUT_S, **how
    )
    recorded(record, half, reply["results"])


def _dropped(lab: Lab, host: str) -> dict[str, int]:
    """Packets dropped for want of a mark, by half."""
    rules = lab.run(host, ["iptables", "-L", "FORWARD", "-v", "-x", "-n"])
    found = dict(re.findall(r"^\s*(\d+)\s+\d+\s+DROP.*multiport ports (\d+).*", rules, re.M))
    by_port = {int(port): int(packets) for packets, port in found.items()}
    return {half: by_port.get(port, 0) for half, port in PORTS.items()}


# ---- step 2 ----


def summarise(run: RunDirectory) -> Summary:
    samples, each = run.samples(), int(run.manifest()["settings"]["sessions"])

    def of(half: str, quantity: str) -> Any:
        return samples[(samples.subject == half) & (samples.quantity == quantity)].value

    metrics = {
        **ends(samples),
        "sessions_reconfigured": float(sum(of(half, "reconfigured").sum() for half in PORTS)),
        "sessions_migrated": float(len(of("with", "migration_us"))),
        "dropped_with_migration": float(of("with", "dropped_packets").sum()),
        "dropped_without_migration": float(of("without", "dropped_packets").sum()),
    }
    for half in PORTS:
        metrics[f"old_path_drained_us_p50_{half}"] = percentile(of(half, "old_path_drained_us").tolist(), 0.5)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        metrics[f"migration_us_{name}"] = percentile(of("with", "migration_us").tolist(), share)
    claims = [
        claim("migrated", "sessions whose firewall was replaced with its state", "all", metrics["sessions_migrated"], "",
              f"== {each}"),
        claim("replaced", "sessions whose firewall was replaced", "all", metrics["sessions_reconfigured"], "", f"== {2 * each}"),
        claim("with", "packets dropped, state migrated", "0", metrics["dropped_with_migration"], "", "== 0"),
        claim("without", "packets dropped, state not migrated", "some", metrics["dropped_without_migration"], "", ">= 1"),
        claim("time", "time for one session's state, median", "-", metrics["migration_us_p50"], "us", "<= 100000", shape=False),
        *intact(metrics),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples, manifest = Drawing(run, summary), run.samples(), run.manifest()
    window = 1.0 if manifest["profile"] == "paper" else 0.2
    marks = samples[samples.quantity.isin(["asked", "relieved"])].set_index(["subject", "quantity"]).time_s
    caption = f"1 run, {manifest['settings']['sessions']} sessions of each half; windows of {window:g} s"
    with drawing.figure("goodput", caption, (9, 4.2)) as (_, axis):
        for half, colour in (("with", COLOURS[0]), ("without", COLOURS[1])):
            values = goodput(samples, [half], window)
            axis.plot(values.index, values.values, color=colour, linewidth=1.8, label=f"replaced {half} migration")
            axis.axvline(marks[half, "asked"], color=colour, linestyle="--", linewidth=1.2)
        axis.axvspan(marks["without", "asked"], marks["without", "relieved"], color=ALARM, alpha=0.12)
        dropped = summary.metrics["dropped_without_migration"]
        axis.annotate(f"{dropped:,.0f} packets dropped", (marks["without", "asked"], 0), xytext=(4, 8),
                      textcoords="offset points", fontsize=9, color=ALARM)  # fmt: skip
        stop = 4 * float(manifest["settings"]["step"])
        axis.set(xlabel="time (s)", ylabel="goodput, both ways (Mbit/s)", xlim=(0, stop), ylim=(0, 1.25 * axis.get_ylim()[1]))
        axis.set_title("A stateful firewall is replaced, one half of the sessions with its state, then the other without")
        axis.legend(loc="upper left", ncols=2)
    return drawing.paths
