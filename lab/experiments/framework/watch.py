# SPDX-License-Identifier: Apache-2.0
"""Who has traffic: packets that hosts receive, over time and at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab.experiments.framework.recorder import Recorder
from lab.measure import Sampler, interface_packets, rates
from lab.network import Lab

EVERY_S = 0.25
DEVICE = "eth0"


@contextmanager
def watched_packets(lab: Lab, record: Recorder, hosts: Sequence[str]) -> Iterator[None]:
    """Records received_pps of the hosts while the block lasts."""
    sampler = Sampler(EVERY_S, lambda _: {host: float(interface_packets(lab.pid(host), DEVICE)[0]) for host in hosts})
    sampler.start()
    try:
        yield
    finally:
        rows = sampler.finish()
        for host in hosts:
            for at, value in rates(rows, host):
                record(host, "received_pps", value, at)


def silent(lab: Lab, host: str, seconds: float) -> int:
    """Packets that a host receives and sends in so many seconds."""
    before = interface_packets(lab.pid(host), DEVICE)
    time.sleep(seconds)
    return sum(interface_packets(lab.pid(host), DEVICE)) - sum(before)


def packets(samples: Any, host: str) -> Any:
    """Packets that a host has received, per second, over time: a pandas series."""
    rows = samples[(samples.subject == host) & (samples.quantity == "received_pps")]
    return rows.set_index("time_s").value
