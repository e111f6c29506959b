# SPDX-License-Identifier: Apache-2.0
"""What one pass of the DPDK agent costs, beside plain forwarding of the same bursts in the same run.

dysco-dpdk-bench sets real sessions up, visits them at random in both directions and checks every frame that comes out: on one
core, on two (frames spread by the NIC's hash, or by the cores), and while sessions are reconfigured.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments.framework.figures import COLOURS, Drawing
from lab.experiments.framework.recorder import Recorder
from lab.results import ROOT, RunDirectory, Summary, claim
from lab.statistics import median_interval
from lab.tool import run as run_tool
from lab.topologies import Settings

PROGRAM = ROOT / "build" / "dysco-dpdk-bench"
DESCRIPTION = "DPDK: extra time of one agent pass over plain forwarding; one core and two; while sessions are reconfigured"
TOOLS = (str(PROGRAM),)
CPU_BOUND = True
COUNTS = {"1k": (1_000, 18.0, "35-38"), "60k": (60_000, 70.0, "155-190"), "1m": (1_000_000, 110.0, "274-312")}
SIZES = (64, 128, 256, 512, 1024, 1280, 1518)  # paper Fig. 9; bytes with the frame check sequence
SMALLEST, OF_SIZES = 64, "60k"
WAYS = ("egress", "ingress")
SPREADINGS = {"two_hash": "hash", "two_hand": "hand"}  # how frames come to two cores
RECONFIGURED, RECONF_FRAMES = 1_000, 6_000_000  # sessions a second; frames


@dataclass(frozen=True)
class Plan:
    rounds: int
    batches: int  # of 2048 frames, in each round


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    return Plan(
        settings.integer("rounds", 15 if paper else 9, 1, 100), settings.integer("batches", 200 if paper else 60, 1, 1000)
    )


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    for step, (name, (sessions, _, _)) in enumerate(COUNTS.items()):
        record.progress(step / 8, f"{sessions} sessions")
        _passes(record, name, sessions, plan, 0, SIZES if name == OF_SIZES else (SMALLEST,))
    record.progress(0.5, "signed set-ups")
    _passes(record, "signed", COUNTS[OF_SIZES][0], Plan(0, 1), 1, ())
    if len(os.sched_getaffinity(0)) > 1:
        for step, (name, spreading) in enumerate(SPREADINGS.items()):
            record.progress(0.6 + step / 10, f"two cores, spread by {spreading}")
            _passes(record, name, COUNTS[OF_SIZES][0], plan, 0, (SMALLEST,), 2, spreading)
    record.progress(0.8, f"{RECONFIGURED} sessions a second reconfigured")
    _program(record, "moving", "reconfigure", COUNTS[OF_SIZES][0], RECONF_FRAMES, RECONFIGURED)


def _passes(record: Recorder, name: str, sessions: int, plan: Plan, sign: int, sizes: tuple[int, ...], cores: int = 1,
            spreading: str = "hash") -> None:  # fmt: skip
    _program(record, name, cores, spreading, sessions, plan.rounds, plan.batches, sign, *sizes)


def _program(record: Recorder, name: str, *arguments: int | str) -> None:
    """Each line that it prints is an observation."""
    said = run_tool([str(PROGRAM), *map(str, arguments)])
    (record.raw / f"{name}.csv").write_text(said)
    for subject, quantity, value in (line.split(",") for line in said.splitlines()):
        record(f"{name}_{subject}", quantity, float(value))


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str = "ns_per_packet") -> list[float]:
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    return [float(value) for value in rows.value]


def _extra(samples: Any, name: str, size: int, ways: tuple[str, ...] = WAYS) -> list[float]:
    """By round: the pass (the mean of both directions) less plain forwarding, ns."""
    plain = _values(samples, f"{name}_plain_{size}")
    passes = zip(*(_values(samples, f"{name}_{way}_{size}") for way in ways), strict=True)
    return [statistics.mean(both) - base for both, base in zip(passes, plain, strict=True)]


def _mpps(samples: Any, name: str) -> float:
    """Million frames a second through the agent: the mean of both directions, all cores together."""
    return 1e3 / statistics.mean(statistics.median(_values(samples, f"{name}_{way}_{SMALLEST}")) for way in WAYS)


def _of_cores(samples: Any) -> dict[str, float]:
    metrics = {"mpps_1_core": _mpps(samples, OF_SIZES)}
    for name, spreading in SPREADINGS.items():
        if _values(samples, f"{name}_setup", "setup_per_second"):
            metrics[f"mpps_2_cores_by_{spreading}"] = _mpps(samples, name)
            metrics[f"handed_on_pct_by_{spreading}"] = _values(samples, f"{name}_cores", "handed_on_pct")[0]
    return metrics


def _while_reconfiguring(samples: Any) -> dict[str, float]:
    def of(subject: str, quantity: str) -> float:
        return _values(samples, f"moving_{subject}", quantity)[0]

    return {
        "mpps_calm": 1e3 / of("calm", "ns_per_packet"),
        "mpps_reconfiguring": 1e3 / of("reconfiguring", "ns_per_packet"),
        "reconfigured_per_second": of("reconfiguring", "reconfigured_per_second"),
        "reconfigurations_failed": of("check", "failed") + of("check", "unfinished"),
        "reconfiguring_bytes_lost": of("check", "bytes_lost"),
    }


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()
    metrics: dict[str, float] = {}
    claims = []
    for name, (sessions, bound, before) in COUNTS.items():
        extra = _extra(samples, name, SMALLEST)
        metrics[f"extra_ns_{name}"] = statistics.median(extra)
        for way in WAYS:
            metrics[f"extra_ns_{name}_{way}"] = statistics.median(_extra(samples, name, SMALLEST, (way,)))
        statement = f"one agent pass over plain forwarding, {sessions} sessions"
        claims.append(claim(f"extra_ns_{name}", statement, f"{before} ns (BESS)",
                            metrics[f"extra_ns_{name}"], "ns", f"<= {bound}", shape=False,
                            ci95=median_interval(extra)))  # fmt: skip
    for size in SIZES:
        plain = statistics.median(_values(samples, f"{OF_SIZES}_plain_{size}"))
        extra_ns = statistics.median(_extra(samples, OF_SIZES, size))
        metrics[f"penalty_pct_{size}"] = 100 * extra_ns / (plain + extra_ns)
        metrics[f"agent_mpps_{size}"] = 1e3 / (plain + extra_ns)
    metrics["baseline_mpps"] = 1e3 / statistics.median(_values(samples, f"{OF_SIZES}_plain_{SMALLEST}"))
    runs = (*COUNTS, "signed", *SPREADINGS, "moving")
    metrics["frames_checked"] = sum(sum(_values(samples, f"{name}_check", "frames")) for name in runs)
    metrics["checksums_bad"] = sum(sum(_values(samples, f"{name}_check", "checksums_bad")) for name in runs)
    metrics["memory_grown_mb"] = sum(_values(samples, f"{name}_check", "grown_bytes")[0] for name in COUNTS) / 1e6
    metrics["setup_per_second"] = _values(samples, "1m_setup", "setup_per_second")[0]
    metrics["setup_hmac_per_second"] = _values(samples, "signed_setup", "setup_per_second")[0]
    metrics["bytes_per_session"] = _values(samples, "1m_setup", "bytes_per_session")[0]
    metrics |= _of_cores(samples) | _while_reconfiguring(samples)
    claims += [
        claim("lost", "bytes lost while sessions are reconfigured", "0", metrics["reconfiguring_bytes_lost"], "", "== 0"),
        claim("failed", "reconfigurations that have failed, or not ended", "0", metrics["reconfigurations_failed"], "", "== 0"),
        claim("checksums", "frames with a wrong checksum, or lost", "0", metrics["checksums_bad"], "", "== 0"),
        claim("growth", "memory that these frames have cost, in all", "-", metrics["memory_grown_mb"], "MB", "<= 1"),
        claim("setup", "sessions set up on one core (three segments)", "400000 /s (BESS)", metrics["setup_per_second"], "/s",
              ">= 200000", shape=False),
        claim("memory", "memory of one session of a million", "-", metrics["bytes_per_session"], "B", "<= 512", shape=False),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics, ["frames stay in memory: no NIC, no copy; the loss is that of the processor alone"])


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    """Extra time by sessions, and packets per second by frame size (paper Fig. 9)."""
    drawing, samples = Drawing(run, summary), run.samples()
    with drawing.figure("dpdk-pass", "1 run, medians of its rounds", (10.0, 4.0), ncols=2) as (_, (left, right)):
        ours = [statistics.median(_extra(samples, name, SMALLEST)) for name in COUNTS]
        left.bar(range(len(ours)), ours, color=COLOURS[0])
        left.set_xticks(range(len(ours)), [f"{sessions:,}" for sessions, _, _ in COUNTS.values()])
        left.set(xlabel="sessions, visited at random", ylabel="extra time of a pass (ns)")
        for way, colour in (("plain", COLOURS[1]), ("egress", COLOURS[0])):
            rates = [1e3 / statistics.median(_values(samples, f"{OF_SIZES}_{way}_{size}")) for size in SIZES]
            right.plot(SIZES, rates, color=colour, marker="o", label="plain" if way == "plain" else "agent")
        right.set_ylim(bottom=0)
        right.set(xlabel="frame (bytes)", ylabel="million frames/s, one core")
        right.legend()
    return drawing.paths
