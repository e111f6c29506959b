# SPDX-License-Identifier: Apache-2.0
"""What one pass of the DPDK agent costs on one core, beside plain forwarding of the same bursts in the same run.

dysco-dpdk-bench sets real sessions up, visits them at random in both directions and checks every frame that comes out.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from lab.experiments import Options
from lab.results import ROOT, RunDirectory, Summary, claim
from lab.statistics import median_interval
from lab.tool import run as run_tool

DESCRIPTION = "DPDK: extra time of one agent pass over plain forwarding, by sessions and frame size"
PROGRAM = ROOT / "build" / "dysco-dpdk-bench"
COUNTS = {"1k": (1_000, 18.0, "35-38"), "60k": (60_000, 70.0, "155-190"), "1m": (1_000_000, 110.0, "274-312")}
SIZES = (64, 128, 256, 512, 1024, 1280, 1518)  # paper Fig. 9; bytes with the frame check sequence
SMALLEST, OF_SIZES = 64, "60k"
WAYS = ("egress", "ingress")
Row = tuple[str, str, float]


# ---- step 1 ----


def _program(raw: Path, name: str, sessions: int, rounds: int, batches: int, sign: int, sizes: tuple[int, ...]) -> list[Row]:
    argv = [str(PROGRAM), *map(str, (sessions, rounds, batches, sign, *sizes))]
    done = run_tool(argv)
    (raw / f"{name}.csv").write_text(done)
    rows = (line.split(",") for line in done.splitlines())
    return [(f"{name}_{subject}", quantity, float(value)) for subject, quantity, value in rows]


def run(directory: RunDirectory, options: Options) -> None:
    subprocess.run(["make", "-s", "-C", str(ROOT), "build/dysco-dpdk-bench"], check=True)
    scale = {"rounds": 15, "batches": 200} if options.profile == "paper" else {"rounds": 9, "batches": 60}
    rows: list[Row] = []
    started = time.time()
    for step, (name, (sessions, _, _)) in enumerate(COUNTS.items()):
        options.progress(step / 4, f"{sessions} sessions")
        sizes = SIZES if name == OF_SIZES else (SMALLEST,)
        rows += _program(directory.raw, name, sessions, scale["rounds"], scale["batches"], 0, sizes)
    options.progress(0.8, "signed set-ups")
    rows += _program(directory.raw, "signed", COUNTS["60k"][0], 0, 1, 1, ())
    directory.write_samples([(0.0, subject, quantity, value) for subject, quantity, value in rows])
    directory.write_manifest(
        experiment="bench-dpdk", profile=options.profile, seed=options.seed, settings=scale, started=started,
        duration_s=time.time() - started,
    )  # fmt: skip


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str = "ns_per_packet") -> list[float]:
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    return [float(value) for value in rows.value]


def _extra(samples: Any, name: str, size: int, ways: tuple[str, ...] = WAYS) -> list[float]:
    """By round: the pass (the mean of both directions) less plain forwarding, ns."""
    plain = _values(samples, f"{name}_plain_{size}")
    passes = zip(*(_values(samples, f"{name}_{way}_{size}") for way in ways), strict=True)
    return [statistics.mean(both) - base for both, base in zip(passes, plain, strict=True)]


def summarise(directory: RunDirectory) -> Summary:
    samples, manifest = directory.samples(), directory.manifest()
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
    metrics["frames_checked"] = sum(sum(_values(samples, f"{name}_check", "frames")) for name in (*COUNTS, "signed"))
    metrics["checksums_bad"] = sum(sum(_values(samples, f"{name}_check", "checksums_bad")) for name in (*COUNTS, "signed"))
    metrics["memory_grown_mb"] = sum(_values(samples, f"{name}_check", "grown_bytes")[0] for name in COUNTS) / 1e6
    metrics["setup_per_second"] = min(_values(samples, f"{name}_setup", "setup_per_second")[0] for name in COUNTS)
    metrics["setup_hmac_per_second"] = _values(samples, "signed_setup", "setup_per_second")[0]
    metrics["bytes_per_session"] = _values(samples, "1m_setup", "bytes_per_session")[0]
    claims += [
        claim("checksums", "frames with a wrong checksum, or lost", "0", metrics["checksums_bad"], "", "== 0"),
        claim("growth", "memory that these frames have cost, in all", "-", metrics["memory_grown_mb"], "MB", "<= 1"),
        claim("setup", "sessions set up on one core (three segments)", "400000 /s (BESS)", metrics["setup_per_second"], "/s",
              ">= 200000", shape=False),
        claim("memory", "memory of one session of a million", "-", metrics["bytes_per_session"], "B", "<= 512", shape=False),
    ]  # fmt: skip
    metrics = {name: round(value, 3) for name, value in metrics.items()}
    notes = ["CPU-bound on purpose", "frames stay in memory: no NIC, no copy; the loss is that of the processor alone"]
    return Summary("bench-dpdk", manifest["profile"], claims, metrics, 100.0, notes)


# ---- step 3 ----


def draw(directory: RunDirectory) -> list[Path]:
    """Extra time by sessions, and packets per second by frame size (paper Fig. 9)."""
    from lab.experiments.proxy_removal_figures import COLOURS, save, style

    plt, samples = style(), directory.samples()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    ours = [statistics.median(_extra(samples, name, SMALLEST)) for name in COUNTS]
    left.bar(range(len(ours)), ours, color=COLOURS[0])
    left.set_xticks(range(len(ours)), [f"{sessions:,}" for sessions, _, _ in COUNTS.values()])
    left.set_xlabel("sessions, visited at random")
    left.set_ylabel("extra time of a pass (ns)")
    for way, colour in (("plain", COLOURS[1]), ("egress", COLOURS[0])):
        rates = [1e3 / statistics.median(_values(samples, f"{OF_SIZES}_{way}_{size}")) for size in SIZES]
        right.plot(SIZES, rates, color=colour, marker="o", label="plain" if way == "plain" else "agent")
    right.set_ylim(bottom=0)
    right.set_xlabel("frame (bytes)")
    right.set_ylabel("million frames/s, one core")
    right.legend(frameon=False)
    paths = save(figure, directory, "dpdk-pass")
    plt.close("all")
    return paths
