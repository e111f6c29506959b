# SPDX-License-Identifier: Apache-2.0
"""How long the programs of an agent run, by the kernel's own account (BPF_ENABLE_STATS).

The account itself costs time, most of which it counts: an empty program is run in the same way, and taken off.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dysco_ns import netns
from dysco_ns.ebpf.libbpf import bpf, check, lib
from lab.experiments import passes
from lab.network import Lab

BPF_ENABLE_STATS = 32
BPF_STATS_RUN_TIME = 0
PROGRAMS = ("dysco_egress", "dysco_ingress")


@dataclass(frozen=True)
class Account:
    ns: int
    runs: int

    def since(self, before: Account) -> Account:
        return Account(self.ns - before.ns, self.runs - before.runs)


Accounts = dict[tuple[str, str], Account]  # by host and program


@contextmanager
def enabled() -> Iterator[None]:
    """The kernel keeps account while the block lasts."""
    fd = bpf(BPF_ENABLE_STATS, struct.pack("<I", BPF_STATS_RUN_TIME), "keeping account of eBPF programs")
    try:
        yield
    finally:
        os.close(fd)


def account(fd: int) -> Account:
    """Of a program, since it was loaded."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    return Account(int(lines["run_time_ns"]), int(lines["run_cnt"]))


def accounts(lab: Lab) -> Accounts:
    """Of the programs of every agent."""
    found: Accounts = {}
    for host in lab.state.agents:
        for program in PROGRAMS:
            pin = netns.BPFFS / str(lab.state.namespaces[host]) / f"p_{program}"
            fd = check(lib.bpf_obj_get(str(pin).encode()), f"opening {pin}")
            found[host, program] = account(fd)
            os.close(fd)
    return found


def floor_ns() -> float:
    """What the account says that an empty program takes.  Only inside `enabled`."""
    return passes.with_empty_program(lambda fd: account(fd).ns / account(fd).runs)


def spent_ns(before: Accounts, after: Accounts, floor: float) -> dict[tuple[str, str], tuple[float, int]]:
    """Nanoseconds of each program in between, without the account's own, and how often it ran."""
    spent = {key: after[key].since(before[key]) for key in before}
    return {key: (each.ns - floor * each.runs, each.runs) for key, each in spent.items()}
