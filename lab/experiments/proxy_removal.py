# SPDX-License-Identifier: Apache-2.0
"""A proxy leaves live TCP sessions (paper V-C, Fig. 12-14).

Four client-server pairs talk through one proxy whose link is the bottleneck.  One pair after the other, all sessions
of a pair lose the proxy while they carry data both ways.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.collect import collecting, read_events
from lab.experiments.framework.recorder import Recorder
from lab.experiments.proxy_removal_figures import draw
from lab.measure import RESETS, TICKS, Sampler, cpu_ticks, interface_packets, rates, tcp_counters, with_children
from lab.network import Lab, LabFailed, end, wait_for, wait_until
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tools import bulk
from lab.topologies import Settings, Topology
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.box import ProcessBox
from middleboxes.control import Leaves
from middleboxes.haproxy import HAProxy
from middleboxes.nginx import Nginx
from middleboxes.tcp_proxy import BINARY, TcpProxy

__all__ = ["CPU_BOUND", "DESCRIPTION", "TOOLS", "draw", "measure", "plan", "summarise"]

DESCRIPTION = "a TCP-terminating proxy leaves 500 live sessions, pair by pair (paper Fig. 12-14)"
TOOLS = (str(bulk.BINARY), str(BINARY))
PROXIES = ("tcp_proxy", "nginx", "haproxy")  # ours, which asks to leave; two that know nothing of Dysco
CPU_BOUND = False
PAPER_P80_US, PAPER_MAX_US = 60, 220
RAMP_S = 1.5  # left out before measuring goodput
SETTLE_S = 1.0  # left out after the last removal
DRAIN_TIMEOUT_S = 20.0
ACCEPT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Plan:
    """When what happens, in seconds; how many sessions in each pair."""

    topology: Topology
    pairs: int
    sessions: int
    removals: tuple[float, ...]
    seconds: float
    interval_s: float
    trigger: str  # proxy: it asks to leave; client: it only joins, the client's agent is told
    proxy: str  # one of PROXIES


def plan(settings: Settings, profile: str) -> Plan:
    scale = 10 if profile == "paper" else 1
    first = settings.integer("first_removal", 4 * scale, 1, 1000)
    step = settings.integer("step", 2 * scale, 1, 1000)
    pairs = settings.integer("pairs", 4, 1, 8)
    sessions = settings.integer("sessions", 125, 1, 2000)
    seconds = settings.integer("seconds", first + step * pairs + 12 * scale, 2, 10000)
    trigger = settings.choice("trigger", "proxy", ("proxy", "client"))
    proxy = settings.choice("proxy", PROXIES[0], PROXIES)
    removals = tuple(float(first + i * step) for i in range(pairs))
    topology = settings.topology("proxy", pairs=pairs)
    return Plan(topology, pairs, sessions, removals, float(seconds), scale / 10, trigger, proxy)


# ---- step 1: run ----


def measure(plan: Plan, record: Recorder) -> None:
    record.progress(0.0, "building the network")
    with Lab(plan.topology) as lab, ExitStack() as stack:
        _load(lab, plan, record, stack)
    _record_goodput(record, plan)


def _proxy(plan: Plan, raw: Path) -> TcpProxy | Nginx | HAProxy:
    topology = plan.topology
    routes = {proxy_port(i): (topology.host(f"server{i}").address, server_port(i)) for i in range(1, plan.pairs + 1)}
    if plan.proxy == "tcp_proxy":
        return TcpProxy(routes, raw / "proxy.sock", "command" if topology.agents else "never", topology.congestion)
    relays, when = {port: [to] for port, to in routes.items()}, "command" if topology.agents else "none"
    return Nginx(raw, stream=relays, leave_when=when) if plan.proxy == "nginx" else HAProxy(raw, tcp=relays, leave_when=when)


def _load(lab: Lab, plan: Plan, record: Recorder, stack: ExitStack) -> None:
    """All sessions of all pairs from their start to their end, and what everything counted meanwhile."""
    topology, raw = plan.topology, record.raw
    proxy = _proxy(plan, raw)
    servers = [_server(lab, plan, raw, pair, stack) for pair in range(1, plan.pairs + 1)]
    stack.enter_context(lab.box(PROXY, proxy))
    collector = stack.enter_context(collecting(lab, raw))
    before = {name: tcp_counters(lab.pid(name)) for name in topology.names}
    sampler = Sampler(plan.interval_s, _probe(proxy, lab.pid(PROXY)))
    sampler.start()
    zero = record.zero()
    with record.watched():
        clients = [_client(lab, plan, record, pair) for pair in range(1, plan.pairs + 1)]
        for client in clients:
            wait_for(client, "connected")
        total = plan.pairs * plan.sessions
        with suppress(LabFailed):  # connected is what the kernel has taken: the proxy may be behind
            wait_until(lambda: proxy.counters().get("open", total) >= total, ACCEPT_TIMEOUT_S, "all accepted")
        removals = _remove_pairs(lab, plan, proxy, zero, record)
        _wait_for_end(clients, plan, zero, record)
        record.progress(0.97, "draining")
        for client in clients:
            client.wait(DRAIN_TIMEOUT_S + 30)
    if topology.agents:
        with suppress(LabFailed):  # the summary counts what is missing
            wait_until(lambda: len(collector.ended()) >= total, 3.0, "reconfigurations reported")
    time.sleep(0.3)
    rows = sampler.finish()
    sockets = lab.run(PROXY, ["ss", "-Htan", "state", "connected", "exclude", "time-wait"]).splitlines()
    after = {name: tcp_counters(lab.pid(name)) for name in topology.names}
    _record_proxy(record, rows)
    (raw / "tcp.json").write_text(json.dumps({"before": before, "after": after}))
    (raw / "agents.json").write_text(json.dumps({n: lab.agent(n).request("stats")["counters"] for n in lab.state.agents}))
    for server in servers:
        end(server)
    record.facts |= {
        "topology": topology.name, "dysco": topology.agents, "removals_s": plan.removals, "load_s": plan.seconds,
        "zero_ns": int(zero * 1e9), "removals": removals, "proxy_sockets_after": len(sockets),
    }  # fmt: skip


def _probe(proxy: ProcessBox, namespace: int) -> Any:
    assert proxy.process
    processes = with_children(proxy.process.pid)

    def probe(_: float) -> dict[str, float]:
        received, sent = interface_packets(namespace, "eth0")
        return {"cpu_ticks": sum(map(cpu_ticks, processes)), "received": received, "sent": sent}

    return probe


def _server(lab: Lab, plan: Plan, raw: Path, pair: int, stack: ExitStack) -> Any:
    address = plan.topology.host(f"server{pair}").address
    command = bulk.server_command(address, server_port(pair), raw / f"server{pair}.jsonl", int(plan.interval_s * 1000))
    return stack.enter_context(lab.service(f"server{pair}", [*command, "--congestion", plan.topology.congestion]))


def _client(lab: Lab, plan: Plan, record: Recorder, pair: int) -> Any:
    command = bulk.client_command(
        plan.topology.host(PROXY).address, proxy_port(pair), record.raw / f"client{pair}.jsonl", sessions=plan.sessions,
        seconds=plan.seconds, interval_ms=int(plan.interval_s * 1000), base=pair * 10000, seed=record.seed,
    )  # fmt: skip
    command += ["--congestion", plan.topology.congestion]
    return lab.popen(f"client{pair}", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _remove_pairs(lab: Lab, plan: Plan, proxy: Leaves, zero: float, record: Recorder) -> list[dict[str, Any]]:
    removals = []
    for pair, at in enumerate(plan.removals, 1):
        now = time.monotonic() - zero
        record.sleep(max(at - now, 0), f"{pair - 1} of {plan.pairs} pairs without the proxy", zero, plan.seconds)
        if not plan.topology.agents:
            continue
        started = time.monotonic() - zero
        reply = proxy.leave(proxy_port(pair), join_only=plan.trigger == "client")
        if plan.trigger == "client":
            lab.agent(f"client{pair}").request("reconfigure", all=True, remove=PROXY, wait=False)
        removals.append({"pair": pair, "at_s": started, **reply})
    return removals


def _wait_for_end(clients: list[Any], plan: Plan, zero: float, record: Recorder) -> None:
    while time.monotonic() - zero < plan.seconds and any(c.poll() is None for c in clients):
        record.sleep(0.1, "all pairs without the proxy", zero, plan.seconds)


# ---- samples ----


def _record_goodput(record: Recorder, plan: Plan) -> None:
    for pair in range(1, plan.pairs + 1):
        for end_, quantity in (("server", "goodput_up_mbps"), ("client", "goodput_down_mbps")):
            intervals = bulk.read_report(record.raw / f"{end_}{pair}.jsonl").intervals
            for (before, _), (at, received) in itertools.pairwise(intervals):
                record(f"pair{pair}", quantity, received * 8 / 1e6 / ((at - before) / 1e9), at / 1e9)
    for host, event in read_events(record.raw):
        if event["event"] == "reconfigured":
            for name in ("reconfig_us", "first_byte_us", "old_path_drained_us"):
                if event[name] is not None:
                    record(host, name, event[name], event["ts_ns"] / 1e9)


def _record_proxy(record: Recorder, rows: list[tuple[float, dict[str, float]]]) -> None:
    for name, quantity, per in (
        ("cpu_ticks", "cpu_pct", TICKS / 100),
        ("received", "received_pps", 1.0),
        ("sent", "sent_pps", 1.0),
    ):
        for at, value in rates(rows, name, per):
            record(PROXY, quantity, value, at)


# ---- step 2: summary ----


def summarise(run: RunDirectory) -> Summary:
    manifest, samples = run.manifest(), run.samples()
    metrics = _metrics(run, manifest, samples)
    testable = bool(manifest["dysco"])
    notes = [] if testable else ["run without agents: what is said about the removal is not testable"]
    if metrics["sessions_failed"]:
        notes.append(f"failed sessions: {json.dumps(_comparison(run, manifest).reasons)}")
    kept = (r for r in manifest["removals"] if r["refused"])
    notes += [f"pair {r['pair']}: {r['refused']} sessions keep the proxy: {r['reason']}" for r in kept]
    return Summary.of(run, _claims(metrics, manifest, testable), metrics, notes)


def _comparison(run: RunDirectory, manifest: dict[str, Any]) -> bulk.Comparison:
    pairs = range(1, len(manifest["removals_s"]) + 1)
    reports = [(bulk.read_report(run.raw / f"client{i}.jsonl"), bulk.read_report(run.raw / f"server{i}.jsonl")) for i in pairs]
    return bulk.compare(reports)


def _window(samples: Any, start: float, stop: float) -> float:
    """Median over time of the goodput of all pairs, both directions, in Mbit/s."""
    rows = samples[samples.quantity.str.startswith("goodput") & (samples.time_s > start) & (samples.time_s <= stop)]
    if rows.empty:
        return 0.0
    step = max(0.1, (stop - start) / 20)
    bins = rows.groupby([(rows.time_s / step).astype(int), "subject", "quantity"]).value.mean()
    return float(bins.groupby(level=0).sum().median())


def _metrics(run: RunDirectory, manifest: dict[str, Any], samples: Any) -> dict[str, float]:
    compared = _comparison(run, manifest)
    removals = manifest["removals_s"]
    stop = float(manifest["load_s"]) - 0.5
    settings = manifest["settings"]
    tcp = json.loads((run.raw / "tcp.json").read_text())
    events = [event for _, event in read_events(run.raw)]
    times = {
        name: [e[name] for e in events if e["event"] == "reconfigured" and e[name] is not None]
        for name in ("reconfig_us", "first_byte_us", "old_path_drained_us")
    }
    gone = [e["ts_ns"] for e in events if e["event"] == "old_path_gone"]
    last_gone = (max(gone) - manifest["zero_ns"]) / 1e9 if gone else float("inf")
    proxy = samples[samples.subject == "proxy"]
    quiet = proxy[proxy.time_s > last_gone + SETTLE_S]
    packets = quiet[quiet.quantity.isin(["received_pps", "sent_pps"])]
    busy = proxy[(proxy.quantity == "cpu_pct") & (proxy.time_s > RAMP_S) & (proxy.time_s <= removals[0])]
    idle_cpu = quiet[quiet.quantity == "cpu_pct"]
    interval = 1.0 if manifest["profile"] == "paper" else 0.1
    reconfigured = len({e["session"] for e in events if e["event"] == "reconfigured"})
    metrics = {
        "sessions": float(compared.sessions),
        "sessions_reconfigured": float(reconfigured),
        "sessions_failed": float(compared.failed),
        "reconfigurations_failed": float(sum(e["event"] == "reconfig_failed" for e in events)),
        "bytes_compared": float(compared.bytes_compared),
        "bytes_mismatched": float(compared.bytes_mismatched),
        "resets": float(sum(_grown(tcp, name) for name in RESETS)),
        "retransmitted_segments": float(_grown(tcp, "TcpRetransSegs")),
        "goodput_before_mbps": _window(samples, RAMP_S, removals[0]),
        "goodput_after_mbps": _window(samples, removals[-1] + SETTLE_S, stop),
        "proxy_link_mbps": float(settings["proxy_mbps"]) if settings["proxy_mbps"] != "none" else 0.0,
        "direct_link_mbps": 2 * len(removals) * float(settings["direct_mbps"]) if settings["direct_mbps"] != "none" else 0.0,
        "proxy_packets_after": float(round(packets.value.sum() * interval)) if not packets.empty else float("nan"),
        "proxy_cpu_before_pct": float(busy.value.mean()) if not busy.empty else 0.0,
        "proxy_cpu_after_pct": float(idle_cpu.value.mean()) if not idle_cpu.empty else float("nan"),
        "proxy_sockets_after": float(manifest["proxy_sockets_after"]),
    }
    for name, share in (("p50", 0.5), ("p80", 0.8), ("p99", 0.99), ("max", 1.0)):
        metrics[f"reconfig_us_{name}"] = percentile(times["reconfig_us"], share)
    metrics["first_byte_us_p50"] = percentile(times["first_byte_us"], 0.5)
    metrics["old_path_drained_us_p50"] = percentile(times["old_path_drained_us"], 0.5)
    return {name: round(value, 3) for name, value in metrics.items() if math.isfinite(value)}


def _grown(tcp: dict[str, Any], name: str) -> int:
    """By how much a counter has grown in all hosts together."""
    return sum(int(tcp["after"][host][name]) - int(tcp["before"][host][name]) for host in tcp["after"])


def _claims(m: dict[str, float], manifest: dict[str, Any], testable: bool) -> list[Any]:
    def got(name: str) -> float | None:
        return m.get(name) if testable else None

    sessions = m["sessions"]
    before = m["goodput_before_mbps"] / m["proxy_link_mbps"] if m["proxy_link_mbps"] else None
    after = m["goodput_after_mbps"] / m["direct_link_mbps"] if m["direct_link_mbps"] and testable else None
    gain = m["goodput_after_mbps"] / m["goodput_before_mbps"] if testable and m["goodput_before_mbps"] else None
    return [
        claim("reconfigured", "sessions that lost the proxy", "all", got("sessions_reconfigured"), "", f"== {sessions:.0f}"),
        claim("failed", "sessions that failed", "0", m["sessions_failed"], "", "== 0"),
        claim("bytes", "bytes that differ between the two ends", "0", m["bytes_mismatched"], "bytes", "== 0"),
        claim("compared", "bytes compared", "-", m["bytes_compared"], "bytes", ">= 1e9", shape=False),
        claim("resets", "TCP resets in all hosts", "0", m["resets"], "", "== 0"),
        claim("silent", "packets at the proxy after it has left", "0", got("proxy_packets_after"), "", "== 0"),
        claim("sockets", "proxy sockets still open at the end", "0", m["proxy_sockets_after"], "", "== 0"),
        claim("cpu", "proxy CPU after it has left", "0 %", got("proxy_cpu_after_pct"), "%", "<= 1"),
        claim("before", "goodput over the proxy link's rate, before", "about 1", before, "", ">= 0.9"),
        claim("after", "goodput over the direct links' rate, after", "about 1", after, "", ">= 0.9"),
        claim("gain", "goodput after over before", "rises in steps", gain, "", ">= 1.2"),
        claim("p80", "reconfiguration time, p80, under load", f"{PAPER_P80_US} us", got("reconfig_us_p80"), "us",
              f"<= {PAPER_P80_US}", shape=False),
        claim("max", "reconfiguration time, largest, under load", f"{PAPER_MAX_US} us", got("reconfig_us_max"), "us",
              f"<= {PAPER_MAX_US}", shape=False),
    ]  # fmt: skip
