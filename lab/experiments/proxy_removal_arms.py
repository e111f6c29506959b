# SPDX-License-Identifier: Apache-2.0
"""Further runs of proxy-removal, each in a network of its own: what throttling windows does meanwhile, and what lost control
messages do (paper V-C: a zero window was bad, min(w, 16K) best; the tail of Fig. 14 is lost messages).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.collect import read_events
from lab.experiments.framework.recorder import Recorder
from lab.experiments.proxy_removal_load import Plan, carry
from lab.network import Lab
from lab.results import Claim, claim
from lab.statistics import percentile
from lab.tools import bulk

ARM = "arm "  # how their subjects begin in the samples
TIMES = ("reconfig_us", "old_path_drained_us")
ZERO = "throttle_zero"  # the arm that the paper found bad


@dataclass(frozen=True)
class Arm:
    """How a run differs from the main one."""

    name: str
    throttle: str
    loss_pct: int


ARMS = (Arm("throttle off", "off", 0), Arm("throttle zero", "zero", 0), Arm("throttle 16k", "16k", 0), Arm("loss 5 %", "off", 5),
        Arm("loss 20 %", "off", 20))  # fmt: skip


def measure(plan: Plan, record: Recorder) -> None:
    """All arms, one after the other; `plan` says how large each is."""
    for arm in ARMS:
        raw = record.raw / arm.name.replace(" %", "").replace(" ", "-")
        raw.mkdir()
        with Lab(plan.topology) as lab:
            seen = carry(lab, replace(plan, throttle=arm.throttle, loss_pct=arm.loss_pct), record, raw)
        _record(record, plan, ARM + arm.name, raw)
        record(ARM + arm.name, "proxy_sockets", seen.facts["proxy_sockets_after"])


def _record(record: Recorder, plan: Plan, subject: str, raw: Path) -> None:
    reports = [[bulk.read_report(raw / f"{end}{i}.jsonl") for end in ("client", "server")] for i in range(1, plan.pairs + 1)]
    for number, report in enumerate(itertools.chain(*reports)):
        for (before, _), (at, received) in itertools.pairwise(report.intervals):
            record(subject, f"end{number}_mbps", received * 8e3 / (at - before), at / 1e9)
    compared = bulk.compare([(client, server) for client, server in reports])
    events = [event for _, event in read_events(raw)]
    ended = [event for event in events if event["event"] == "reconfigured"]
    for event in ended:
        for name in TIMES:
            if event[name] is not None:
                record(subject, name, event[name], event["ts_ns"] / 1e9)
    for quantity, value in (
        ("sessions", compared.sessions), ("failed", compared.failed), ("mismatched_bytes", compared.bytes_mismatched),
        ("reconfigured", len({event["session"] for event in ended})),
    ):  # fmt: skip
        record(subject, quantity, value)


# ---- analysis ----


def names(samples: Any) -> list[str]:
    """The arms that were run."""
    there = set(samples.subject)
    return [arm.name for arm in ARMS if ARM + arm.name in there]


def values(samples: Any, name: str, quantity: str) -> list[float]:
    found: list[float] = samples[(samples.subject == ARM + name) & (samples.quantity == quantity)].value.tolist()
    return found


def goodput(samples: Any, name: str, step_s: float) -> Any:
    """Mbit/s of all pairs, both directions, by the start of each window: a pandas series."""
    rows = samples[(samples.subject == ARM + name) & samples.quantity.str.endswith("_mbps") & (samples.time_s >= 0)]
    each = rows.groupby([(rows.time_s // step_s) * step_s, "quantity"]).value.mean()
    return each.groupby(level=0).sum()


def summed_up(samples: Any, removals: list[float]) -> tuple[dict[str, float], list[Claim]]:
    """Metrics and claims of the arms; nothing if none was run.  `removals`: when they were, in seconds."""
    found, metrics = names(samples), dict[str, float]()
    for name in found:
        key = name.replace(" %", "_pct").replace(" ", "_")
        for quantity in ("failed", "mismatched_bytes", "reconfigured", "sessions"):
            metrics[f"{quantity}_{key}"] = sum(values(samples, name, quantity))
        for quantity in TIMES:
            for word, share in (("p50", 0.5), ("p80", 0.8), ("p99", 0.99), ("max", 1.0)):
                metrics[f"{quantity}_{word}_{key}"] = percentile(values(samples, name, quantity), share)
        during = goodput(samples, name, 0.1)
        during = during[(during.index >= removals[0]) & (during.index < 2 * removals[-1] - removals[-2])]
        metrics[f"goodput_during_mbps_{key}"] = float(during.mean())
    return metrics, _claims(metrics, [name.replace(" %", "_pct").replace(" ", "_") for name in found]) if found else []


def _claims(m: dict[str, float], keys: list[str]) -> list[Claim]:
    def total(what: str) -> float:
        return sum(m[f"{what}_{key}"] for key in keys if key != ZERO)

    return [
        claim("arms_failed", "sessions that failed in further runs: windows throttled to 16 KiB, messages lost", "0",
              total("failed"), "", "== 0"),
        claim("arms_bytes", "bytes that differ between the two ends in them", "0", total("mismatched_bytes"), "bytes", "== 0"),
        claim("arms_reconfigured", "sessions that lost the proxy in them", "-",
              min(100 * total("reconfigured") / total("sessions"), 100.0), "%", ">= 99"),
        claim("zero_stalled", "sessions that stood still until their end, windows closed", "performance degraded significantly",
              m[f"failed_{ZERO}"], "", "== 0", shape=False),
        claim("throttle_zero", "goodput during the removals, windows closed, over min(w, 16 KiB)", "significantly lower",
              m["goodput_during_mbps_throttle_zero"] / m["goodput_during_mbps_throttle_16k"], "", "<= 1", shape=False),
        claim("throttle_16k", "the same, min(w, 16 KiB) over no throttle", "best",
              m["goodput_during_mbps_throttle_16k"] / m["goodput_during_mbps_throttle_off"], "", ">= 1", shape=False),
        claim("loss_tail", "reconfiguration time, p99, one control message of five lost, over none lost", "the larger values",
              m["reconfig_us_p99_loss_20_pct"] / m["reconfig_us_p99_throttle_off"], "", ">= 1", shape=False),
    ]  # fmt: skip
