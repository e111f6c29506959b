# SPDX-License-Identifier: Apache-2.0
"""echo: one session, one short message under way at a time; how long each answer takes.  Command lines, and the report."""

from __future__ import annotations

import sys
from pathlib import Path

COMMAND = [sys.executable, "-u", "-m", "lab.tools.echo"]
ROOT = Path(__file__).resolve().parents[3]


def server_command(port: int) -> list[str]:
    return [*COMMAND, "server", str(port)]


def client_command(address: str, port: int, seconds: float, every_ms: int, report: Path) -> list[str]:
    return [*COMMAND, "client", address, str(port), str(seconds), str(every_ms), str(report)]


def read_report(path: Path) -> list[tuple[int, float]]:
    """(monotonic time ns, round trip us) of each message."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [(int(at), float(us)) for at, us in rows]
