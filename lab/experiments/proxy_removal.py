# SPDX-License-Identifier: Apache-2.0
"""A proxy leaves live TCP sessions (paper V-C, Fig. 12-14).

Four client-server pairs talk through one proxy whose link is the bottleneck.  One pair after the other, all sessions
of a pair lose the proxy while they carry data both ways.  With arms=on further runs throttle windows and lose messages.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.collect import read_events
from lab.experiments import proxy_removal_arms as arms
from lab.experiments.framework.recorder import Recorder
from lab.experiments.proxy_removal_figures import draw
from lab.experiments.proxy_removal_load import THROTTLES, Plan, Seen, carry
from lab.measure import RESETS, TICKS, rates
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tools import bulk, echo
from lab.topologies import Settings
from lab.topologies.proxy import PROXY
from middleboxes.tcp_proxy import BINARY

__all__ = ["CPU_BOUND", "DESCRIPTION", "TOOLS", "draw", "measure", "plan", "summarise"]

DESCRIPTION = "a TCP-terminating proxy leaves 500 live sessions, pair by pair (paper Fig. 12-14)"
TOOLS = (str(bulk.BINARY), str(BINARY))
PROXIES = ("tcp_proxy", "nginx", "haproxy")  # ours, which asks to leave; two that know nothing of Dysco
CPU_BOUND = False
PAPER_P80_US, PAPER_MAX_US = 60, 220
RAMP_S = 1.5  # left out before measuring goodput
SETTLE_S = 1.0  # left out after the last removal
TIMES = ("reconfig_us", "first_byte_us", "old_path_drained_us")


@dataclass(frozen=True)
class Runs:
    """The main run, and how large each arm is if there are any."""

    main: Plan
    arm: Plan | None


def plan(settings: Settings, profile: str) -> Runs:
    scale = 10 if profile == "paper" else 1
    first = settings.integer("first_removal", 4 * scale, 1, 1000)
    step = settings.integer("step", 2 * scale, 1, 1000)
    pairs = settings.integer("pairs", 4, 1, 8)
    sessions = settings.integer("sessions", 125, 1, 2000)
    seconds = settings.integer("seconds", first + step * pairs + 12 * scale, 2, 10000)
    trigger = settings.choice("trigger", "proxy", ("proxy", "client"))
    proxy = settings.choice("proxy", PROXIES[0], PROXIES)
    throttle, loss = settings.choice("throttle", "off", tuple(THROTTLES)), settings.integer("loss", 0, 0, 50)
    further = settings.switch("arms", profile == "paper")
    topology = settings.topology("proxy", pairs=pairs)

    def times(first: float, step: float, seconds: float, interval_s: float, throttle: str, loss: int) -> Plan:
        removals = tuple(float(first + i * step) for i in range(pairs))
        return Plan(topology, pairs, sessions, removals, seconds, interval_s, trigger, proxy, throttle, loss)

    arm = times(3, 2, 3 + 2 * pairs + 6, 0.1, "off", 0) if further and topology.agents else None
    return Runs(times(first, step, seconds, scale / 10, throttle, loss), arm)


# ---- step 1: run ----


def measure(plan: Runs, record: Recorder) -> None:
    record.progress(0.0, "building the network")
    with Lab(plan.main.topology) as lab, record.watched():
        seen = carry(lab, plan.main, record, record.raw)
    record.facts |= seen.facts
    _record(record, plan.main, seen)
    if plan.arm:
        arms.measure(plan.arm, record)
        record.facts["arm_removals_s"] = plan.arm.removals


# ---- samples ----


def _record(record: Recorder, plan: Plan, seen: Seen) -> None:
    _record_goodput(record, plan)
    record.facts |= _told(record.raw, seen.facts)
    _record_times(record, seen.facts)
    _record_proxy(record, seen.proxy)
    for at, us in echo.read_report(record.raw / "echo.txt"):
        record("client1", "rtt_us", us, at / 1e9)

def _record_goodput(record: Recorder, plan: Plan) -> None:
    for pair in range(1, plan.pairs + 1):
        for end_, quantity in (("server", "goodput_up_mbps"), ("client", "goodput_down_mbps")):
            intervals = bulk.read_report(record.raw / f"{end_}{pair}.jsonl").intervals
            for (before, _), (at, received) in itertools.pairwise(intervals):
                record(f"pair{pair}", quantity, received * 8 / 1e6 / ((at - before) / 1e9), at / 1e9)


def _of_pairs(raw: Path, facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Events of the sessions of the pairs; the session for round trips is none of them."""
    return [(host, event) for host, event in read_events(raw) if event.get("session") != facts.get("echo_session")]


def _record_times(record: Recorder, facts: dict[str, Any]) -> None:
    for host, event in _of_pairs(record.raw, facts):
        for name in TIMES if event["event"] == "reconfigured" else ():
            if event[name] is not None:
                record(host, name, event[name], event["ts_ns"] / 1e9)


def _told(raw: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What became of the sessions, as the agents told it."""
    events = [event for _, event in _of_pairs(raw, facts)]
    gone = [event["ts_ns"] for _, event in read_events(raw) if event["event"] == "old_path_gone"]  # of any session
    return {
        "reconfigured": len({event["session"] for event in events if event["event"] == "reconfigured"}),
        "reconfigurations_failed": sum(event["event"] == "reconfig_failed" for event in events),
        "last_gone_s": (max(gone) - facts["zero_ns"]) / 1e9 if gone else None,
    }


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
    if "reconfigured" not in manifest:  # older runs have it in their raw events only
        manifest |= _told(run.raw, manifest)
    metrics = _metrics(run, manifest, samples)
    further, arm_claims = arms.summed_up(samples, manifest.get("arm_removals_s", []))
    testable = bool(manifest["dysco"])
    notes = [] if testable else ["run without agents: what is said about the removal is not testable"]
    if metrics["sessions_failed"]:
        notes.append(f"failed sessions: {json.dumps(_comparison(run, manifest).reasons)}")
    kept = (r for r in manifest["removals"] if r["refused"])
    notes += [f"pair {r['pair']}: {r['refused']} sessions keep the proxy: {r['reason']}" for r in kept]
    return Summary.of(run, _claims(metrics, manifest, testable) + arm_claims, metrics | further, notes)


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
    times = {name: _times(samples, name) for name in TIMES}
    last_gone = manifest["last_gone_s"] or float("inf")
    proxy = samples[samples.subject == "proxy"]
    quiet = proxy[proxy.time_s > last_gone + SETTLE_S]
    packets = quiet[quiet.quantity.isin(["received_pps", "sent_pps"])]
    busy = proxy[(proxy.quantity == "cpu_pct") & (proxy.time_s > RAMP_S) & (proxy.time_s <= removals[0])]
    idle_cpu = quiet[quiet.quantity == "cpu_pct"]
    interval = 1.0 if manifest["profile"] == "paper" else 0.1
    metrics = {
        "sessions": float(compared.sessions),
        "sessions_reconfigured": float(manifest["reconfigured"]),
        "sessions_failed": float(compared.failed),
        "reconfigurations_failed": float(manifest["reconfigurations_failed"]),
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
    metrics |= _round_trips(samples, removals, stop)
    metrics["first_byte_us_p50"] = percentile(times["first_byte_us"], 0.5)
    metrics["old_path_drained_us_p50"] = percentile(times["old_path_drained_us"], 0.5)
    return {name: round(value, 3) for name, value in metrics.items() if math.isfinite(value)}


def _times(samples: Any, quantity: str) -> list[float]:
    """Of the main run's reconfigurations."""
    rows = samples[(samples.quantity == quantity) & ~samples.subject.str.startswith(arms.ARM)]
    found: list[float] = rows.value.tolist()
    return found


def _round_trips(samples: Any, removals: list[float], stop: float) -> dict[str, float]:
    """Medians of a short message among the load of pair 1, with the proxy and without."""
    times = samples[samples.quantity == "rtt_us"].set_index("time_s").value
    windows = {"before": (RAMP_S, removals[0]), "after": (removals[-1] + SETTLE_S, stop)}
    return {f"rtt_us_p50_{name}": float(times[a:b].median()) for name, (a, b) in windows.items()}


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
    trips = [got(f"rtt_us_p50_{when}") for when in ("after", "before")]
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
        claim("round_trip", "round trip of a short message among the load, after over before", "lower",
              trips[0] / trips[1] if trips[0] and trips[1] else None, "", "<= 1", shape=False),
        claim("p80", "reconfiguration time, p80, under load", f"{PAPER_P80_US} us", got("reconfig_us_p80"), "us",
              f"<= {PAPER_P80_US}", shape=False),
        claim("max", "reconfiguration time, largest, under load", f"{PAPER_MAX_US} us", got("reconfig_us_max"), "us",
              f"<= {PAPER_MAX_US}", shape=False),
    ]  # fmt: skip
