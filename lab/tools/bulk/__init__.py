# SPDX-License-Identifier: Apache-2.0
"""bulk: sessions of known bytes, hashed at both ends.  Command lines, and what the reports say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = Path(__file__).resolve().parents[3] / "build" / "bulk"


def server_command(address: str, port: int, report: Path, interval_ms: int = 100, after_seconds: float = 0.0) -> list[str]:
    """`after_seconds`: how long it goes on sending when the client has ended its direction."""
    return [str(BINARY), "server", "--listen", f"{address}:{port}", "--report", str(report),
            "--interval-ms", str(interval_ms), "--after-seconds", str(after_seconds)]  # fmt: skip


def client_command(
    address: str, port: int, report: Path, *, sessions: int, seconds: float, interval_ms: int = 100, way: str = "both",
    message: int = 0, every_us: int = 0, base: int = 0, seed: int = 1, sndbuf: int = 0, from_port: int = 0,
) -> list[str]:  # fmt: skip
    """`message` bytes every `every_us` microseconds in each session, or as much as fits when 0; `from_port`: the source port
    of the first session, 0 for ports that the kernel chooses."""
    command = [str(BINARY), "client", "--connect", f"{address}:{port}", "--report", str(report),
               "--sessions", str(sessions), "--seconds", str(seconds), "--interval-ms", str(interval_ms),
               "--way", way, "--id", str(base), "--seed", str(seed)]  # fmt: skip
    if message:
        command += ["--message", str(message), "--every-us", str(every_us)]
    if from_port:
        command += ["--from-port", str(from_port)]
    return command + (["--sndbuf", str(sndbuf)] if sndbuf else [])


@dataclass
class Report:
    """One end's report: bytes received in each interval, and how each session ended."""

    intervals: list[tuple[int, int]] = field(default_factory=list)  # (time ns, bytes received)
    sessions: dict[int, dict[str, Any]] = field(default_factory=dict)


def read_report(path: Path) -> Report:
    report = Report()
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of an end that was killed
            continue
        if "t_ns" in entry:
            report.intervals.append((entry["t_ns"], entry["bytes_rcvd"]))
        elif "session" in entry:
            report.sessions[entry["session"]] = entry
    return report


@dataclass
class Comparison:
    """Both ends of all sessions against each other; bytes of both directions."""

    sessions: int = 0
    failed: int = 0
    bytes_compared: int = 0
    bytes_mismatched: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether all sessions ended well and every byte arrived."""
        return self.sessions > 0 and (self.failed, self.bytes_mismatched) == (0, 0)

    def fail(self, reason: str) -> None:
        self.failed += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def _direction(total: Comparison, sender: dict[str, Any], receiver: dict[str, Any]) -> str | None:
    total.bytes_compared += receiver["rcvd"]
    if sender["sent_hash"] == receiver["rcvd_hash"] and sender["sent"] == receiver["rcvd"]:
        return None
    good = receiver["first_bad_offset"] if receiver["first_bad_offset"] >= 0 else receiver["rcvd"]
    total.bytes_mismatched += max(sender["sent"] - good, 1)
    return f"stream differs after {good} bytes"


def compare(pairs: Iterable[tuple[Report, Report]]) -> Comparison:
    """What the clients and the servers say about the same sessions."""
    total = Comparison()
    for client, server in pairs:
        for number in sorted(client.sessions.keys() | server.sessions.keys()):
            total.sessions += 1
            a, b = client.sessions.get(number), server.sessions.get(number)
            if not a or not b:
                total.fail("reported by one end only")
                continue
            error = a["error"] or b["error"] or _direction(total, a, b) or _direction(total, b, a)
            if error:
                total.fail(error)
    return total
