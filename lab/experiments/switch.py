# SPDX-License-Identifier: Apache-2.0
"""Middleboxes come and go under load: is there a dip in goodput beyond what the paths' rates explain?

A hundred sessions send both ways through shaped links while a firewall is inserted, replaced by another, and deleted, all
sessions at once.  Goodput is what the applications at both ends received, in windows of 100 ms.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from typing import Any

import pandas as pd

from lab.experiments import Options
from lab.experiments.proxy_removal_figures import save, style
from lab.measure import Sampler, machine_ticks, tcp_counters
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.tools import bulk
from lab.topologies import build

DESCRIPTION = "insertion, replacement and deletion under load of 100 sessions: goodput around each switch"
PORT, SESSIONS, RATE_MBPS = 5001, 100, 80
STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("insert", {"insert": ["mb1"]}),
    ("replace", {"replace": {"mb1": ["mb2"]}}),
    ("delete", {"remove": "mb2"}),
)
INTERVAL_MS, WINDOW_S = 20, 0.1
SPARE_S = 6.0  # the steps take time, too, and a while of undisturbed traffic must follow the last
PAUSE_S = {"quick": 4.0, "paper": 15.0}  # between the steps


def run(directory: RunDirectory, options: Options) -> None:
    """Measures; writes samples.csv: goodput of each interval, and when each step was asked for and done."""
    started, pause = time.time(), PAUSE_S[options.profile]
    topology = build(
        "chain", {"middleboxes": "2", "initial": "0", "kind": "firewall", "rate": str(RATE_MBPS), **options.settings}
    )
    reports = [directory.raw / f"{end}.jsonl" for end in ("client", "server")]
    rows: list[dict[str, Any]] = []
    with Lab(topology) as lab:
        address = lab.topology.host("server").address
        idle = Sampler(1.0, lambda now: dict(zip(("idle", "all"), map(float, machine_ticks()), strict=True)))
        with lab.service("server", bulk.server_command(address, PORT, reports[1])):
            seconds = pause * (len(STEPS) + 1) + SPARE_S
            command = bulk.client_command(address, PORT, reports[0], sessions=SESSIONS, seconds=seconds, interval_ms=INTERVAL_MS,
                                          seed=options.seed)  # fmt: skip
            process = lab.popen("client", command, stdout=subprocess.PIPE)
            assert process.stdout and process.stdout.readline().startswith("connected")
            idle.start()
            for turn, (name, change) in enumerate(STEPS):
                options.progress((turn + 0.5) / len(STEPS), name)
                time.sleep(pause)
                asked = time.monotonic()
                results = lab.agent("client").request("reconfigure", all=True, timeout_s=30, **change)["results"]
                good = sum(r["outcome"] == "done" for r in results)
                rows += [
                    {"time_s": asked, "subject": name, "quantity": "asked", "value": 1.0},
                    {"time_s": time.monotonic(), "subject": name, "quantity": "done", "value": float(good)},
                ]
            process.wait(60)
            process.stdout.close()
        compared = bulk.compare([(bulk.read_report(reports[0]), bulk.read_report(reports[1]))])
        resets = sum(tcp_counters(lab.pid(h))["TcpEstabResets"] for h in lab.topology.names)
    for end, path in zip(("client", "server"), reports, strict=True):
        rows += [
            {"time_s": t / 1e9, "subject": end, "quantity": "received_bytes", "value": float(n)}
            for t, n in bulk.read_report(path).intervals
        ]
    for name, value in (("failed", compared.failed), ("mismatched", compared.bytes_mismatched), ("resets", resets),
                        ("compared", compared.bytes_compared)):  # fmt: skip
        rows.append({"time_s": 0.0, "subject": "all", "quantity": name, "value": float(value)})
    ticks = [row for _, row in idle.finish()]
    shares = [100 * (b["idle"] - a["idle"]) / (b["all"] - a["all"]) for a, b in itertools.pairwise(ticks)]
    rows.append({"time_s": 0.0, "subject": "machine", "quantity": "idle_min_pct", "value": min(shares, default=0.0)})
    pd.DataFrame(rows).to_csv(directory.path / "samples.csv", index=False)
    directory.write_manifest(experiment="switch", profile=options.profile, seed=options.seed, settings=topology.settings,
                             started=started, duration_s=time.time() - started)  # fmt: skip


def _goodput(samples: pd.DataFrame) -> pd.Series:
    """Mbit/s of both directions together, by the start of each window of 100 ms."""
    rows = samples[samples.quantity == "received_bytes"]
    windows = (rows.time_s / WINDOW_S).astype(int) * WINDOW_S
    return rows.groupby(windows).value.sum() * 8 / 1e6 / WINDOW_S


def _switches(samples: pd.DataFrame) -> list[tuple[str, float, float]]:
    found = samples[samples.quantity.isin(["asked", "done"])].pivot(index="subject", columns="quantity", values="time_s")
    return [(name, found.asked[name], found.done[name]) for name, _ in STEPS]


def _dips(samples: pd.DataFrame) -> dict[str, float]:
    """By step: the least goodput of a window that touches the switch, over the lower of the medians before and after."""
    goodput, dips = _goodput(samples), {}
    for name, asked, done in _switches(samples):
        before = goodput[(goodput.index > asked - 2) & (goodput.index < asked - WINDOW_S)].median()
        after = goodput[(goodput.index > done + 1) & (goodput.index < done + 3)].median()
        around = goodput[(goodput.index > asked - WINDOW_S) & (goodput.index < done + WINDOW_S)]
        dips[name] = float(around.min() / min(before, after))
    return dips


def summarise(directory: RunDirectory) -> Summary:
    samples = pd.read_csv(directory.path / "samples.csv")
    single = {r.quantity: r.value for r in samples[samples.subject == "all"].itertuples()}
    done = {r.subject: r.value for r in samples[samples.quantity == "done"].itertuples()}
    dips, idle = _dips(samples), float(samples[samples.quantity == "idle_min_pct"].value.iloc[0])
    metrics = {
        "sessions": float(SESSIONS),
        "sessions_reconfigured_min": min(done.values()),
        "bytes_compared": single["compared"],
        "bytes_mismatched": single["mismatched"],
        "sessions_failed": single["failed"],
        "resets": single["resets"],
        **{f"dip_ratio_{name}": value for name, value in dips.items()},
        "goodput_median_mbps": statistics.median(_goodput(samples)),
    }
    claims = [
        claim("mismatched", "bytes that differ", "0", metrics["bytes_mismatched"], "", "== 0"),
        claim("failed", "sessions that failed", "0", metrics["sessions_failed"], "", "== 0"),
        claim("resets", "sessions reset", "0", metrics["resets"], "", "== 0"),
        claim("all", "sessions reconfigured in each step", "all", metrics["sessions_reconfigured_min"], "", f"== {SESSIONS}"),
        *(
            claim(f"dip-{n}", f"{n}: least goodput around the switch over the lower of before and after", "no visible dip", v, "",
                  ">= 0.8", shape=False)
            for n, v in dips.items()
        ),
    ]  # fmt: skip
    return Summary("switch", directory.manifest()["profile"], claims, metrics, idle)


def draw(directory: RunDirectory) -> None:
    plt = style()
    samples = pd.read_csv(directory.path / "samples.csv")
    goodput = _goodput(samples)[1:-1]
    start = goodput.index[0]
    figure, axes = plt.subplots(figsize=(9, 4))
    axes.step(goodput.index - start, goodput.values, where="post")
    for name, asked, done in _switches(samples):
        axes.axvspan(asked - start, done - start, alpha=0.2, color="#d55e00")
        axes.annotate(name, (asked - start, goodput.max()), fontsize=9)
    axes.set(xlabel="time (s)", ylabel="goodput, both ways (Mbit/s)", ylim=(0, None))
    axes.set_title(f"{SESSIONS} sessions; shaded: asked until the last old path has ended", fontsize=10)
    save(figure, directory, "switch")
    plt.close(figure)
