# SPDX-License-Identifier: Apache-2.0
"""A load balancer leaves each session once it has chosen the server (paper I, II-D): what that gains.

Clients reach several servers through HAProxy or NGINX as their distribution ships them.  In turns, under the same load, the
balancer stays in its sessions or leaves each as soon as it only relays.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.collect import Collector, collecting
from lab.experiments.framework.figures import COLOURS, Drawing, cdf
from lab.experiments.framework.recorder import Recorder, Turn
from lab.measure import RESETS, TICKS, cpu_ticks, tcp_counters, with_children
from lab.network import Lab, LabFailed, wait_for, wait_until
from lab.results import RunDirectory, Summary, claim
from lab.statistics import median_interval
from lab.tools import bulk, echo
from lab.topologies import Settings, Topology
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.haproxy import HAProxy
from middleboxes.nginx import Nginx

DESCRIPTION = "HAProxy or NGINX balances sessions over servers, and leaves each once it has chosen (paper I, II-D)"
TOOLS = (str(bulk.BINARY), "haproxy", "nginx")
CPU_BOUND = False
MODES = ("stays", "leaves")
LABELS = {"stays": "balancer stays", "leaves": "balancer has left"}
ECHO_PORTS = (7001, 7002)  # at the balancer, at the servers
MESSAGE_BYTES, EVERY_US = 2000, 50_000
ECHO_EVERY_MS = 10
LEAVE_S = 2.0  # at most, until all sessions are without the balancer
RAMP_S = 1.0  # left out before CPU and latency are measured


@dataclass(frozen=True)
class Plan:
    topology: Topology
    balancer: str
    hosts: int  # so many clients, so many servers
    sessions: int  # of each client
    seconds: float  # of a turn
    rounds: int

    def server(self, i: int) -> str:
        return self.topology.host(f"server{i}").address


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    balancer = settings.choice("balancer", "haproxy", ("haproxy", "nginx"))
    servers = settings.integer("servers", 4, 1, 8)
    sessions = settings.integer("sessions", 50, 1, 1000)
    rounds = settings.integer("rounds", 10 if paper else 2, 1, 100)
    seconds = settings.integer("seconds", 20 if paper else 6, 5, 1000)
    topology = settings.topology("proxy", pairs=servers, dysco="on", proxy_mbps="none", direct_mbps="none")
    return Plan(topology, balancer, servers, sessions, float(seconds), rounds)


# ---- step 1: run ----


def measure(plan: Plan, record: Recorder) -> None:
    record.expect(len(MODES) * (plan.rounds + 1))
    with Lab(plan.topology) as lab, ExitStack() as stack:
        for host, port in (("client1", ECHO_PORTS[0]), (PROXY, ECHO_PORTS[1])):
            lab.agent(host).request("policy_add", filter=f"tcp dst port {port}", chain=[])
        collector = stack.enter_context(collecting(lab, record.raw))
        for i in range(1, plan.hosts + 1):
            stack.enter_context(lab.service(f"server{i}", echo.server_command(ECHO_PORTS[1])))
        with record.watched():
            for turn in record.turns(plan.rounds, MODES):
                _turn(lab, plan, record, turn, collector)


def _balancer(plan: Plan, raw: Path, mode: str) -> Nginx | HAProxy:
    """Every port of a client leads to all servers by turns."""
    ports = range(1, plan.hosts + 1)
    servers = [(plan.server(i), server_port(i)) for i in ports]
    relays = {proxy_port(i): servers for i in ports} | {ECHO_PORTS[0]: [(plan.server(i), ECHO_PORTS[1]) for i in ports]}
    when = "now" if mode == "leaves" else "none"
    return HAProxy(raw, tcp=relays, leave_when=when) if plan.balancer == "haproxy" else Nginx(raw, stream=relays, leave_when=when)


@contextmanager
def _servers(lab: Lab, plan: Plan, raw: Path) -> Iterator[list[Path]]:
    """The reports of all servers, written when they end."""
    reports = [raw / f"server{i}.jsonl" for i in range(1, plan.hosts + 1)]
    with ExitStack() as stack:
        for i, report in enumerate(reports, 1):
            stack.enter_context(lab.service(f"server{i}", bulk.server_command(plan.server(i), server_port(i), report, 1000)))
        yield reports


def _turn(lab: Lab, plan: Plan, record: Recorder, turn: Turn, collector: Collector) -> None:
    raw = record.raw / f"{turn.round}-{turn.mode}"
    raw.mkdir()
    balancer = _balancer(plan, raw, turn.mode)
    resets, known = _resets(lab), _reconfigured(collector)
    with _servers(lab, plan, raw) as server_reports, lab.box(PROXY, balancer):
        assert balancer.process
        processes = with_children(balancer.process.pid)
        clients, client_reports = _clients(lab, plan, raw, record.seed)
        probe = lab.popen("client1", echo.client_command(lab.topology.host(PROXY).address, ECHO_PORTS[0], plan.seconds - RAMP_S,
                                                         ECHO_EVERY_MS, raw / "echo.txt"))  # fmt: skip
        time.sleep(RAMP_S)
        if turn.mode == "leaves":
            with suppress(LabFailed):  # then its CPU tells
                wait_until(lambda: balancer.counters()["open"] == 0, LEAVE_S, "the balancer has left")
        before, start = sum(map(cpu_ticks, processes)), time.monotonic()
        time.sleep(max(plan.seconds - LEAVE_S - RAMP_S, 1.0))
        cpu_pct = (sum(map(cpu_ticks, processes)) - before) / (time.monotonic() - start) / TICKS * 100
        for process in (*clients, probe):
            process.wait(30)
    compared = bulk.compare([(_together(client_reports), _together(server_reports))])
    for quantity, value in (
        ("cpu_pct", cpu_pct), ("sessions", compared.sessions), ("failed", compared.failed), ("compared", compared.bytes_compared),
        ("mismatched", compared.bytes_mismatched), ("resets", _resets(lab) - resets),
        ("reconfigured", len(_reconfigured(collector) - known)), ("servers_used", _used(server_reports)),
    ):  # fmt: skip
        record(turn.mode, quantity, value)
    answers = [(at / 1e9, us) for at, us in echo.read_report(raw / "echo.txt") if at / 1e9 > start]
    for at, us in answers:
        record(turn.mode, "rtt_us", us, at)


def _clients(lab: Lab, plan: Plan, raw: Path, seed: int) -> tuple[list[Any], list[Path]]:
    """Lightly loaded sessions of all clients, all connected."""
    address, reports = plan.topology.host(PROXY).address, []
    clients = []
    for i in range(1, plan.hosts + 1):
        reports.append(raw / f"client{i}.jsonl")
        command = bulk.client_command(
            address, proxy_port(i), reports[-1], sessions=plan.sessions, seconds=plan.seconds, interval_ms=1000,
            message=MESSAGE_BYTES, every_us=EVERY_US, base=i * 10000, seed=seed,
        )  # fmt: skip
        clients.append(lab.popen(f"client{i}", command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    for client in clients:
        wait_for(client, "connected")
    return clients, reports


def _together(reports: list[Path]) -> bulk.Report:
    """What several hosts say about their sessions."""
    merged = bulk.Report()
    for report in map(bulk.read_report, reports):
        merged.sessions |= report.sessions
    return merged


def _used(reports: list[Path]) -> int:
    return sum(bool(bulk.read_report(report).sessions) for report in reports)


def _resets(lab: Lab) -> int:
    return sum(tcp_counters(lab.pid(host))[name] for host in lab.topology.names for name in RESETS)


def _reconfigured(collector: Collector) -> set[str]:
    return {event["session"] for event in collector.named("reconfigured")}


# ---- step 2: summary ----


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()

    def values(mode: str, quantity: str) -> list[float]:
        found: list[float] = samples[(samples.subject == mode) & (samples.quantity == quantity)].value.tolist()
        return found

    every = {q: sum(values("stays", q) + values("leaves", q)) for q in ("failed", "compared", "mismatched", "resets")}
    metrics = {
        "sessions": sum(values("leaves", "sessions")),
        "sessions_reconfigured": sum(values("leaves", "reconfigured")) - len(values("leaves", "sessions")),  # less the echo's
        "sessions_failed": every["failed"],
        "bytes_compared": every["compared"],
        "bytes_mismatched": every["mismatched"],
        "resets": every["resets"],
        "servers_used": min(values("stays", "servers_used") + values("leaves", "servers_used")),
    }
    for mode in MODES:
        metrics[f"balancer_cpu_{mode}_pct"] = statistics.mean(values(mode, "cpu_pct"))
        metrics[f"rtt_us_p50_{mode}"] = statistics.median(values(mode, "rtt_us"))
    gain = metrics["rtt_us_p50_stays"] - metrics["rtt_us_p50_leaves"]
    metrics["latency_gained_us"] = gain
    hosts = int(run.manifest()["settings"]["servers"])
    low = [a - metrics["rtt_us_p50_leaves"] for a in median_interval(values("stays", "rtt_us"))]
    return Summary.of(run, [
        claim("left", "sessions that the balancer has left", "all", metrics["sessions_reconfigured"], "",
              f"== {metrics['sessions']:.0f}"),
        claim("failed", "sessions that failed", "0", metrics["sessions_failed"], "", "== 0"),
        claim("bytes", "bytes that differ between the two ends", "0", metrics["bytes_mismatched"], "bytes", "== 0"),
        claim("resets", "TCP resets in all hosts", "0", metrics["resets"], "", "== 0"),
        claim("balanced", "servers that got sessions", "all", metrics["servers_used"], "", f"== {hosts}"),
        claim("cpu", "the balancer's CPU after it has left", "0 %", metrics["balancer_cpu_leaves_pct"], "%", "<= 1"),
        claim("latency", "median round trip gained by leaving", "-", gain, "us", ">= 0", shape=False, ci95=(low[0], low[1])),
    ], metrics)  # fmt: skip


# ---- step 3: figure ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    rounds = len(samples[(samples.subject == "stays") & (samples.quantity == "cpu_pct")])
    with drawing.figure("latency", f"{rounds} runs each", (9, 4), ncols=2, width_ratios=(3, 1)) as (_, (left, right)):
        for mode, colour in zip(MODES, COLOURS, strict=False):
            rtt = samples[(samples.subject == mode) & (samples.quantity == "rtt_us")].value.tolist()
            cdf(left, rtt, colour, LABELS[mode])
            right.bar(LABELS[mode].replace(" ", "\n", 1), summary.metrics[f"balancer_cpu_{mode}_pct"], color=colour)
        left.set(xscale="log", xlabel="round trip of a short message (us)", ylabel="messages (%)")
        left.legend()
        right.set(ylabel="balancer's CPU (% of a core)")
        each = summary.metrics["sessions"] / max(rounds, 1)
        left.set_title(f"{each:.0f} sessions over {summary.metrics['servers_used']:.0f} servers")
    return drawing.paths
