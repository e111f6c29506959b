# SPDX-License-Identifier: Apache-2.0
"""Judges captures: does each path look like one ordinary TCP connection to whoever stands beside it?

tshark takes the packets apart, this module knows TCP and docs/wire-format.md; neither shares code with the core.  What is
judged of each direction of a path: its first byte is ISN + 1, no byte is skipped, no acknowledgment is above what the path
has carried.  Capture beside a sender (an anchor): what is lost further on is no gap there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Literal

from lab.tool import run

FIN, SYN, RST, ACK = 1, 2, 4, 16
CONTROL_OPTION = "254"
MAGIC = bytes.fromhex("445914")  # "DY", version 1, IPv4
SETUP, NEW_PATH = 1, 0x82
FIXED = 40  # bytes of a set-up message before its fields
FIELDS = (
    "frame.time_epoch", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len",
    "tcp.option_kind", "tcp.payload",
)  # fmt: skip
End = tuple[str, int]  # address, port


@dataclass(frozen=True)
class Segment:
    """A captured segment; numbers as on the wire."""

    time_s: float
    src: End
    dst: End
    seq: int
    ack: int
    flags: int
    length: int
    options: tuple[str, ...] = ()
    payload: bytes = b""  # as far as it was captured

    @property
    def end(self) -> int:
        """The sequence number after this segment's bytes, SYN and FIN."""
        return (self.seq + self.length + bool(self.flags & SYN) + bool(self.flags & FIN)) % 2**32


def ahead(a: int, b: int) -> int:
    """How far a is ahead of b, modulo 2^32; negative if it is behind."""
    return (a - b + 2**31) % 2**32 - 2**31


@dataclass
class Direction:
    """What one end has sent on a path."""

    isn: int
    end: int  # the highest number sent, plus one
    first_offset: int | None = None  # of the first byte, from ISN + 1
    gap_bytes_max: int = 0
    ack_above_max: int = 0  # by how much its acknowledgments exceed what it can have received
    bytes: int = 0


@dataclass
class Path:
    """A connection on the wire: a subsession, from its SYN on."""

    left: End
    right: End
    opened_s: float
    nonce: str  # of the session, 16 hexadecimal digits; "" where no agent has made it
    new: bool  # made by a reconfiguration
    rightward: Direction
    leftward: Direction | None = None
    reset: bool = False

    @property
    def directions(self) -> list[Direction]:
        return [d for d in (self.rightward, self.leftward) if d]

    @property
    def gap_bytes_max(self) -> int:
        """Bytes skipped at once: before the first byte of the path or later."""
        return max(max(abs(d.first_offset or 0), d.gap_bytes_max) for d in self.directions)

    @property
    def ack_above_max(self) -> int:
        return max(d.ack_above_max for d in self.directions)


@dataclass
class Capture:
    """All that a capture shows, in the order of time."""

    paths: list[Path] = field(default_factory=list)

    def new_paths(self) -> list[Path]:
        """Those that reconfigurations have made and data has used."""
        return [p for p in self.paths if p.new and any(d.bytes for d in p.directions)]


def segments(pcap: File) -> Iterator[Segment]:
    """The TCP segments of a capture file.  ToolFailed if tshark cannot read it."""
    command = ["tshark", "-n", "-r", str(pcap), "-Y", "tcp", "-T", "fields", "-o", "tcp.analyze_sequence_numbers:FALSE",
               "-o", "tcp.desegment_tcp_streams:FALSE"]  # fmt: skip
    for name in FIELDS:
        command += ["-e", name]
    for line in run(command).splitlines():
        time, src, sport, dst, dport, seq, ack, flags, length, options, payload = line.split("\t")
        yield Segment(
            float(time), (src, int(sport)), (dst, int(dport)), int(seq), int(ack), int(flags, 16), int(length),
            tuple(options.split(",")), bytes.fromhex(payload),
        )  # fmt: skip


def _setup(payload: bytes) -> tuple[str, bool]:
    """The nonce in a SYN's set-up message, and whether it makes a new path."""
    if payload[:3] != MAGIC or payload[3] != SETUP:
        return "", False
    at, length = FIXED, int.from_bytes(payload[4:6], "big")
    while at + 2 <= min(length, len(payload)) and payload[at + 1] >= 2:
        if payload[at] == NEW_PATH:
            return payload[8:16].hex(), True
        at += payload[at + 1]
    return payload[8:16].hex(), False


def _open(s: Segment) -> Path:
    nonce, new = _setup(s.payload)
    # the message is no data of the connection: nobody acknowledges it
    return Path(s.src, s.dst, s.time_s, nonce, new, Direction(s.seq, (s.seq + 1) % 2**32))


def _take(path: Path, s: Segment) -> None:
    rightward = s.src == path.left
    if s.flags & RST:
        path.reset = True
        return
    if not rightward and path.leftward is None:
        if s.flags & SYN:
            path.leftward = Direction(s.seq, s.end)
        return
    here, there = (path.rightward, path.leftward) if rightward else (path.leftward, path.rightward)
    assert here
    if s.flags & ACK and there:
        here.ack_above_max = max(here.ack_above_max, ahead(s.ack, there.end))
    if s.flags & SYN or s.end == s.seq:
        return
    if s.length and here.first_offset is None:
        here.first_offset = ahead(s.seq, here.isn + 1)
    else:
        here.gap_bytes_max = max(here.gap_bytes_max, ahead(s.seq, here.end))
    if ahead(s.end, here.end) > 0:
        here.bytes += ahead(s.end, here.end)
        here.end = s.end


def judge(captured: Iterable[Segment]) -> Capture:
    """The paths whose beginning has been captured.  Control segments, and what began before, are left out."""
    found, live = Capture(), dict[frozenset[End], Path | None]()
    for s in captured:
        ends = frozenset((s.src, s.dst))
        if s.flags & (SYN | ACK) == SYN:
            path = live.get(ends)
            if path and path.rightward.isn == s.seq:
                continue  # repeated
            live[ends] = path = None if CONTROL_OPTION in s.options else _open(s)
            if path:
                found.paths.append(path)
        elif path := live.get(ends):
            _take(path, s)
    return found


def judged(pcap: File) -> Capture:
    return judge(segments(pcap))


def betas(paths: Iterable[Path], way: Literal["rightward", "leftward"]) -> list[tuple[Path, int]]:
    """For each new path, as captured at the end host that sends that way: beta (paper III-E), from the sequence numbers of
    the old path's end and the new path's beginning.

    Numbers on a path are the host's own less the path's beta, its ISN the host's own.  Hence each beta needs the one before.
    """
    found, last = [], dict[str, tuple[Direction, int]]()
    for path in sorted(paths, key=lambda p: p.opened_s):
        here: Direction | None = getattr(path, way)
        if not path.nonce or not here or (path.new and not here.bytes):
            continue  # not ours, given up, or never used that way
        old, beta = last.get(path.nonce, (None, 0))
        if path.new and old:
            beta = (old.end + beta - here.isn - 1) % 2**32
            found.append((path, beta))
        last[path.nonce] = here, beta
    return found
