# SPDX-License-Identifier: Apache-2.0
"""Counters of the kernel, read where they lie: a host's own /proc shows its network namespace."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
RESETS = ("TcpOutRsts", "TcpEstabResets")


def tcp_counters(pid: int) -> dict[str, int]:
    """The Tcp and TcpExt counters of the namespace of a process, by nstat's names."""
    counters: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
        for heads, values in zip(lines[::2], lines[1::2], strict=True):
            group = heads.split(":")[0]
            if group.startswith("Tcp"):
                numbers = map(int, values.split()[1:])
                counters |= {group + head: n for head, n in zip(heads.split()[1:], numbers, strict=True)}
    return counters


def interface_packets(pid: int, device: str) -> tuple[int, int]:
    """Packets received and sent by an interface of the namespace of a process."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            numbers = rest.split()
            return int(numbers[1]), int(numbers[9])
    raise ValueError(f"no interface {device} in the namespace of {pid}")


def cpu_ticks(pid: int) -> int:
    """User and system time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def with_children(pid: int) -> list[int]:
    """A process and those that it has started itself: the workers of a server."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def machine_ticks() -> tuple[int, int]:
    """Idle and total clock ticks of all cores together."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)


@dataclass
class Series:
    """One quantity over time: (time in s, value)."""

    points: list[tuple[float, float]] = field(default_factory=list)


class Sampler(threading.Thread):
    """Calls probes at a fixed pace; each returns values by name.  Times are seconds of the monotonic clock."""

    def __init__(self, every_s: float, probe: Callable[[float], dict[str, float]]) -> None:
        super().__init__(daemon=True)
        self._every_s, self._probe = every_s, probe
        self._over = threading.Event()
        self.rows: list[tuple[float, dict[str, float]]] = []

    def run(self) -> None:
        at = time.monotonic()
        while not self._over.is_set():
            now = time.monotonic()
            try:
                self.rows.append((now, self._probe(now)))
            except OSError:  # the process that is watched has ended
                return
            at = max(at + self._every_s, now)
            self._over.wait(max(at - time.monotonic(), 0))

    def finish(self) -> list[tuple[float, dict[str, float]]]:
        self._over.set()
        self.join()
        return self.rows


def rates(rows: list[tuple[float, dict[str, float]]], name: str, per: float = 1.0) -> list[tuple[float, float]]:
    """The change of a counter per second, divided by `per`."""
    pairs = itertools.pairwise(rows)
    return [(b[0], (b[1][name] - a[1][name]) / (b[0] - a[0]) / per) for a, b in pairs if b[0] > a[0]]
