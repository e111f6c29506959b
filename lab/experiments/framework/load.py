# SPDX-License-Identifier: Apache-2.0
"""Hashed sessions of several clients with one server, as samples: goodput, and whether everything arrived.

The load is what experiments with live sessions have in common; what they do to the sessions is the body of `loaded`.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lab.experiments.framework.recorder import Recorder
from lab.measure import tcp_counters
from lab.network import Lab, wait_for
from lab.results import Claim, claim
from lab.tools import bulk

SERVER = "server"
INTERVAL_MS = 100
LONG_S, DRAIN_S = 86_400.0, 60.0
FACTS = ("sessions", "failed", "compared_bytes", "mismatched_bytes", "resets")


@dataclass(frozen=True)
class Flow:
    """Sessions of one client with one port of the server, as full as it goes or, with `message`, bytes every 20 ms."""

    name: str  # what samples call it
    client: str
    port: int
    sessions: int
    way: str = "both"  # up, down, both
    message: int = 0


@contextmanager
def loaded(lab: Lab, record: Recorder, flows: Sequence[Flow]) -> Iterator[float]:
    """Yields time zero, when all sessions are open; they end with the block, and their ends are awaited.

    Recorded: goodput_up_mbps and goodput_down_mbps of each flow, and of "all" the FACTS, `resets` being TcpOutRsts while the
    sessions live and TcpEstabResets until they are over, of all hosts."""
    with ExitStack() as stack:
        for flow in flows:
            stack.enter_context(lab.service(SERVER, _server(lab, record, flow)))
        clients = [_client(lab, record, flow, i) for i, flow in enumerate(flows)]
        for client in clients:
            wait_for(client, "connected")
        zero = record.zero()
        try:
            yield zero
            sent = _resets(lab, "TcpOutRsts")
            for client in clients:
                client.terminate()
            for client in clients:
                client.wait(DRAIN_S)
            _record_ends(record, flows, sent + _resets(lab, "TcpEstabResets"))
        finally:
            for flow in flows:
                _record_goodput(record, flow)


def _reports(record: Recorder, flow: Flow) -> tuple[Any, Any]:
    return record.raw / f"{flow.name}-client.jsonl", record.raw / f"{flow.name}-server.jsonl"


def _server(lab: Lab, record: Recorder, flow: Flow) -> list[str]:
    address = lab.topology.host(SERVER).address
    command = bulk.server_command(address, flow.port, _reports(record, flow)[1], INTERVAL_MS)
    return [*command, "--congestion", lab.topology.congestion]


def _client(lab: Lab, record: Recorder, flow: Flow, number: int) -> Any:
    command = bulk.client_command(
        lab.topology.host(SERVER).address, flow.port, _reports(record, flow)[0], sessions=flow.sessions, seconds=LONG_S,
        interval_ms=INTERVAL_MS, way=flow.way, message=flow.message, every_us=20_000, base=number * 10_000, seed=record.seed,
    )  # fmt: skip
    command += ["--congestion", lab.topology.congestion]
    return lab.popen(flow.client, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _resets(lab: Lab, counter: str) -> int:
    return sum(tcp_counters(lab.pid(host))[counter] for host in lab.topology.names)


def _record_goodput(record: Recorder, flow: Flow) -> None:
    for path, quantity in zip(_reports(record, flow), ("goodput_down_mbps", "goodput_up_mbps"), strict=True):
        if not path.exists():
            continue
        for (before, _), (at, received) in itertools.pairwise(bulk.read_report(path).intervals):
            record(flow.name, quantity, received * 8e3 / (at - before), at / 1e9)


def _record_ends(record: Recorder, flows: Sequence[Flow], resets: int) -> None:
    reports = [tuple(bulk.read_report(path) for path in _reports(record, flow)) for flow in flows]
    compared = bulk.compare([(client, server) for client, server in reports])
    values = (compared.sessions, compared.failed, compared.bytes_compared, compared.bytes_mismatched, resets)
    for name, value in zip(FACTS, values, strict=True):
        record("all", name, value)
    if compared.reasons:
        record.facts["failed_sessions"] = [*record.facts.get("failed_sessions", []), compared.reasons]


# ---- what the samples say ----


def ends(samples: Any) -> dict[str, float]:
    """The metrics that all these experiments have; rounds add up.  Nothing if no load has come to its end."""
    rows = samples[(samples.subject == "all") & samples.quantity.isin(FACTS)]
    names = {"failed": "sessions_failed", "compared_bytes": "bytes_compared", "mismatched_bytes": "bytes_mismatched"}
    return {names.get(name, name): float(value) for name, value in rows.groupby("quantity").value.sum().items()}


def intact(metrics: dict[str, float]) -> list[Claim]:
    """No session is harmed: the claims that all these experiments make."""
    return [
        claim("failed", "sessions that failed", "0", metrics.get("sessions_failed"), "", "== 0"),
        claim("mismatched", "bytes that differ between the two ends", "0", metrics.get("bytes_mismatched"), "bytes", "== 0"),
        claim("compared", "bytes compared", "-", metrics.get("bytes_compared"), "bytes", ">= 1e6"),
        claim("resets", "TCP resets in all hosts", "0", metrics.get("resets"), "", "== 0"),
    ]


def goodput(samples: Any, names: Sequence[str], window_s: float, ways: Sequence[str] = ("up", "down")) -> Any:
    """Mbit/s of some flows and ways together, by the start of each window: a pandas series."""
    rows = samples[samples.subject.isin(list(names)) & samples.quantity.isin([f"goodput_{way}_mbps" for way in ways])]
    windows = (rows.time_s // window_s) * window_s
    each = rows.groupby([windows, "subject", "quantity"]).value.mean()
    return each.groupby(level=0).sum()
