# SPDX-License-Identifier: Apache-2.0
"""What one pass of the data path costs: the shipped programs, run by BPF_PROG_RUN over many flows in random order.

An empty program, run in the same way, is taken off: what remains is the pass, lookup of the flow included.
"""

from __future__ import annotations

import ctypes as c
import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dysco_ns import netns
from dysco_ns.agent.core import Core
from dysco_ns.agent.daemon import forget_namespace
from dysco_ns.ebpf.libbpf import TestRun, bpf, check, lib
from dysco_ns.ebpf.loader import Programs

BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SCHED_CLS = 3
CLIENT, SERVER, NEAR, FAR = "10.1.0.1", "10.2.0.1", "10.1.0.1", "10.3.0.1"
REPEAT = 200_000
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


Tuple = dict[str, Any]


def _segment(flow: Tuple) -> bytes:
    ip = (
        struct.pack("!BBHHHBBH", 0x45, 0, 52 + PAYLOAD, 1, 0x4000, 64, 6, 0)
        + socket.inet_aton(flow["src"])
        + socket.inet_aton(flow["dst"])
    )
    tcp = struct.pack("!HHIIBBHHH", flow["sport"], flow["dport"], 1000, 2000, 0x80, 0x10, 500, 0, 0)
    options = b"\1\1\x08\x0a" + struct.pack("!II", 100, 200)
    return bytes(12) + b"\x08\0" + ip + tcp + options + bytes(PAYLOAD)


def _fill(core: Core, flows: int, dice: random.Random) -> tuple[bytes, bytes]:
    """Entries for so many sessions, each of which turns its segments into those of the next in a random ring: one
    packet run again and again visits all of them in random order.  Returns that packet, leaving and arriving."""
    order = list(range(flows))
    dice.shuffle(order)
    for i, after in zip(order, order[1:] + order[:1], strict=True):
        entry = {"nonce": i + 1, "flags": ENTRY_OPTIONS}
        core.egress_map.put(_leaving(i), {"to": {"to": _leaving(after), **DELTAS}, **entry})
        core.ingress_map.put(_arriving(i), {"to": {"to": _arriving(after), **DELTAS}, **entry})
    return _segment(_leaving(order[0])), _segment(_arriving(order[0]))


def _leaving(flow: int) -> Tuple:
    return {"src": CLIENT, "dst": SERVER, "sport": 1024 + flow, "dport": 80}


def _arriving(flow: int) -> Tuple:
    return {"src": FAR, "dst": NEAR, "sport": 80, "dport": 20000 + flow}


def _empty_program() -> int:
    """A tc program that only says TC_ACT_UNSPEC."""
    code = c.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0))
    licence = c.create_string_buffer(b"GPL")
    attributes = struct.pack("<IIQQIIQ", BPF_PROG_TYPE_SCHED_CLS, 2, c.addressof(code), c.addressof(licence), 0, 0, 0)
    return bpf(BPF_PROG_LOAD, attributes, "loading the empty program")


def measure(flows: int, rounds: int, seed: int) -> Iterator[tuple[str, float]]:
    """(quantity, ns) for each round: the empty program, and egress and ingress less the empty program."""
    netns.ensure_bpffs()
    with _namespace() as path, netns.entered(path):
        inode = netns.inode(path)
        programs = Programs(netns.BPFFS / str(inode))
        core = Core(programs)
        try:
            core.configure([], domains=[], events=False)
            programs._programs["empty"] = _empty_program()
            leaving, arriving = _fill(core, flows, random.Random(seed))
            for _ in range(rounds):
                empty = _ns(programs, "empty", leaving)
                yield "empty_ns", empty
                yield "egress_ns", _ns(programs, "dysco_egress", leaving) - empty
                yield "ingress_ns", _ns(programs, "dysco_ingress", arriving) - empty
            visited = sum(1 for _, e in core.egress_map.items() if e["packets"])
            if visited != flows:
                raise RuntimeError(f"the ring was left after {visited} of {flows} flows: the figures mean nothing")
        finally:
            programs.close()
            forget_namespace(inode)


def with_empty_program(then: Callable[[int], float]) -> float:
    """What `then` says of the empty program (its file descriptor) after it has run many times."""
    fd = _empty_program()
    try:
        data = _segment(_leaving(0))
        buffer = c.create_string_buffer(data, len(data))
        o = TestRun(sz=c.sizeof(TestRun), data_in=c.addressof(buffer), data_size_in=len(data), repeat=REPEAT)
        check(lib.bpf_prog_test_run_opts(fd, c.byref(o)), "running the empty program")
        return then(fd)
    finally:
        os.close(fd)


def _ns(programs: Programs, name: str, packet: bytes) -> float:
    return float(programs.run(name, packet, repeat=REPEAT)[1])
