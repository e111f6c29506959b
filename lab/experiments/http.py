# SPDX-License-Identifier: Apache-2.0
"""Requests per second that NGINX serves to wrk through 0 to 4 middleboxes, Dysco over plain (paper Fig. 11).

Connections are persistent.  wrk has a thread and NGINX a worker for each processor, so that all of the machine's CPU is used:
what an agent takes is missing from the requests.  Without agents the router in the middle steers the same way.
"""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.experiments.framework.costs import LENGTHS, PORT, compared, mode, rounds_of
from lab.experiments.framework.figures import COLOURS, Drawing, points, series
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import Interval, median_interval
from lab.topologies import Settings, build
from middleboxes.nginx import Nginx

DESCRIPTION = "NGINX and wrk, 400 persistent connections, through 0 to 4 middleboxes (paper Fig. 11)"
TOOLS = ("nginx", "wrk")
CPU_BOUND = True
COMPARED = ("baseline", "dysco")
PAGE_BYTES = 612
PAPER = {0: "more than 180,000", 4: "a little under 175,000"}  # requests per second with Dysco
LEAST_RATIO = 0.96  # the paper's largest loss is 4.08 %
TROUBLE = (r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", r"Non-2xx or 3xx responses: (\d+)")


@dataclass(frozen=True)
class Plan:
    rounds: int
    connections: int
    seconds: int


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    return Plan(
        settings.integer("rounds", 10 if paper else 4, 2, 100),
        settings.integer("connections", 400, 1, 4000),
        settings.integer("seconds", 10 if paper else 2, 1, 600),
    )


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    record.expect(len(LENGTHS) * len(COMPARED) * plan.rounds)
    with TemporaryDirectory() as work:
        page = Path(work) / "www" / "index.html"
        page.parent.mkdir()
        page.write_bytes(b"x" * PAGE_BYTES)
        for length in LENGTHS:
            web = Nginx(Path(work) / "nginx", web={PORT: page.parent}, workers=_cores())
            topology = build("chain", {"middleboxes": str(length), "dysco": "off"})
            with Lab(topology) as lab, record.watched(), lab.box("server", web):
                _turns(lab, length, plan, record)


def _turns(lab: Lab, length: int, plan: Plan, record: Recorder) -> None:
    for turn in record.turns(plan.rounds, COMPARED, f"{length} middleboxes,", warm_up=0):
        with mode(lab, turn.mode):
            out = lab.run("client", _wrk(lab, plan))
        (record.raw / f"wrk-{turn.mode}-{length}-{turn.round}.txt").write_text(out)
        for quantity, value in _read(out).items():
            record(f"{turn.mode}_{length}", quantity, value)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _wrk(lab: Lab, plan: Plan) -> list[str]:
    url = f"http://{lab.topology.host('server').address}:{PORT}/index.html"
    return ["wrk", "-t", str(_cores()), "-c", str(plan.connections), "-d", f"{plan.seconds}s", "--latency", url]


def _read(out: str) -> dict[str, float]:
    """What wrk says: requests per second, the median latency, everything that went wrong."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    latency = re.search(r"50%\s+([\d.]+)(us|ms|s)", out)
    if not rate or not latency:
        raise ValueError(f"wrk said: {out.strip()}")
    trouble = sum(int(n) for pattern in TROUBLE if (found := re.search(pattern, out)) for n in found.groups())
    unit = {"us": 1, "ms": 1e3, "s": 1e6}[latency.group(2)]
    return {"requests_rps": float(rate.group(1)), "latency_us": float(latency.group(1)) * unit, "errors": trouble}


# ---- step 2 ----


def _ratio(samples: Any, length: int) -> tuple[float, Interval]:
    with_it, plain = (rounds_of(samples, f"{name}_{length}", "requests_rps") for name in ("dysco", "baseline"))
    return compared(with_it, plain, "ratio")


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()
    metrics, claims = {}, []
    for length in LENGTHS:
        for name in COMPARED:
            for quantity in ("requests_rps", "latency_us"):
                metrics[f"{quantity}_p50_{name}_{length}"] = statistics.median(rounds_of(samples, f"{name}_{length}", quantity))
        metrics[f"requests_ratio_{length}"], interval = _ratio(samples, length)
        claims.append(claim(f"requests_ratio_{length}", f"requests per second through {length} middleboxes over plain",
                            ">= 0.959", metrics[f"requests_ratio_{length}"], "", f">= {LEAST_RATIO}", shape=False,
                            ci95=interval))  # fmt: skip
    for length, paper in PAPER.items():
        claims.append(claim(f"requests_{length}", f"requests per second with Dysco, {length} middleboxes", paper,
                            metrics[f"requests_rps_p50_dysco_{length}"], "", ">= 175000", shape=False))  # fmt: skip
    metrics["errors"] = float(samples[samples.quantity == "errors"].value.sum())
    metrics["connections"] = float(run.manifest()["settings"]["connections"])
    claims.append(claim("errors", "connections, requests and responses that failed", "-", metrics["errors"], "", "== 0"))
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    drawing, samples = Drawing(run, summary), run.samples()
    rounds = int(samples["round"].max()) + 1
    caption = f"{rounds} rounds a point, interleaved; bars: 95 % interval of the median"
    with drawing.figure("requests", caption, (9, 4.2), ncols=2) as (_, (left, right)):
        for shift, name in enumerate(COMPARED):
            by_length = [(n, rounds_of(samples, f"{name}_{n}", "requests_rps")) for n in LENGTHS]
            points(left, [(n, statistics.median(v), median_interval(v)) for n, v in by_length], name, 0.06 * shift)
        left.set(xlabel="middleboxes", ylabel="requests per second", xticks=LENGTHS, ylim=(0, None))
        left.set_title(f"{summary.metrics['connections']:.0f} persistent connections")
        left.legend()
        series(right, [(n, *_ratio(samples, n)) for n in LENGTHS], "Dysco over plain", COLOURS[0])
        right.axhline(LEAST_RATIO, color=COLOURS[0], linestyle=":", linewidth=1)
        right.set(xlabel="middleboxes", xticks=LENGTHS, ylim=(0.5, 1.3), title="Dysco over plain (dotted: goal)")
    return drawing.paths
