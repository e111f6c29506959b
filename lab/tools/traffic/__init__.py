# SPDX-License-Identifier: Apache-2.0
"""traffic: sessions by the ten thousand between two DPDK ports, checked frame by frame.  Command lines, and what is printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

BINARY = Path(__file__).resolve().parents[3] / "build" / "dysco-dpdk-traffic"


def _ports(near: str, far: str, workers: int) -> list[str]:
    return [str(BINARY), "--near", near, "--far", far, "--workers", str(workers)]


def command(near: str, far: str, sizes: tuple[int, ...], *, sessions: int, seconds: float, workers: int = 1) -> list[str]:
    """It says "ready", and begins when a line comes on its standard input."""
    words = [*_ports(near, far, workers), "--sessions", str(sessions), "--seconds", str(seconds), "--hold"]
    return [*words, *map(str, sizes)]


def forward_command(near: str, far: str, workers: int = 1) -> list[str]:
    """It says "ready"; SIGTERM ends it."""
    return [*_ports(near, far, workers), "--forward"]


def read(out: str) -> Iterator[tuple[str, str, float]]:
    """(a size in bytes or "setup", quantity, value)"""
    for line in out.splitlines():
        subject, quantity, value = line.split(",")
        yield subject, quantity, float(value)
