# SPDX-License-Identifier: Apache-2.0
"""What Dysco costs, beside the same network without it: agents come and go between the turns of one run.

Links are not shaped: the machine's CPU is the limit on purpose.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab.network import Lab
from lab.statistics import Interval, median_interval
from lab.tools import connect

MODES = ("baseline", "dysco", "hmac")
LENGTHS = (0, 1, 2, 3, 4)
PORT = 5001  # those up to 5010 are chained, too


@contextmanager
def mode(lab: Lab, name: str) -> Iterator[None]:
    """The lab without agents (baseline), with them (dysco), with signatures too (hmac), while the block lasts."""
    if name == "baseline":
        yield
        return
    lab.start_agents(sign=name == "hmac")
    try:
        yield
    finally:
        lab.stop_agents()


def on_cpu(lab: Lab, host: str, nth: int, command: list[str]) -> list[str]:
    """The command on the first (0) or the second of the processors that a host may use."""
    ours = lab.processors(host)
    return ["taskset", "-c", str(ours[min(nth, len(ours) - 1)]), *command]


def connect_times(lab: Lab, count: int) -> list[float]:
    """Microseconds of so many connect()s.  A tenth more warms up neighbours and caches first and is left out."""
    address, warm_up = lab.topology.host("server").address, count // 10
    out = lab.run("client", on_cpu(lab, "client", 0, connect.client_command(address, PORT, count + warm_up)))
    return [float(line) for line in out.split()][warm_up:]


# ---- analysis: quantities of `mode_length` by round ----


def lengths_of(samples: Any) -> list[int]:
    """The chain lengths that were measured."""
    found = samples.subject.str.extract(r"^baseline_(\d+)$")[0].dropna().astype(int)
    return sorted(set(found.tolist()))


def rounds_of(samples: Any, subject: str, quantity: str) -> list[float]:
    """The median of a quantity in each round."""
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    medians: list[float] = rows.groupby("round").value.median().tolist()
    return medians


def compared(a: Sequence[float], b: Sequence[float], how: str) -> tuple[float, Interval]:
    """Round by round a over b ('ratio') or a less b ('difference'): the median, and its 95 % interval."""
    pairs = zip(a, b, strict=True)
    each = [x / y if how == "ratio" else x - y for x, y in pairs]
    return statistics.median(each), median_interval(each)
