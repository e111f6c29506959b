# SPDX-License-Identifier: Apache-2.0
"""Steering by forwarding rules beside Dysco, in turns over the same switches (paper I and VI-A: SIMPLE, StEERING).

client, mb1..mbN and server are at three Open vSwitch switches in user space.  In `static` a few rules steer all sessions,
in `sdn` a controller makes rules for each, in `dysco` the switches only forward.  What is measured: connect(), rules as
sessions grow, goodput; then a NAT comes into the chain, after which the five-tuple is another.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lab import steering
from lab.experiments.framework import costs
from lab.experiments.framework.costs import PORT, compared, connect_times, on_cpu, rounds_of
from lab.experiments.framework.recorder import Recorder
from lab.experiments.sdn_baseline_figures import draw
from lab.faults import rule
from lab.impair import first_of_each
from lab.network import Lab, wait_until
from lab.results import Claim, RunDirectory, Summary, claim
from lab.switches import Switches
from lab.tools import bulk, connect, controller, flood
from lab.topologies import Settings, Topology
from lab.topologies.switched import PORTS, SERVER
from middleboxes.iptables import Nat, rule_packets

__all__ = ["CPU_BOUND", "DESCRIPTION", "TOOLS", "draw", "measure", "plan", "summarise"]

DESCRIPTION = "per-session forwarding rules (Open vSwitch, os-ken) beside Dysco: connect(), rules, goodput, a NAT (paper I, VI-A)"
TOOLS = (str(connect.BINARY), str(flood.BINARY), str(bulk.BINARY), "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl",
         "ethtool", "python:os_ken")  # fmt: skip
CPU_BOUND = True
MODES = ("static", "sdn", "dysco")
FLOOD_PORT, BULK_PORT = PORT + 1, PORT + 2
GROWTH = (1, 25, 50, 100, 200)  # sessions that are open at once
HOLD_MS, LATE_S, DRAIN_S, WAIT_S = 1000, 0.2, 15, 60
NAT_AT = 2  # the middlebox that becomes a NAT; those beyond it are what rules may miss
# who steers, and what becomes of packets that no rule knows
CASES = {"sdn": "forward", "dysco": "", "sdn nat forward": "forward", "sdn nat drop": "drop", "dysco nat": ""}


@dataclass(frozen=True)
class Plan:
    topology: Topology
    rounds: int
    connects: int  # in each round, in each mode
    window_ms: int
    sessions: int  # of each case with and without a NAT
    growth: tuple[int, ...]

    @property
    def boxes(self) -> tuple[str, ...]:
        return self.topology.policies[0].chain


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    rounds = settings.integer("rounds", 15 if paper else 5, 2, 100)
    connects = settings.integer("connects", 1000 if paper else 100, 10, 2000)
    window = settings.integer("window_ms", 2000 if paper else 500, 50, 60_000)
    sessions = settings.integer("sessions", 200 if paper else 40, 1, 1000)
    most = settings.integer("most", 1000 if paper else GROWTH[-1], 1, 2000)
    growth = (*(n for n in (*GROWTH, 400, 1000) if n < most), most)
    count = settings.integer("middleboxes", 4, NAT_AT + 1, 8)
    topology = settings.topology("switched", middleboxes=count, dysco="off")
    return Plan(topology, rounds, connects, window, sessions, growth)


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    record.expect(len(MODES) * (plan.rounds + 1) + len(CASES))
    address = plan.topology.host(SERVER).address
    with Lab(plan.topology) as lab, record.watched():
        with ExitStack() as stack:
            stack.enter_context(lab.service(SERVER, on_cpu(lab, SERVER, 1, connect.server_command(address, PORT))))
            stack.enter_context(lab.service(SERVER, on_cpu(lab, SERVER, 1, flood.server_command(address, FLOOD_PORT))))
            for turn in record.turns(plan.rounds, MODES):
                with _steered(lab, record, turn.mode):
                    _turn(lab, plan, record, turn.mode)
                    if turn.round == plan.rounds - 1:
                        _grow(lab, plan, record, turn.mode)
        for case, unknown in CASES.items():
            record.step(case)
            _case(lab, plan, record, case, unknown)


def _steered(lab: Lab, record: Recorder, who: str, unknown: str = "forward") -> AbstractContextManager[None]:
    if who == "static":
        return steering.by_static_rules(lab)
    return steering.by_session_rules(lab, record.raw, unknown) if who == "sdn" else costs.mode(lab, who)


def _turn(lab: Lab, plan: Plan, record: Recorder, mode: str) -> None:
    record.all(mode, "connect_us", connect_times(lab, plan.connects))
    load = flood.client_command(lab.topology.host(SERVER).address, FLOOD_PORT, ms=plan.window_ms)
    record(mode, "goodput_mbps", flood.read_rate(lab.run("client", on_cpu(lab, "client", 0, load))).goodput_mbps)


def _grow(lab: Lab, plan: Plan, record: Recorder, mode: str) -> None:
    """Rules at each switch, and sessions that agents know, while so many sessions are open."""
    switches, address = steering.switches_of(lab), lab.topology.host(SERVER).address
    for count in (0, *plan.growth):
        wait_until(lambda: _forgotten(switches), WAIT_S, "no session before has rules")
        with _open(lab, address, count):
            for name in switches.names:
                record(f"{mode}_{name}", f"rules_{count}", switches.rules(name))
            for host in lab.state.agents:
                live = [s for s in lab.agent(host).request("sessions")["sessions"] if s["state"] == "established"]
                record(f"{mode}_{host}", f"sessions_{count}", len(live))


def _forgotten(switches: Switches) -> bool:
    """Drops the rules of sessions; false if the last packet of one that is over has just brought them back."""
    switches.drop_rules(controller.COOKIE)
    time.sleep(LATE_S)
    return not any(switches.rules(name, controller.COOKIE) for name in switches.names)


@contextmanager
def _open(lab: Lab, address: str, count: int) -> Iterator[None]:
    """So many sessions are open while the block lasts, which must be short."""
    if not count:
        yield
        return
    client = lab.popen("client", connect.client_command(address, PORT, count, HOLD_MS), stdout=subprocess.PIPE)
    assert client.stdout
    for _ in range(count):
        client.stdout.readline()
    yield
    client.communicate(timeout=WAIT_S)


def _case(lab: Lab, plan: Plan, record: Recorder, case: str, unknown: str) -> None:
    """Hashed sessions, and which middleboxes have seen them."""
    who = case.split()[0]
    with ExitStack() as stack:
        if "nat" in case:
            stack.enter_context(lab.box(f"mb{NAT_AT}", Nat()))
        stack.enter_context(_steered(lab, record, who, unknown))
        seen = {host: stack.enter_context(_counted(lab, host)) for host in (*plan.boxes, SERVER)}
        compared = _hashed(lab, plan, record, case)
        for host, sessions in seen.items():
            record(case, f"passed_{host}", sessions())
    for quantity, value in (("sessions", plan.sessions), ("completed", compared.sessions - compared.failed),
                            ("mismatched_bytes", compared.bytes_mismatched)):  # fmt: skip
        record(case, quantity, value)


@contextmanager
def _counted(lab: Lab, host: str) -> Iterator[Callable[[], int]]:
    """How many sessions have come by: repeated SYNs count once."""
    chain = "INPUT" if host == SERVER else "FORWARD"
    begins = ["-p", "tcp", "--syn", "--dport", PORTS.replace("-", ":"), *first_of_each("sessions")]
    with rule(lab, host, chain, begins, "mangle"):
        yield lambda: rule_packets(lab.place(host), "mangle", chain)[0][0]


def _hashed(lab: Lab, plan: Plan, record: Recorder, case: str) -> bulk.Comparison:
    address, name = lab.topology.host(SERVER).address, case.replace(" ", "-")
    reports = [record.raw / f"{name}-{end}.jsonl" for end in ("client", "server")]
    with lab.service(SERVER, bulk.server_command(address, BULK_PORT, reports[1])):
        load = bulk.client_command(
            address, BULK_PORT, reports[0], sessions=plan.sessions, seconds=1, message=1000, every_us=100_000, seed=record.seed
        )
        load += ["--drain-seconds", str(2 if "drop" in case else DRAIN_S)]  # what cannot come about is not waited for
        lab.popen("client", load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(WAIT_S)
    return bulk.compare([(bulk.read_report(reports[0]), bulk.read_report(reports[1]))])


# ---- step 2 ----


def summarise(run: RunDirectory) -> Summary:
    samples, metrics = run.samples(), dict[str, float]()

    def value(subject: str, quantity: str) -> float:
        return float(samples[(samples.subject == subject) & (samples.quantity == quantity)].value.sum())

    boxes = [f"mb{i}" for i in range(1, int(run.manifest()["settings"]["middleboxes"]) + 1)]
    claims = [*_costs(samples, metrics), *_rules(samples, metrics, 2 * len(boxes))]
    for case in CASES:
        name = case.replace(" ", "_")
        metrics[f"completed_{name}"] = value(case, "completed")
        metrics[f"whole_chain_{name}"] = min(value(case, f"passed_{box}") for box in boxes)
        metrics[f"beyond_nat_{name}"] = max(value(case, f"passed_{box}") for box in boxes[NAT_AT:])
    metrics["sessions"] = value("dysco", "sessions")
    metrics["bytes_mismatched_dysco"] = value("dysco", "mismatched_bytes") + value("dysco nat", "mismatched_bytes")
    return Summary.of(run, claims + _case_claims(metrics), metrics)


def _costs(samples: Any, metrics: dict[str, float]) -> list[Claim]:
    """connect() and goodput beside what static rules reach over the same switches."""
    claims, over = [], dict[str, float]()
    for mode in MODES:
        times = samples[(samples.subject == mode) & (samples.quantity == "connect_us")].value
        metrics[f"connect_us_p50_{mode}"], metrics[f"connects_{mode}"] = float(times.median()), float(len(times))
        metrics[f"goodput_mbps_{mode}"] = statistics.median(rounds_of(samples, mode, "goodput_mbps"))
    for mode, text in (("sdn", "rules for each session"), ("dysco", "Dysco")):
        with_it, static = (rounds_of(samples, which, "connect_us") for which in (mode, "static"))
        over[mode], interval = compared(with_it, static, "difference")
        metrics[f"connect_over_us_{mode}"] = over[mode]
        claims.append(claim(f"over_{mode}", f"connect(), {text}, over static rules", "-", over[mode], "us", ">= 0", shape=False,
                            ci95=interval))  # fmt: skip
    claims.append(claim("slower", "what a controller adds to connect() over what Dysco adds", "more than 1",
                        over["sdn"] / max(over["dysco"], 1.0), "", ">= 1", shape=False))  # fmt: skip
    for mode, text in (("sdn", "rules for each session"), ("dysco", "Dysco")):
        with_it, static = (rounds_of(samples, which, "goodput_mbps") for which in (mode, "static"))
        ratio, interval = compared(with_it, static, "ratio")
        metrics[f"goodput_ratio_{mode}"] = ratio
        claims.append(claim(f"goodput_{mode}", f"goodput, {text}, over static rules", "about 1", ratio, "", ">= 0.9", shape=False,
                            ci95=interval))  # fmt: skip
    return claims


def _rules(samples: Any, metrics: dict[str, float], each: int) -> list[Claim]:
    """What a session adds to the switches, from the most sessions that were open at once."""
    rows = samples[samples.quantity.str.startswith("rules_")].copy()
    rows["sessions"] = rows.quantity.str.removeprefix("rules_").astype(int)
    rows[["mode", "switch"]] = rows.subject.str.split("_", expand=True)
    most = int(rows.sessions.max())
    for mode in MODES:
        of_mode = rows[rows["mode"] == mode].set_index(["sessions", "switch"]).value
        metrics[f"rules_{mode}_{most}"], metrics[f"rules_{mode}_0"] = float(of_mode[most].sum()), float(of_mode[0].sum())
        metrics[f"rules_per_session_{mode}"] = float((of_mode[most].sum() - of_mode[0].sum()) / most)
        metrics[f"rules_{mode}_{most}_at_one"] = float(of_mode[most].max())
    return [
        claim("rules_sdn", "rules that a session adds to the switches, by a controller", "grow with sessions and chains",
              metrics["rules_per_session_sdn"], "", f"== {each}"),
        claim("rules_dysco", "the same, Dysco", "0", metrics["rules_per_session_dysco"], "", "== 0"),
    ]  # fmt: skip


def _case_claims(m: dict[str, float]) -> list[Claim]:
    everything = f"== {m['sessions']:.0f}"
    return [
        claim("chain_sdn", "sessions that pass the whole chain, by rules", "all", m["whole_chain_sdn"], "", everything),
        claim("chain_dysco", "the same, Dysco", "all", m["whole_chain_dysco"], "", everything),
        claim("nat_skipped", "sessions that a middlebox beyond a NAT sees, by rules; what they do not match is forwarded", "0",
              m["beyond_nat_sdn_nat_forward"], "", "== 0"),
        claim("nat_failed", "sessions that come about across a NAT, by rules; what they do not match is dropped", "0",
              m["completed_sdn_nat_drop"], "", "== 0"),
        claim("nat_dysco", "sessions that pass the whole chain, a NAT in it, Dysco", "all", m["whole_chain_dysco_nat"], "",
              everything),
        claim("completed", "of these, complete at both ends", "all", m["completed_dysco_nat"], "", everything),
        claim("mismatched", "bytes that differ between the two ends, Dysco", "0", m["bytes_mismatched_dysco"], "bytes", "== 0"),
    ]  # fmt: skip
