# SPDX-License-Identifier: Apache-2.0
"""longline: a router whose packets take some milliseconds, for kernels without netem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.network import Lab

BINARY = Path(__file__).resolve().parents[3] / "build" / "longline"
DEVICE, TABLE = "line0", 200


@contextmanager
def delayed(lab: Lab, host: str, devices: Sequence[str], delay_ms: float) -> Iterator[None]:
    """Inside the block, what a router receives by these devices is late by so much; it goes where it would have gone."""
    with lab.service(host, [str(BINARY), DEVICE, f"{delay_ms:g}"]):
        lab.batch(host, [f"route add default dev {DEVICE} table {TABLE}", *(f"rule add iif {d} lookup {TABLE}" for d in devices)])
        yield
