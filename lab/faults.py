# SPDX-License-Identifier: Apache-2.0
"""Loss, duplication and reordering in the lab's router, by iptables and htb: kernels without netem have these.

Each fault is a context manager; `match` is what iptables shall match, on packets that the host forwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.network import Lab
from lab.topologies import ROUTER

SYN = ("-p", "tcp", "--tcp-flags", "SYN,ACK,RST,FIN", "SYN")
SYN_ACK = ("-p", "tcp", "--tcp-flags", "SYN,ACK", "SYN,ACK")
SETUP = ("-p", "tcp", "--syn", "-m", "length", "--length", "100:65535")  # a SYN with a message in it
CONTROL = ("-p", "tcp", "--tcp-option", "254")
LATE_MARK, LATE_CLASS = 0x1A7E, 0xFFF0

NEEDS = {
    "statistic": ["iptables", "-A", "FORWARD", "-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0", "-j", "DROP"],
    "u32": ["iptables", "-A", "FORWARD", "-m", "u32", "--u32", "6&0xFF=6", "-j", "DROP"],
    "TEE": ["iptables", "-t", "mangle", "-A", "FORWARD", "-j", "TEE", "--gateway", "192.0.2.1"],
}


def missing(*names: str) -> str:
    """What this kernel cannot do of what the faults need; empty if it can."""
    return "; ".join(f"iptables {name} is not here" for name in names if not _works(NEEDS[name]))


def _works(argv: Sequence[str]) -> bool:
    done = subprocess.run(["unshare", "-n", *argv], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def rule(lab: Lab, host: str, chain: str, words: Sequence[str], table: str = "filter") -> Iterator[None]:
    """An iptables rule, first in its chain, inside the block."""
    lab.run(host, ["iptables", "-w", "-t", table, "-I", chain, *words])
    try:
        yield
    finally:
        lab.run(host, ["iptables", "-w", "-t", table, "-D", chain, *words])


@contextmanager
def lost(lab: Lab, *match: str, host: str = ROUTER, chain: str = "FORWARD") -> Iterator[None]:
    """What matches is lost."""
    with rule(lab, host, chain, [*match, "-j", "DROP"]):
        yield


@contextmanager
def every(lab: Lab, number: int, *match: str, host: str = ROUTER) -> Iterator[None]:
    """One in so many of what matches is lost."""
    with lost(lab, *match, "-m", "statistic", "--mode", "nth", "--every", str(number), "--packet", "0", host=host):
        yield


@contextmanager
def doubled(lab: Lab, to: str, *match: str, host: str = ROUTER) -> Iterator[None]:
    """What matches and goes to a host (by its name) behind this router comes there twice."""
    address = lab.topology.host(to).address
    with rule(lab, host, "FORWARD", ["-d", address, *match, "-j", "TEE", "--gateway", address], "mangle"):
        yield
