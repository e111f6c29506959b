# SPDX-License-Identifier: Apache-2.0
"""Judges captures: does each path look like one ordinary TCP connection to whoever stands beside it?

tshark takes the packets apart, this module knows TCP and docs/wire-format.md; neither shares code with the core.  What is
judged of each direction of a path: its first byte is ISN + 1, no byte is skipped, no acknowledgment is above what the path
has carried, timestamps never fall and echo only what has been sent.  That holds beside the sender.  What comes from afar may
have got lost or been overtaken: there what has been skipped must come later, and no news may bear a timestamp for which its
receiver drops it (RFC 7323, 5.3).  What agents write is read by agents first, and may come early.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Literal

from lab.tool import run

FIN, SYN, RST, ACK = 1, 2, 4, 16
CONTROL_OPTION, CS6 = "254", "48"
MAGIC = bytes.fromhex("445914")  # "DY", version 1, IPv4
SETUP, NEW_PATH = 1, 0x82
FIXED = 40  # bytes of a set-up message before its fields
ALWAYS = ("ack_above_max", "early_bytes_max", "missing_bytes", "stale_news_max", "echo_above_max")
BESIDE_THE_SENDER = ("skipped_bytes_max", "tsval_behind_max")
STALE_MS = 1  # Linux takes a segment whose timestamp is so much behind
FIELDS = (
    "frame.time_epoch", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len",
    "tcp.option_kind", "tcp.payload", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr",
    "tcp.window_size_value", "tcp.options.wscale.shift", "ip.dsfield.dscp",
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
    tsval: int | None = None
    tsecr: int = 0
    window: int = 0  # as on the wire
    window_scale: int = 0  # that this segment offers
    urgent: bool = False  # of DSCP CS6: written by an agent, and ahead of others in queues

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
    early_bytes_max: int = 0  # before ISN + 1
    holes: list[tuple[int, int]] = field(default_factory=list)  # offsets from ISN + 1 of bytes that have not come
    acked: int | None = None  # the highest acknowledgment
    recent: int | None = None  # the timestamp against which who receives this compares the next (RFC 7323: TS.Recent)
    stale_news_max: int = 0  # by how much news was behind it
    tsval: int | None = None  # the highest
    tsval_ordered: int | None = None  # the highest that has kept its place in queues
    tsval_behind_max: int = 0  # by how much a timestamp was behind such a one before it
    echo_above_max: int = 0  # by how much its echoes were ahead of what the other end has sent

    @property
    def skipped_bytes_max(self) -> int:
        """At once: before the first byte of the path or later."""
        return max(abs(self.first_offset or 0), self.gap_bytes_max)

    @property
    def missing_bytes(self) -> int:
        """Skipped, and never sent later either."""
        return sum(end - start for start, end in self.holes)

    def fill(self, start: int, end: int) -> None:
        """These bytes have come (offsets from ISN + 1); what they leave of the holes remains one."""
        pieces = [(a, min(b, start)) for a, b in self.holes] + [(max(a, end), b) for a, b in self.holes]
        self.holes = sorted({(a, b) for a, b in pieces if a < b})


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
        return max(d.skipped_bytes_max for d in self.directions)

    @property
    def ack_above_max(self) -> int:
        return max(d.ack_above_max for d in self.directions)

    def faults(self, beside: Container[str] = ()) -> dict[str, int]:
        """What no ordinary connection would show, by name.  `beside`: addresses of hosts beside which this was captured: nothing
        that they send can have been lost or overtaken."""
        found = {"reset": int(self.reset)}
        for d, (sender, _) in zip(self.directions, (self.left, self.right), strict=False):
            names = ALWAYS + BESIDE_THE_SENDER * (sender in beside)
            found |= {name: max(found.get(name, 0), getattr(d, name)) for name in names}
        return {name: value for name, value in found.items() if value}


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
        time, src, sport, dst, dport, seq, ack, flags, length, options, payload, *rest = line.split("\t")
        tsval, tsecr, window, scale, dscp = rest
        yield Segment(
            float(time), (src, int(sport)), (dst, int(dport)), int(seq), int(ack), int(flags, 16), int(length),
            tuple(options.split(",")), bytes.fromhex(payload), int(tsval) if tsval else None, int(tsecr or 0),
            int(window), int(scale or 0), dscp == CS6,
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
    return Path(s.src, s.dst, s.time_s, nonce, new, Direction(s.seq, (s.seq + 1) % 2**32, tsval=s.tsval))


def _take(path: Path, s: Segment) -> None:
    rightward = s.src == path.left
    if s.flags & RST:
        path.reset = True
        return
    if not rightward and path.leftward is None:
        if s.flags & SYN:
            path.leftward = Direction(s.seq, s.end, tsval=s.tsval, acked=s.ack)
        return
    here, there = (path.rightward, path.leftward) if rightward else (path.leftward, path.rightward)
    assert here
    if s.flags & ACK and there:
        here.ack_above_max = max(here.ack_above_max, ahead(s.ack, there.end))
    start = here.bytes + ahead(s.seq, here.end)
    _take_timestamps(here, there, s, _is_news(here, s, start))
    if s.flags & ACK and (here.acked is None or ahead(s.ack, here.acked) > 0):
        here.acked = s.ack
    if s.flags & SYN or s.end == s.seq:
        return
    here.early_bytes_max = max(here.early_bytes_max, -start)
    here.fill(start, start + ahead(s.end, s.seq))
    if start > here.bytes:
        here.holes.append((here.bytes, start))
    if s.length and here.first_offset is None:
        here.first_offset = ahead(s.seq, here.isn + 1)
    else:
        here.gap_bytes_max = max(here.gap_bytes_max, ahead(s.seq, here.end))
    if ahead(s.end, here.end) > 0:
        here.bytes += ahead(s.end, here.end)
        here.end = s.end


def _is_news(here: Direction, s: Segment, start: int) -> bool:
    """Whether a segment, which begins at offset `start`, carries a byte or an acknowledgment that has not been seen."""
    end = start + ahead(s.end, s.seq)
    fills = any(start < b and a < end for a, b in here.holes)
    return end > here.bytes or fills or bool(s.flags & ACK and here.acked is not None and ahead(s.ack, here.acked) > 0)


def _take_timestamps(here: Direction, there: Direction | None, s: Segment, news: bool) -> None:
    if s.tsval is None:
        return
    if here.recent is not None and news and not s.urgent and (behind := ahead(here.recent, s.tsval)) > STALE_MS:
        here.stale_news_max = max(here.stale_news_max, behind)
    in_order = not there or there.acked is None or ahead(s.seq, there.acked) <= 0
    if in_order and not s.urgent and (here.recent is None or ahead(s.tsval, here.recent) > 0):
        here.recent = s.tsval
    if here.tsval is None or ahead(s.tsval, here.tsval) > 0:
        here.tsval = s.tsval
    if not s.urgent:
        behind = 0 if here.tsval_ordered is None else ahead(here.tsval_ordered, s.tsval)
        here.tsval_behind_max = max(here.tsval_behind_max, behind)
        here.tsval_ordered = s.tsval if behind <= 0 else here.tsval_ordered
    if s.flags & ACK and there and there.tsval is not None:
        here.echo_above_max = max(here.echo_above_max, ahead(s.tsecr, there.tsval))


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
