# SPDX-License-Identifier: Apache-2.0
"""flood: as many bytes or segments as the machine bears.  Command lines, and what is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

BINARY = Path(__file__).resolve().parents[3] / "build" / "flood"


def server_command(address: str, port: int) -> list[str]:
    return [str(BINARY), "server", address, str(port)]


def client_command(address: str, port: int, *, sessions: int = 1, payload: int = 0, ms: int = 500) -> list[str]:
    """`payload`: bytes of every segment; 0: as TCP likes."""
    return [str(BINARY), "client", address, str(port), str(sessions), str(payload), str(ms)]


@dataclass(frozen=True)
class Rate:
    """What the receiver has acknowledged, per second."""

    goodput_mbps: float
    packets_kpps: float


def read_rate(out: str) -> Rate:
    counted = json.loads(out)
    return Rate(counted["bytes"] * 8 / 1e3 / counted["ms"], counted["segments"] / counted["ms"])
