# SPDX-License-Identifier: Apache-2.0
"""Which data path an agent drives: eBPF programs in the kernel, or a DPDK process in front of it."""

from __future__ import annotations

from dysco_ns import netns
from dysco_ns.agent.core import Backend
from dysco_ns.dpdk import process
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT, Programs, remove

BACKENDS = ("ebpf", "dpdk")


def open_backend(kind: str, namespace: int, btf: Btf | None, poll: bool = False, workers: int = 1) -> Backend:
    """The data path of the current namespace: made, or found as an earlier daemon left it."""
    if kind == "dpdk":
        return process.open_data_path(namespace, btf or Btf(OBJECT), poll, workers)
    if process.runs(namespace):
        raise process.StartFailed("this namespace has a DPDK data path already: use --backend dpdk")
    return Programs(netns.ensure_bpffs() / str(namespace), btf=btf)


def forget(namespace: int) -> None:
    """Takes away whichever data path a namespace has.  May run twice."""
    process.remove(namespace)
    remove(netns.BPFFS / str(namespace))
