# SPDX-License-Identifier: Apache-2.0
"""A run as time-sequence pictures: for each end of a session what it sends, by path, and what it is told to have arrived."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim import REASONS

CLIENT_PORT, SERVER_PORT = 40000, 5001
SYN = 2
RECONFIGURATION = ("lock_requested", "locked", "lock_refused", "new_path_ready", "drained", "old_path_gone", "settled",
                   "cancelled")  # fmt: skip
MODULUS = 1 << 32


@dataclass
class Side:
    """One end of a session: sequence numbers are bytes since its SYN, times milliseconds."""

    name: str
    sent: list[tuple[float, int, int, int]] = field(default_factory=list)  # time, first byte, length, path
    acked: list[tuple[float, int, int]] = field(default_factory=list)  # time, number, path by which it came
    events: list[tuple[float, str]] = field(default_factory=list)
    paths: list[tuple[int, ...]] = field(default_factory=list)
    isn: int | None = None
    nonce: str = ""

    def path(self, subsession: tuple[int, ...]) -> int:
        """0 is the path that the session began on."""
        if subsession not in self.paths:
            self.paths.append(subsession)
        return self.paths.index(subsession)

    def offset(self, number: int) -> int:
        """Signed: what lies before the SYN is below 0."""
        distance = (number - (self.isn or 0)) % MODULUS
        return distance - MODULUS if distance >= MODULUS // 2 else distance


@dataclass
class _Packet:
    at: float
    where: str
    host: int
    tuple: tuple[int, ...]
    flags: int
    seq: int
    payload: int
    ack: int
    control: int
    nonce: str  # of the session, if the host's stack sends it


def _event_names() -> list[str]:
    kinds = re.search(r"enum event_kind \{(.*?)\}", REASONS.read_text(), re.S)
    return [name.lower() for name in re.findall(r"EVENT_(\w+)", kinds[1] if kinds else "")]


def _packets(rows: Iterable[list[str]]) -> Iterable[_Packet | tuple[float, int, str, str]]:
    names = _event_names()
    for row in rows:
        at = int(row[0]) / 1000
        if row[1] == "event":
            yield at, int(row[2]), names[int(row[3])], row[4]
        else:
            numbers = [int(word) for word in row[3:12]]
            yield _Packet(at, row[1], int(row[2]), tuple(numbers[:4]), *numbers[4:9], row[12])


def read(record: Path, session: int, hosts: int) -> tuple[Side, Side]:
    """Client and server of a session, from what tests.sim.run has recorded.

    A segment that a host's stack sends ("out") is followed by what its agent makes of it ("wire"), and what arrives
    ("recv") by what the stack gets ("in"): so local numbers and paths are known together.
    """
    client, server = Side("client"), Side("server")
    ends = {0: client, hosts - 1: server}
    port = CLIENT_PORT + session
    local: dict[int, _Packet | None] = {}
    with record.open(newline="") as file:
        for p in _packets(csv.reader(file)):
            if isinstance(p, tuple):
                if p[1] in ends and p[2] in RECONFIGURATION and p[3] == ends[p[1]].nonce:
                    ends[p[1]].events.append((p[0], p[2]))
                continue
            side = ends.get(p.host)
            if side is None or p.control:
                continue
            if p.where == "out":
                local[p.host] = p if _of(p, side is client, port, outgoing=True) else None
                if local[p.host] and side.isn is None:
                    side.isn = p.seq
                if local[p.host] and p.nonce != "0":
                    side.nonce = p.nonce
            elif p.where == "wire":
                _note_sent(side, local.get(p.host), p)
            elif p.where == "recv":
                local[p.host] = p
            elif p.where == "in" and _of(p, side is client, port, outgoing=False):
                came = local.get(p.host)
                path = side.path((came.tuple[2], came.tuple[3], came.tuple[0], came.tuple[1])) if came else 0
                side.acked.append((p.at, side.offset(p.ack), path))
    return client, server


def _of(p: _Packet, is_client: bool, port: int, outgoing: bool) -> bool:
    """Whether a packet as a stack knows it is of the session.  Beyond a NAT or a proxy the port is another: the server shows
    whatever it has."""
    own, far = (p.tuple[1], p.tuple[3]) if outgoing else (p.tuple[3], p.tuple[1])
    return own == port if is_client else own == SERVER_PORT and far % 1000 == port % 1000


def _note_sent(side: Side, out: _Packet | None, wire: _Packet) -> None:
    if out is None or out.at != wire.at or not wire.payload or wire.flags & SYN:
        return
    first, pieces = side.offset(out.seq), 0
    if wire.payload < out.payload:  # it has been split: this is its head, or what comes after that
        pieces = sum(n for at, begin, n, _ in side.sent if at == out.at and first <= begin < first + out.payload)
    first += pieces if pieces < out.payload else 0
    side.sent.append((wire.at, first, wire.payload, side.path(wire.tuple)))


def draw(sides: tuple[Side, Side], title: str, target: Path) -> None:
    """One panel for each end: bars are segments, in the colour of their path; dots are acknowledgments as delivered."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 1, figsize=(13, 10), constrained_layout=True)
    for side, axes in zip(sides, panels, strict=True):
        _panel(axes, side)
    figure.suptitle(title, fontsize=9, wrap=True)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def _panel(axes: Any, side: Side) -> None:
    for number, path in enumerate(side.paths):
        colour = f"C{number % 10}"
        sent = [(at, first, length) for at, first, length, p in side.sent if p == number]
        acked = [(at, ack) for at, ack, p in side.acked if p == number]
        label = f"path {number}: .{path[0]}:{path[1]} to .{path[2]}:{path[3]}"
        axes.vlines([s[0] for s in sent], [s[1] for s in sent], [s[1] + s[2] for s in sent], colors=colour, lw=2, label=label)
        axes.plot([a[0] for a in acked], [a[1] for a in acked], ".", ms=3, color=colour, alpha=0.6)
    for at, name in side.events:
        axes.axvline(at, color="0.6", lw=0.6)
        axes.annotate(name, (at, 1.0), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=6)
    axes.set(title=f"{side.name}: segments sent (bars), acknowledgments delivered (dots)", xlabel="time, ms",
             ylabel="bytes since the SYN")  # fmt: skip
    if side.paths:
        axes.legend(fontsize=7, loc="lower right")
