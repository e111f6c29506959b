# SPDX-License-Identifier: Apache-2.0
"""What one pass of the data path costs: the shipped programs, run by BPF_PROG_RUN over many flows in random order.

The kernel's own statistics count the time inside the program; an empty program, run in the same way, is taken off.
"""

from __future__ import annotations

import ctypes as c
import os
import random
import statistics
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dysco_ns import netns
from dysco_ns.agent.core import Core
from dysco_ns.agent.daemon import forget_namespace
from dysco_ns.ebpf.libbpf import bpf
from dysco_ns.ebpf.loader import Programs

BPF_ENABLE_STATS, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_LOAD = 32, 15, 5
BPF_PROG_TYPE_SCHED_CLS = 3
INFO_BYTES, RUN_TIME_AT = 232, 192  # struct bpf_prog_info
CLIENT, SERVER, NEAR, FAR = "10.1.0.1", "10.2.0.1", "10.1.0.1", "10.3.0.1"
PAYLOAD = 100
DELTAS = {"seq_delta": 12345, "ack_delta": 54321, "tsval_delta": 7, "tsecr_delta": 9, "window_shift": 0}
ENTRY_OPTIONS = 1


@contextmanager
def _namespace() -> Iterator[Path]:
    holder = subprocess.Popen(["unshare", "-n", "sleep", "600"])
    try:
        path = netns.path_of(holder.pid)
        while netns.inode(path) == netns.inode(netns.path_of()):
            pass
        yield path
    finally:
        holder.kill()
        holder.wait()


def _segment(src: str, dst: str, sport: int, dport: int) -> bytes:
    import socket

    ip = struct.pack("!BBHHHBBH", 0x45, 0, 52 + PAYLOAD, 1, 0x4000, 64, 6, 0) + socket.inet_aton(src) + socket.inet_aton(dst)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, 1000, 2000, 0x80, 0x10, 500, 0, 0)
    options = b"\1\1\x08\x0a" + struct.pack("!II", 100, 200)
    return bytes(12) + b"\x08\0" + ip + tcp + options + bytes(PAYLOAD)


def _fill(core: Core, flows: int) -> tuple[list[bytes], list[bytes]]:
    """Entries for so many sessions, and a packet for each, leaving and arriving."""
    leaving, arriving = [], []
    for i in range(flows):
        sport = 1024 + i
        local = {"src": CLIENT, "dst": SERVER, "sport": sport, "dport": 80}
        wire = {"src": NEAR, "dst": FAR, "sport": 20000 + i % 40000, "dport": 80}
        back = {"src": FAR, "dst": NEAR, "sport": 80, "dport": 20000 + i % 40000}
        inside = {"src": SERVER, "dst": CLIENT, "sport": 80, "dport": sport}
        core.egress_map.put(local, {"to": {"to": wire, **DELTAS}, "nonce": i + 1, "flags": ENTRY_OPTIONS})
        core.ingress_map.put(back, {"to": {"to": inside, **DELTAS}, "nonce": i + 1, "flags": ENTRY_OPTIONS})
        leaving.append(_segment(CLIENT, SERVER, sport, 80))
        arriving.append(_segment(FAR, NEAR, 80, 20000 + i % 40000))
    return leaving, arriving


def _run_time(fd: int) -> tuple[int, int]:
    """(run_time_ns, run_cnt) of a program."""
    buffer = c.create_string_buffer(INFO_BYTES)
    attributes = struct.pack("<IIQ", fd, INFO_BYTES, c.addressof(buffer))
    bpf(BPF_OBJ_GET_INFO_BY_FD, attributes, "reading program statistics")
    run_time, count = struct.unpack_from("<QQ", buffer.raw, RUN_TIME_AT)
    return run_time, count


def _empty_program() -> int:
    """A tc program that only says TC_ACT_UNSPEC."""
    code = c.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0))
    licence = c.create_string_buffer(b"GPL")
    attributes = struct.pack("<IIQQIIQ", BPF_PROG_TYPE_SCHED_CLS, 2, c.addressof(code), c.addressof(licence), 0, 0, 0)
    return bpf(BPF_PROG_LOAD, attributes, "loading the empty program")


def _per_run(programs: Programs, name: str, packets: list[bytes], dice: random.Random) -> float:
    order = packets[:]
    dice.shuffle(order)
    before = _run_time(programs.program(name))
    for packet in order:
        programs.run(name, packet)
    after = _run_time(programs.program(name))
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


def measure(flows: int, rounds: int, seed: int) -> Iterator[tuple[str, float]]:
    """(quantity, ns) for each round: egress, ingress, and the empty program under the same conditions."""
    dice = random.Random(seed)
    netns.ensure_bpffs()
    with _namespace() as path, netns.entered(path):
        inode = netns.inode(path)
        core = Core(Programs(netns.BPFFS / str(inode)))
        stats = bpf(BPF_ENABLE_STATS, struct.pack("<I", 0), "switching bpf statistics on")
        try:
            core.configure([], sign=False, events=False, policy_slots=0, linger_s=60, idle_s=0)
            core.programs._programs["empty"] = _empty_program()
            leaving, arriving = _fill(core, flows)
            for _ in range(rounds):
                empty = _per_run(core.programs, "empty", leaving, dice)
                yield "empty_ns", empty
                yield "egress_ns", _per_run(core.programs, "dysco_egress", leaving, dice) - empty
                yield "ingress_ns", _per_run(core.programs, "dysco_ingress", arriving, dice) - empty
        finally:
            os.close(stats)
            core.programs.close()
            forget_namespace(inode)


def median_of(rows: list[tuple[str, float]], name: str) -> float:
    return statistics.median(value for quantity, value in rows if quantity == name)
