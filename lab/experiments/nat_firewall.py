# SPDX-License-Identifier: Apache-2.0
"""Middleboxes come and go beyond a strict firewall and a NAT that know nothing of Dysco (paper V-C, Fig. 15 and 16).

Two clients send to one server through firewall, NAT and a flow monitor.  client2 begins behind limiter1; then limiter1 moves
into the sessions of client1, then limiter2 comes into those of client2.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import conntrack, judge
from lab.capture import capturing
from lab.experiments.framework.figures import COLOURS, Drawing
from lab.experiments.framework.load import Flow, ends, goodput, intact, loaded
from lab.experiments.framework.orders import recorded, when
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import Claim, RunDirectory, Summary, claim
from lab.tools import bulk, longline
from lab.topologies import Settings, Topology
from lab.topologies.border import CLIENTS, PROPORTIONS
from middleboxes.monitors import Prads
from middleboxes.rate_limiter import RateLimiter

DESCRIPTION = "rate limiters move between sessions across a strict firewall and a NAT without agents (paper Fig. 15, 16)"
TOOLS = (str(bulk.BINARY), str(longline.BINARY), "tcpdump", "tshark", "conntrack", "prads")
CPU_BOUND = False
LIMITERS, QUEUE_PACKETS = ("limiter1", "limiter2"), 100  # a few sessions: a long queue would be seconds
STRICT = ("firewall", "nat")  # who follows sequence numbers
LIMITS = {"client1": ("client", "limiter1", "limiter1"), "client2": ("limiter1", "client", "limiter2")}  # by phase
PAPER_GBPS = {"client": "4.4 Gbit/s", "limiter1": "1 Gbit/s", "limiter2": "2.5 Gbit/s"}
Change = tuple[str, dict[str, Any]]
STEPS: tuple[tuple[str, tuple[Change, ...]], ...] = (
    ("limiter1 moves", (("client2", {"remove": "limiter1"}), ("client1", {"insert": ["limiter1"]}))),
    ("limiter2 comes", (("client2", {"insert": ["limiter2"]}),)),
)
DEVIATION_PCT = 15
TIMEOUT_S = 30


@dataclass(frozen=True)
class Plan:
    topology: Topology
    unit_mbps: float  # the rate of limiter1
    sessions: int  # of each client
    phase_s: float
    delay_ms: float  # each way, of the line beyond the NAT: data goes on while a path is made

    @property
    def seconds(self) -> float:
        return self.phase_s * (len(STEPS) + 1)


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    sessions = settings.integer("sessions", 1 if paper else 4, 1, 100)
    phase = settings.integer("phase", 50 if paper else 8, 2, 1000)
    delay = settings.integer("delay", 10, 0, 1000)
    unit = settings.integer("unit", 10, 1, 10_000)
    return Plan(settings.topology("border", unit=unit), float(unit), sessions, float(phase), float(delay))


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    flows = [Flow(name, name, 5000 + i, plan.sessions, "up") for i, name in enumerate(CLIENTS, 1)]
    with Lab(plan.topology) as lab, _boxes(lab, plan, record):
        with _judged(lab, record), loaded(lab, record, flows) as zero, record.watched():
            for number, (name, changes) in enumerate(STEPS, 1):
                record.sleep(zero + number * plan.phase_s - time.monotonic(), f"before: {name}", zero, plan.seconds)
                _change(lab, record, name, changes)
            record.sleep(zero + plan.seconds - time.monotonic(), "all limited", zero, plan.seconds)
            _witness(lab, record)
        for host in STRICT:
            record(host, "invalid_packets", conntrack.invalid(lab, host))


@contextmanager
def _boxes(lab: Lab, plan: Plan, record: Recorder) -> Iterator[None]:
    """What is not the kernel's from the beginning: rate limiters, flow monitor, the length of the line."""
    shaper = plan.topology.shaper
    limiters = {name: RateLimiter(plan.unit_mbps * PROPORTIONS[name], shaper, least_packets=QUEUE_PACKETS) for name in LIMITERS}
    monitor = Prads(record.raw)
    with longline.delayed(lab, "line", ("eth0", "to-nat"), plan.delay_ms), ExitStack() as stack:
        stack.enter_context(lab.box("monitor", monitor))
        for name, limiter in limiters.items():
            stack.enter_context(lab.box(name, limiter))
        yield
    record("monitor", "hosts", monitor.counters()["hosts"])


def _change(lab: Lab, record: Recorder, name: str, changes: tuple[Change, ...]) -> None:
    """All sessions of the clients concerned, at once."""

    def ask(change: Change) -> list[dict[str, Any]]:
        host, what = change
        results: list[dict[str, Any]] = lab.agent(host).request("reconfigure", all=True, timeout_s=TIMEOUT_S, **what)["results"]
        return results

    record(name, "asked", 1)
    with ThreadPoolExecutor(len(changes)) as pool:
        recorded(record, name, [result for results in pool.map(ask, changes) for result in results])


def _witness(lab: Lab, record: Recorder) -> None:
    """The subsessions across the firewall that sessions use now are connections that it knows."""
    for host in CLIENTS:
        live = [s["right"] for s in lab.agent(host).request("sessions")["sessions"] if s["state"] == "established"]
        record(host, "subsessions", len(live))
        record(host, "established", conntrack.established(lab, "firewall", live))


@contextmanager
def _judged(lab: Lab, record: Recorder) -> Iterator[None]:
    """Captures beside both clients; what is judged of them is recorded, the captures are not kept."""
    with tempfile.TemporaryDirectory() as work:
        files = {host: Path(work) / f"{host}.pcap" for host in CLIENTS}
        epoch = time.time() - time.monotonic()
        with ExitStack() as stack:
            for host, file in files.items():
                stack.enter_context(capturing(lab, host, "eth0", file))
            yield
        record.progress(1.0, "judging the captures")
        with ThreadPoolExecutor(len(files)) as pool:
            for host, captured in zip(files, pool.map(judge.judged, files.values()), strict=True):
                _record_paths(record, host, captured, epoch)


def _record_paths(record: Recorder, host: str, captured: judge.Capture, epoch: float) -> None:
    for path in captured.paths:
        at = path.opened_s - epoch
        record(host, "gap_bytes", path.gap_bytes_max, at)
        record(host, "ack_above_bytes", path.ack_above_max, at)
        record(host, "path_reset", path.reset, at)
    for path, beta in judge.betas(captured.paths, "rightward"):
        record(host, "beta_bytes", beta, path.opened_s - epoch)


# ---- step 2 ----


def _rate(manifest: dict[str, Any], limit: str) -> float:
    return float(manifest["settings"]["unit"]) * PROPORTIONS[limit]


def _phases(samples: Any, manifest: dict[str, Any]) -> dict[str, float]:
    """Mean goodput of each client in each phase, its beginning left out: buffers fill or drain."""
    phase, found = float(manifest["settings"]["phase"]), {}
    for client in CLIENTS:
        seconds = goodput(samples, [client], 0.5, ("up",))
        for number in range(len(STEPS) + 1):
            start, stop = number * phase, (number + 1) * phase
            window = seconds[(seconds.index >= start + phase * 0.35) & (seconds.index < stop - 0.5)]
            found[f"goodput_{client}_phase{number + 1}_mbps"] = float(window.mean())
    return found


def summarise(run: RunDirectory) -> Summary:
    samples, manifest = run.samples(), run.manifest()
    value = {name: samples[samples.quantity == name].value for name in samples.quantity.unique()}
    phases, betas = _phases(samples, manifest), value["beta_bytes"]
    metrics = {
        **ends(samples),
        "sessions_reconfigured": float(value["reconfigured"].sum()),
        "reconfigurations": float(len(value["reconfigured"])),
        **phases,
        "conntrack_invalid": float(value["invalid_packets"].sum()),
        "conntrack_established": float(value["established"].sum()),
        "monitor_hosts": float(samples[(samples.subject == "monitor") & (samples.quantity == "hosts")].value.sum()),
        "paths_judged": float(len(value["gap_bytes"])),
        "beta_gap_bytes_max": float(value["gap_bytes"].max()),
        "ack_above_bytes_max": float(value["ack_above_bytes"].max()),
        "betas_nonzero_pct": 100 * float((betas > 0).mean()),
        "beta_bytes_p50": float(betas.median()),
        "reconfig_us_p50": float(value["reconfig_us"].median()),
        "old_path_drained_us_p50": float(value["old_path_drained_us"].median()),
    }
    subsessions = float(value["subsessions"].sum())
    return Summary.of(run, [*_steps(phases, manifest), *_path_claims(metrics, subsessions), *intact(metrics)], metrics)


def _steps(phases: dict[str, float], manifest: dict[str, Any]) -> list[Claim]:
    """Fig. 16: each client in each phase gets what its narrowest middlebox lets through."""
    claims, worst = [], 0.0
    for client, limits in LIMITS.items():
        for number, limit in enumerate(limits, 1):
            name, rate = f"goodput_{client}_phase{number}_mbps", _rate(manifest, limit)
            worst = max(worst, 100 * abs(phases[name] / rate - 1))
            where = "its own link" if limit == "client" else limit
            claims.append(claim(f"{client}-{number}", f"goodput of {client} in phase {number}, limited by {where}",
                                PAPER_GBPS[limit], phases[name], f"of {rate:g} Mbit/s", f">= {rate * 0.85:.3f}"))  # fmt: skip
    claims.append(claim("steps", "largest deviation of a step from its limit; limits as 1 : 2.5 : 4.4", "follows the limits",
                        worst, "%", f"<= {DEVIATION_PCT}"))  # fmt: skip
    return claims


def _path_claims(m: dict[str, float], subsessions: float) -> list[Claim]:
    return [
        claim("reconfigured", "reconfigurations done across firewall and NAT", "all", m["sessions_reconfigured"], "",
              f"== {m['reconfigurations']:.0f}"),
        claim("invalid", "packets that firewall or NAT call INVALID", "0", m["conntrack_invalid"], "", "== 0"),
        claim("established", "subsessions in use that the firewall has ESTABLISHED", "all", m["conntrack_established"], "",
              f"== {subsessions:.0f}"),
        claim("gap", "bytes skipped on a new path, from captures", "0", m["beta_gap_bytes_max"], "bytes", "== 0"),
        claim("acks", "acknowledgments above what a path carried, from captures", "0", m["ack_above_bytes_max"], "bytes",
              "== 0"),
        claim("monitor", "hosts that the flow monitor has found", "-", m["monitor_hosts"], "", ">= 2"),
        claim("betas", "reconfigurations whose beta is not zero", "-", m["betas_nonzero_pct"], "%", ">= 50"),
    ]  # fmt: skip


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples, manifest = Drawing(run, summary), run.samples(), run.manifest()
    asked = [(name, when(samples, name)) for name, _ in STEPS]
    _draw_goodput(drawing, samples, manifest, asked)
    _draw_betas(drawing, samples)
    return drawing.paths


def _draw_goodput(drawing: Drawing, samples: Any, manifest: dict[str, Any], asked: list[tuple[str, float]]) -> None:
    window = 1.0 if manifest["profile"] == "paper" else 0.25
    caption = f"1 run, {manifest['settings']['sessions']} session(s) of each client; windows of {window:g} s"
    with drawing.figure("goodput", caption, (9, 4.4)) as (_, axis):
        for client, colour, line in (("client1", COLOURS[5], "--"), ("client2", COLOURS[0], "-")):
            values = goodput(samples, [client], window, ("up",))
            axis.plot(values.index[1:-1], values.values[1:-1], color=colour, linestyle=line, linewidth=1.8, label=client)
        stop = float(manifest["settings"]["phase"]) * (len(STEPS) + 1)
        for limit, label in (("limiter1", "limiter1"), ("limiter2", "limiter2"), ("client", "clients' links")):
            axis.axhline(_rate(manifest, limit), color="black", linewidth=0.8, linestyle=":")
            axis.annotate(label, (stop, _rate(manifest, limit)), xytext=(4, -3), textcoords="offset points", fontsize=9)
        top = _rate(manifest, "client") * 1.25
        for name, at in asked:
            axis.axvline(at, color="#555555", linewidth=1)
            axis.annotate(name, (at, top), xytext=(4, -12), textcoords="offset points", fontsize=10)
        axis.set(xlabel="time (s)", ylabel="goodput (Mbit/s)", xlim=(0, stop), ylim=(0, top))
        axis.set_title("Rate limiters move between live sessions, beyond a firewall and a NAT without agents")
        axis.legend(loc="center left", bbox_to_anchor=(0.0, 0.62))


def _draw_betas(drawing: Drawing, samples: Any) -> None:
    """Each reconfiguration: what would have been a gap, and what was one."""
    betas = samples[samples.quantity == "beta_bytes"].sort_values(["subject", "time_s"])
    gaps = samples[samples.quantity == "gap_bytes"].groupby(["subject", "time_s"]).value.max() / 1000
    caption = "1 run; each bar one new path, from captures beside the clients"
    with drawing.figure("betas", caption, (9, 3.6)) as (_, axis):
        for number, row in enumerate(betas.itertuples(), 1):
            colour = COLOURS[5] if row.subject == "client1" else COLOURS[0]
            axis.bar(number, row.value / 1000, 0.7, color=colour, label=f"beta, {row.subject}")
            axis.plot(
                number, gaps[row.subject, row.time_s], "x", color="black", markersize=9, clip_on=False, label="gap on the wire"
            )
        axis.set(xlabel="reconfiguration", ylabel="kilobytes", xticks=range(1, len(betas) + 1))
        axis.set_title("Sent on the old path while the new one was made: no gap for the firewall to see")
        handles, labels = axis.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        axis.legend(named.values(), named.keys(), loc="best", fontsize=9)
